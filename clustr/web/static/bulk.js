// The bar for images that were chosen: tags, the trash and analyses for all of them at once.
import { call, get } from "./api.js";
import { filterOfJob, readFilters } from "./filters.js";
import { cancel, endedOf, follow, isOver, progressOf, titleOf } from "./jobs.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";
import * as route from "./route.js";
import { MOST_IDS, selection } from "./selection.js";

const IDS_ON_A_PAGE = 1000;

const bar = document.getElementById("selection");
const state = { analyzers: [], jobs: [], isOrdering: false };
let scopes = [];

/**
 * Show the bar whenever something is chosen.
 *
 * @param {{scopes: string[]}} session says what of it is offered.
 */
export function startBulk(session) {
  scopes = session.scopes;
  if (!["uploads:write", "uploads:delete", "analyses:run"].some((each) => scopes.includes(each))) return;
  selection.addEventListener("change", selectionChanged);
  let shown = route.filters().toString();
  route.onChange(() => {
    // What was chosen among other hits is out of sight.
    const now = route.filters().toString();
    if (now !== shown) selection.clear();
    shown = now;
  });
}

async function selectionChanged() {
  draw();
  if (selection.isEmpty || state.analyzers.length || !scopes.includes("analyses:run")) return;
  const { data } = await get("api/analyses").catch(() => ({ data: [] }));
  state.analyzers = data.map((each) => each.analyzer);
  draw();
}

/** The chosen uploads as an order has them; `ids` are just those that the page shows. */
async function chosen() {
  if (!selection.isAll) return { ids: selection.ids };
  // Somebody may go on to other images while these are read.
  const filters = route.filters();
  let isChosen = true;
  selection.addEventListener("change", () => (isChosen = false), { once: true });
  const ids = [];
  const parameters = new URLSearchParams(filters);
  parameters.set("fields", "id");
  parameters.set("limit", IDS_ON_A_PAGE);
  for (let cursor = ""; cursor !== null && ids.length <= MOST_IDS; ) {
    if (cursor) parameters.set("cursor", cursor);
    const page = await get("api/uploads", parameters);
    if (!isChosen) throw new Error("Something else was chosen meanwhile, so nothing was ordered.");
    ids.push(...page.data.map((upload) => upload.id));
    cursor = page.next_cursor;
  }
  if (ids.length <= MOST_IDS) return { ids };
  // In a job the last word of a search is a whole word, so it would find others than the page.
  if (filters.has("q")) {
    throw new Error(`The search finds more than ${MOST_IDS.toLocaleString("en")} images; narrow it down.`);
  }
  return { filter: filterOfJob(filters, await readFilters()) };
}

/** Order a job for what is chosen, and follow it; `undo` is offered when it is done. */
async function order(path, body, undo) {
  state.isOrdering = true;
  draw();
  let uploads = {};
  await tellingProblems(async () => {
    uploads = await chosen();
    if (uploads.ids?.length === 0) throw new Error("No image is chosen.");
    const job = await ordered(path, { ...body, ...uploads });
    state.isOrdering = false;
    if (undo) selection.clear(); // They are about to be gone.
    const action = undo && uploads.ids && { label: "Undo", run: () => undo(uploads.ids) };
    await followToEnd(job, action);
  });
  state.isOrdering = false;
  draw();
}

async function tellingProblems(work) {
  try {
    await work();
  } catch (problem) {
    say(Object.values(problem.document?.errors ?? {}).flat().join(" ") || problem.message);
  }
}

async function ordered(path, body) {
  return (await call("POST", path, { json: body })).json();
}

/** Show a job until it has ended; others can be ordered meanwhile, for it may wait for long. */
async function followToEnd(job, action) {
  const shown = { job };
  state.jobs.push(shown);
  try {
    const ended = await follow(job, (now) => {
      shown.job = now;
      draw();
    });
    say(`${titleOf(ended)}: ${progressOf(ended)}.`, action);
  } finally {
    state.jobs = state.jobs.filter((each) => each !== shown);
    document.dispatchEvent(new Event("uploadschange"));
    draw();
  }
}

function changeTags(action) {
  const tags = bar.querySelector("[name=tags]").value.split(",").map((tag) => tag.trim());
  const given = tags.filter(Boolean);
  if (given.length) order("api/uploads/bulk", { action, tags: given });
  else bar.querySelector("[name=tags]").focus();
}

function trash() {
  order("api/uploads/bulk", { action: "delete" }, restore);
}

function restore(ids) {
  return tellingProblems(async () => {
    await followToEnd(await ordered("api/uploads/bulk", { action: "restore", ids }));
  });
}

function analyze() {
  const analyzer = bar.querySelector("[name=analyzer]").value;
  order("api/analyses", { analyzer, select: "all" });
}

function draw() {
  const isShown = !selection.isEmpty || state.jobs.length;
  render(isShown ? drawBar() : nothing, bar);
}

function drawBar() {
  return html`<section aria-label="Chosen images">
    ${selection.isEmpty ? nothing : drawChoice()}
    ${state.jobs.map(({ job }) => drawJob(job))}
  </section>`;
}

function drawChoice() {
  const count = selection.isAll ? "All hits" : selection.ids.length.toLocaleString("en");
  return html`<p role="status">${count} chosen</p>
    ${selection.isAll
      ? nothing
      : html`<button @click=${() => selection.chooseAll()}>Choose all hits</button>`}
    <button @click=${() => selection.clear()}>Choose none</button>
    <fieldset ?disabled=${state.isOrdering}>
      ${drawTags()}
      ${scopes.includes("uploads:delete")
        ? html`<button class="danger" @click=${trash}>Put into the trash</button>`
        : nothing}
      ${drawAnalyses()}
    </fieldset>`;
}

function drawTags() {
  if (!scopes.includes("uploads:write")) return nothing;
  return html`
    <input name="tags" aria-label="Tags, with commas between them" placeholder="Tags" />
    <button @click=${() => changeTags("tag")}>Add tags</button>
    <button @click=${() => changeTags("untag")}>Remove tags</button>
  `;
}

function drawAnalyses() {
  if (state.analyzers.length === 0) return nothing;
  return html`
    <select name="analyzer" aria-label="Analyzer">
      ${state.analyzers.map((name) => html`<option>${name}</option>`)}
    </select>
    <button @click=${analyze}>Run</button>
  `;
}

function drawJob(job) {
  const stop = () => cancel(job).catch((problem) => say(problem.message));
  return html`<div class="job">
    <span>${titleOf(job)}: ${progressOf(job)}</span>
    <progress aria-label=${titleOf(job)} max=${job.total || 1} .value=${endedOf(job)}></progress>
    ${isOver(job) ? nothing : html`<button @click=${stop}>Cancel</button>`}
  </div>`;
}
