// Jobs on many uploads: follows one to its end, and says in words how far it is.
import { call, get } from "./api.js";
import { pause } from "./pause.js";

const PAUSE_MILLISECONDS = 1000;
const KINDS = {
  analyze: "Analyze",
  delete: "Put into the trash",
  restore: "Restore",
  tag: "Tag",
  untag: "Remove tags",
  forget: "Forget results",
};

/** The scope that it takes to cancel a job of each kind; any other takes `admin`. */
const SCOPES = {
  analyze: "analyses:run",
  delete: "uploads:delete",
  restore: "uploads:write",
  tag: "uploads:write",
  untag: "uploads:write",
};

export const isOver = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);

export const mayCancel = (job, scopes) => !isOver(job) && scopes.includes(SCOPES[job.kind] ?? "admin");

export const cancel = (job) => call("POST", `api/jobs/${job.id}/cancel`);

/** How many uploads of a job have come to an end, whatever it is. */
export function endedOf({ counts }) {
  return counts.succeeded + counts.skipped + counts.failed + counts.cancelled;
}

/** What a job is about: `Tag “beach”`, `Analyze palette`. */
export function titleOf({ kind, parameters }) {
  const tags = parameters.tags?.map((tag) => `“${tag}”`).join(", ");
  return [KINDS[kind] ?? kind, tags ?? parameters.analyzer].filter(Boolean).join(" ");
}

/** How far a job is: `3 of 12 done, 1 failed`. */
export function progressOf(job) {
  if (job.error) return job.error;
  const { failed, deferred, cancelled } = job.counts;
  const parts = [`${endedOf(job) - failed - cancelled} of ${job.total ?? "?"} done`];
  if (failed) parts.push(`${failed} failed`);
  if (deferred) parts.push(`${deferred} wait for a service`);
  if (job.state === "cancelled") parts.push("cancelled");
  return parts.join(", ");
}

/**
 * Ask for a job until it has ended.
 *
 * @param {function} changed is called with the job whenever it was read.
 * @returns {Promise<object>} the job in the end.
 */
export async function follow(job, changed) {
  for (;;) {
    changed(job);
    if (isOver(job)) return job;
    await pause(PAUSE_MILLISECONDS);
    // The job goes on all the same while nobody answers, has time, or knows the session.
    job = await get(`api/jobs/${job.id}`).catch((problem) => {
      if (problem.status && problem.status < 500 && ![401, 429].includes(problem.status)) throw problem;
      return job;
    });
  }
}
