// Starts the page: each module takes care of one element of it.
import { readSession } from "./api.js";
import { say } from "./messages.js";
import { startSearch } from "./search.js";

const session = await readSession().catch((problem) => say(problem.message));
if (session) {
  if (session.scopes.includes("uploads:read")) startSearch();
}
