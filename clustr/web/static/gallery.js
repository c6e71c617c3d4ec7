// Starts the page: each module takes care of one element of it.
import { startBulk } from "./bulk.js";
import { startGrid } from "./grid.js";
import { html, render } from "./lit-html.js";
import { startSession } from "./login.js";
import { startSearch } from "./search.js";
import { startService } from "./service.js";
import { startUploading } from "./uploading.js";
import { startViewer } from "./viewer.js";

const session = await startSession().catch(offerAgain);
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

function offerAgain(problem) {
  render(
    html`<div class="grid-notice">
      <p role="alert">${problem.message}</p>
      <button @click=${() => location.reload()}>Try again</button>
    </div>`,
    document.getElementById("grid"),
  );
}
