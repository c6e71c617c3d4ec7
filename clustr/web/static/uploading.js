// Takes files and folders that are dropped on the page, pasted or chosen, and shows how far they are.
import { addAction } from "./actions.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";
import * as route from "./route.js";
import { UploadQueue } from "./upload_queue.js";

/** More rows than that are only counted. */
const MOST_ROWS = 100;
const PAUSE_MILLISECONDS = 1000;
const ORDER = ["sending", "failed", "refused", "known", "uploaded", "ready", "waiting"];
const SAID = {
  waiting: "waits",
  ready: "waits",
  sending: "is being sent",
  uploaded: "uploaded",
  known: "is there already",
};

const queue = new UploadQueue();
const panel = document.getElementById("uploads");
let isDrawn = true;
let telling = null;

/** Take files from now on. */
export function startUploading() {
  addAction("Upload", chooseFiles);
  document.addEventListener("dragover", dragged);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) showTarget(false);
  });
  document.addEventListener("drop", dropped);
  document.addEventListener("paste", pasted);
  queue.addEventListener("change", drawSoon);
  queue.addEventListener("change", askBeforeLeaving);
  queue.addEventListener("taken", tellSoon);
}

/** Tell the page of new uploads, of many at once: what shows them reads them anew each time. */
function tellSoon() {
  telling ??= setTimeout(() => {
    telling = null;
    document.dispatchEvent(new Event("uploadschange"));
  }, PAUSE_MILLISECONDS);
}

function add(files) {
  if (files.length) queue.add(files);
}

function chooseFiles() {
  const input = document.createElement("input");
  Object.assign(input, { type: "file", multiple: true, accept: "image/*" });
  input.addEventListener("change", () => add(input.files));
  input.click();
}

function dragged(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  showTarget(true);
}

function dropped(event) {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  showTarget(false);
  // All have to be asked for at once: behind the first wait they are gone.
  const entries = [...event.dataTransfer.items]
    .filter(({ kind }) => kind === "file")
    .map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  for (const entry of entries) addEntry(entry);
}

/** Some programs copy a text together with a picture of it; a field takes the text. */
function pasted({ target, clipboardData }) {
  const isText = clipboardData.types.includes("text/plain") && target.matches("input, textarea");
  if (!isText) add(clipboardData.files);
}

/** Add a file, or all files of a folder. */
async function addEntry(entry) {
  try {
    add(entry instanceof File ? [entry] : await filesIn(entry));
  } catch {
    say(`“${entry.name}” cannot be read; it may have been moved.`);
  }
}

/** The files in a folder and the folders in it, or the one that is no folder. */
async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  // They are read some at a time, until there are none.
  for (let entries; (entries = await nextEntries(reader)).length; ) {
    for (const each of entries) files.push(...(await filesIn(each)));
  }
  return files;
}

const nextEntries = (reader) =>
  new Promise((resolve, reject) => reader.readEntries(resolve, reject));

function showTarget(isShown) {
  document.body.classList.toggle("dropping", isShown);
}

function askBeforeLeaving() {
  // A listener that is always there would keep the page out of the browser's cache of pages.
  window[queue.isBusy ? "addEventListener" : "removeEventListener"]("beforeunload", holdBack);
}

function holdBack(event) {
  event.preventDefault();
}

/** Draw with the next picture of the screen: progress is told far more often. */
function drawSoon() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => {
    isDrawn = true;
    draw();
  });
}

function draw() {
  const { items } = queue;
  if (items.length === 0) {
    render(nothing, panel);
    return;
  }
  const total = items.reduce((sum, item) => sum + item.file.size, 0);
  const sent = items.reduce((sum, item) => sum + item.sentBytes, 0);
  const rows = ORDER.flatMap((state) => queue.withState(state));
  render(
    html`<section aria-label="Uploads">
      <p role="status">${summary()}</p>
      <progress aria-label="All files" max=${total || 1} .value=${sent}></progress>
      <div class="buttons">${drawButtons()}</div>
      <ul>
        ${rows.slice(0, MOST_ROWS).map(drawRow)}
        ${rows.length > MOST_ROWS ? html`<li>and ${rows.length - MOST_ROWS} more</li>` : nothing}
      </ul>
    </section>`,
    panel,
  );
}

function summary() {
  const count = (...states) => queue.withState(...states).length;
  const parts = [`${count("uploaded")} of ${queue.items.length} uploaded`];
  if (count("known")) parts.push(`${count("known")} already there`);
  if (count("refused", "failed")) parts.push(`${count("refused", "failed")} not taken`);
  return parts.join(", ");
}

function drawButtons() {
  const failed = queue.withState("failed").length;
  return html`
    ${failed ? html`<button @click=${() => queue.retry()}>Try ${failed} again</button>` : nothing}
    ${queue.isBusy
      ? html`<button @click=${() => queue.clear({ all: true })}>Stop</button>`
      : html`<button @click=${() => queue.clear()}>Close</button>`}
  `;
}

function drawRow(item) {
  const { name } = item.file;
  const show = () => route.go({ upload: item.uploadId });
  return html`<li class=${item.state}>
    <span class="name">${name}</span>
    ${item.state === "sending"
      ? html`<progress aria-label=${name} max=${item.file.size || 1} .value=${item.sentBytes}></progress>`
      : html`<span class="said">${item.error || SAID[item.state]}</span>`}
    ${item.uploadId
      ? html`<button aria-label=${`Show ${name}`} @click=${show}>Show</button>`
      : nothing}
  </li>`;
}
