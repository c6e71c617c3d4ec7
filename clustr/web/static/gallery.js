// Starts the page: each module takes care of one element of it.
import { readSession } from "./api.js";
import { startBulk } from "./bulk.js";
import { say } from "./messages.js";
import { startSearch } from "./search.js";
import { startService } from "./service.js";
import { startUploading } from "./uploading.js";

const session = await readSession().catch((problem) => say(problem.message));
if (session) {
  const may = (scope) => session.scopes.includes(scope);
  if (may("uploads:read")) startSearch();
  if (may("uploads:write")) startUploading();
  startBulk(session);
  startService(session);
}
