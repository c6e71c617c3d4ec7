// Starts the page: each module takes care of one element of it.
import { startBulk } from "./bulk.js";
import { startGrid } from "./grid.js";
import { startSession } from "./login.js";
import { say } from "./messages.js";
import { startSearch } from "./search.js";
import { startService } from "./service.js";
import { startUploading } from "./uploading.js";
import { startViewer } from "./viewer.js";

const session = await startSession().catch((problem) => say(problem.message));
if (session) {
  const may = (scope) => session.scopes.includes(scope);
  if (may("uploads:read")) {
    startSearch();
    startViewer(session, startGrid());
  }
  if (may("uploads:write")) startUploading();
  startBulk(session);
  startService(session);
}
