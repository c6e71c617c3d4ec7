// Starts the page: each module takes care of one element of it.
import { readSession } from "./api.js";
import { say } from "./messages.js";

const session = await readSession().catch((problem) => say(problem.message));
if (session) {
  // The parts of the page are started here.
}
