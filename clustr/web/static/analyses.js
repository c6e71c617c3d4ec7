// The analyses of one image: how each is, why, what it found; and to run it again.
import { call } from "./api.js";
import { html, nothing } from "./lit-html.js";
import { say } from "./messages.js";

/** The states in which an analysis has ended. */
const ENDED = ["succeeded", "skipped", "failed", "cancelled"];

/** Whether an analysis of this upload goes on, so that it is worth asking again. */
export function isPending(upload) {
  return Object.values(upload.analyses).some(({ status }) => !ENDED.includes(status));
}

/**
 * All analyses of an upload.
 *
 * @param {boolean} mayRun whether to offer to run them again.
 * @param {function} onRun called when one was ordered.
 */
export function analysesTemplate(upload, mayRun, onRun) {
  return html`<h3>Analyses</h3>
    <ul class="analyses">
      ${Object.entries(upload.analyses).map(
        ([name, analysis]) =>
          html`<li>
            <details>
              <summary>${name}: ${analysis.status}${analysis.stale ? ", by an older version" : ""}</summary>
              ${resultTemplate(name, analysis)}
            </details>
            ${analysis.error ? html`<p class="problem">${analysis.error}</p>` : nothing}
            ${
              mayRun && ENDED.includes(analysis.status)
                ? html`<button @click=${() => runAgain(upload, name, onRun)} aria-label="Run ${name} again">
                    Run again
                  </button>`
                : nothing
            }
          </li>`,
      )}
    </ul>`;
}

function resultTemplate(name, analysis) {
  if (!analysis.result) return html`<p>There is no result${analysis.error ? "" : " yet"}.</p>`;
  return html`<pre tabindex="0" role="group" aria-label="Result of ${name}">
${JSON.stringify(analysis.result, null, 2)}</pre>`;
}

async function runAgain(upload, name, onRun) {
  try {
    await call("POST", `api/uploads/${upload.id}/analyses/${encodeURIComponent(name)}`);
    onRun();
  } catch (problem) {
    say(problem.message);
  }
}
