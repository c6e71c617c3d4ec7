// The state of the service: what it needs, what waits, its jobs and plugins, and the trash.
import { addAction } from "./actions.js";
import { get } from "./api.js";
import { cancel, endedOf, mayCancel, progressOf, titleOf } from "./jobs.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";
import { pause } from "./pause.js";
import * as route from "./route.js";
import { drawTrash, readTrash } from "./trash.js";

const PAUSE_MILLISECONDS = 2000;
const MOST_JOBS = 20;
/** Of a service these are shown in their own way, or are of no use to people. */
const OWN_WAY = ["status", "response_time", "detail", "error", "deferred"];

const dialog = document.getElementById("service");
const state = { health: null, jobs: [], plugins: [], problem: "" };
let scopes = [];
let lastReading = 0;

/**
 * Show the dialog whenever the address of the page says so.
 *
 * @param {{scopes: string[]}} session says what of it is shown.
 */
export function startService(session) {
  scopes = session.scopes;
  addAction("State", () => route.go({ panel: "service" }));
  dialog.addEventListener("close", () => {
    if (isWanted()) route.go({ panel: null });
  });
  route.onChange(showOrHide);
  showOrHide();
}

const isWanted = () => route.current().get("panel") === "service";

function showOrHide() {
  if (isWanted() === dialog.open) return;
  if (!isWanted()) {
    dialog.close();
    return;
  }
  draw();
  dialog.showModal();
  refresh();
  if (scopes.includes("uploads:read")) readTrash(draw);
}

/** Read all but the trash, now and while the dialog is there. */
async function refresh() {
  const reading = ++lastReading;
  try {
    await Promise.all([readHealth(), readJobs(), readPlugins()]);
    state.problem = "";
  } catch (problem) {
    state.problem = problem.message;
  }
  draw();
  await pause(PAUSE_MILLISECONDS);
  if (dialog.open && reading === lastReading) refresh();
}

async function readHealth() {
  state.health = await get("api/health");
}

async function readJobs() {
  if (!scopes.includes("uploads:read")) return;
  state.jobs = (await get("api/jobs", { limit: MOST_JOBS })).data;
}

async function readPlugins() {
  if (!scopes.includes("plugins:read")) return;
  state.plugins = (await get("api/plugins")).data;
}

function draw() {
  render(
    html`
      <header>
        <h2>State of the service</h2>
        <button @click=${() => dialog.close()}>Close</button>
      </header>
      ${state.problem ? html`<p class="error" role="alert">${state.problem}</p>` : nothing}
      ${state.health ? drawHealth(state.health) : nothing}
      ${scopes.includes("uploads:read") ? drawJobs() : nothing}
      ${scopes.includes("plugins:read") ? drawPlugins() : nothing}
      ${scopes.includes("uploads:read") ? drawTrash(scopes, draw) : nothing}
    `,
    dialog,
  );
}

function drawHealth({ status, services }) {
  return html`<section aria-labelledby="health-heading">
    <h3 id="health-heading">Services: ${status}</h3>
    <dl>
      ${Object.entries(services).map(
        ([name, service]) => html`<div>
          <dt>${name}</dt>
          <dd>
            <strong class=${service.status}>${service.status.replaceAll("_", " ")}</strong>
            ${service.error ?? service.detail ?? ""}
            <span class="details">${detailsOf(service)}</span>
          </dd>
        </div>`,
      )}
    </dl>
    ${drawDeferred(services.queue?.deferred ?? {})}
  </section>`;
}

function detailsOf(service) {
  return Object.entries(service)
    .filter(([name]) => !OWN_WAY.includes(name))
    .map(([name, value]) => `${name.replaceAll("_", " ")}: ${textOf(value)}`)
    .join("; ");
}

function textOf(value) {
  if (value === null || typeof value !== "object") return String(value);
  const parts = Object.entries(value).map(([name, each]) => `${name} ${textOf(each)}`);
  return parts.join(", ") || "none";
}

/** Draw what waits for a service that is away. */
function drawDeferred(deferred) {
  const analyzers = Object.entries(deferred);
  if (analyzers.length === 0) return nothing;
  return html`<h4>Analyses that wait for a service</h4>
    <ul>
      ${analyzers.map(
        ([name, { count, since }]) => html`<li>
          ${name}: ${count ?? "some"} since
          <time datetime=${since}>${new Date(since).toLocaleString()}</time>
        </li>`,
      )}
    </ul>`;
}

function drawJobs() {
  return html`<section aria-labelledby="jobs-heading">
    <h3 id="jobs-heading">Jobs</h3>
    ${state.jobs.length ? html`<ul>${state.jobs.map(drawJob)}</ul>` : html`<p>There is no job.</p>`}
  </section>`;
}

function drawJob(job) {
  const stop = () => cancel(job).then(refresh, (problem) => say(problem.message));
  return html`<li>
    <span>${titleOf(job)}: ${job.state}, ${progressOf(job)}</span>
    <progress aria-label=${titleOf(job)} max=${job.total || 1} .value=${endedOf(job)}></progress>
    ${mayCancel(job, scopes) ? html`<button @click=${stop}>Cancel</button>` : nothing}
  </li>`;
}

function drawPlugins() {
  return html`<section aria-labelledby="plugins-heading">
    <h3 id="plugins-heading">Plugins</h3>
    <dl>
      ${state.plugins.map(
        ({ name, version, state: loaded, reason, analyzers }) => html`<div>
          <dt>${name} ${version}</dt>
          <dd>
            <strong class=${loaded}>${loaded}</strong> ${reason}
            ${analyzers.map((each) => html`<p class="details">${each.name}: ${each.summary}</p>`)}
          </dd>
        </div>`,
      )}
    </dl>
  </section>`;
}
