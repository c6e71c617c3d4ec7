// One image in a dialog: full size, what is known of it, and what can be done to it.
import { analysesTemplate, isPending } from "./analyses.js";
import { call, get, thumbnailUrl } from "./api.js";
import { Editing } from "./editing.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";
import { metadataTemplate } from "./metadata.js";
import { pause } from "./pause.js";
import { readRelated, relatedTemplate } from "./related.js";
import { current, go, onChange } from "./route.js";
import { describe } from "./tiles.js";
import { Zoom } from "./zoom.js";

const LARGEST_THUMBNAIL = 1600;
const FOLLOW_MILLISECONDS = 2000;
/** What browsers show; of other formats the largest thumbnail is shown. */
const SHOWN = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp"];

/** Start the viewer, which shows the image that the address names. `session` says what is allowed. */
export function startViewer(session, grid) {
  const viewer = new Viewer(document.getElementById("viewer"), session, grid);
  const follow = () => viewer.show(current().get("upload"));
  onChange(follow);
  follow();
}

class Viewer {
  #dialog;
  #session;
  #grid;
  #id = null;
  #upload = null;
  #related = null;
  #editing = null;
  #problem = null;
  #isOriginal = false;
  /** What was written of images and could not be saved, by their ids. */
  #unsaved = new Map();
  #reading = new AbortController();

  constructor(dialog, session, grid) {
    this.#dialog = dialog;
    this.#session = session;
    this.#grid = grid;
    this.#makeParts();
    dialog.tabIndex = -1;
    dialog.addEventListener("close", () => this.#id && go({ upload: null }));
    dialog.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Show an image; with null, close. */
  async show(id) {
    if (id === this.#id) return;
    if (this.#editing?.isChanged && confirm("What you wrote is not saved. Save it now?")) {
      this.#saveBehind(this.#id, this.#editing);
    }
    const before = this.#id;
    this.#id = id;
    this.#reading.abort();
    this.#upload = this.#related = this.#editing = this.#problem = null;
    this.#clearWords();
    if (id === null) return this.#close(before);
    this.#draw();
    if (!this.#dialog.open) this.#dialog.showModal();
    // What led here may have gone with the image before; keys are for the viewer all the same.
    if (!this.#dialog.contains(document.activeElement)) this.#dialog.focus();
    this.#showImage(id);
    await this.#read(id);
  }

  #makeParts() {
    const make = (name, className) => Object.assign(document.createElement(name), { className });
    this.tools = make("div", "viewer-tools");
    this.stage = make("div", "viewer-stage");
    this.image = make("img", "viewer-image");
    this.panel = make("section", "viewer-panel");
    this.words = make("div", "viewer-words");
    this.rest = make("div", "viewer-rest");
    this.panel.setAttribute("aria-label", "Details");
    this.panel.tabIndex = 0; // It scrolls, also where nothing in it can be focused.
    this.image.draggable = false;
    this.image.addEventListener("error", () => this.#showWithoutOriginal());
    this.stage.append(this.image);
    this.panel.append(this.words, this.rest);
    this.#dialog.append(this.tools, this.stage, this.panel);
    this.zoom = new Zoom(this.stage, this.image);
    this.zoom.addEventListener("zoom", () => this.#showOriginal());
    this.zoom.addEventListener("swipe", (event) => this.#move(event.step));
  }

  /** Take a new element for words: an answer about the image before may still be drawn into the old. */
  #clearWords() {
    const words = this.words.cloneNode();
    this.words.replaceWith(words);
    this.words = words;
  }

  #close(before) {
    this.#dialog.close();
    this.image.removeAttribute("src");
    this.#grid.reveal(before)?.querySelector("a").focus();
  }

  #showImage(id) {
    this.#isOriginal = false;
    this.image.removeAttribute("src"); // The one before is not to be seen under another name.
    this.image.alt = "";
    this.image.src = thumbnailUrl({ id }, LARGEST_THUMBNAIL);
    this.zoom.reset();
  }

  /** Load the original once somebody looks closer. */
  #showOriginal() {
    const isShown = this.#upload && SHOWN.includes(this.#upload.content_type);
    if (this.#isOriginal || !isShown || this.zoom.scale === 1) return;
    this.#isOriginal = true;
    this.image.src = `api/uploads/${this.#id}/file`;
  }

  #showWithoutOriginal() {
    if (!this.#isOriginal) return;
    this.#isOriginal = false;
    this.image.src = thumbnailUrl({ id: this.#id }, LARGEST_THUMBNAIL);
  }

  async #read(id) {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    try {
      const upload = await get(`api/uploads/${id}`, {}, signal);
      const isNew = !this.#related || isPending(this.#upload);
      this.#accept(upload);
      if (isNew) this.#related = await readRelated(upload, signal);
      this.#problem = null;
    } catch (problem) {
      if (signal.aborted) return;
      this.#problem = problem;
    }
    this.#draw();
    const isGone = this.#problem?.status === 404;
    if (!isGone && (this.#problem || isPending(this.#upload))) {
      pause(FOLLOW_MILLISECONDS).then(() => signal.aborted || this.#read(id));
    }
  }

  #accept(upload) {
    this.#upload = upload;
    this.image.alt = describe(upload);
    this.#dialog.setAttribute("aria-label", `Image: ${describe(upload)}`);
    if (!this.#may("uploads:write")) render(wordsTemplate(upload), this.words);
    else if (this.#editing) this.#editing.update(upload);
    else {
      this.#editing = new Editing(this.words, upload, (saved) => this.#change(saved));
      this.#restoreUnsaved();
    }
    this.#draw();
  }

  async #saveBehind(id, editing) {
    const unsaved = await editing.saveBehind();
    if (!unsaved) return;
    this.#unsaved.set(id, unsaved);
    const show = () => {
      go({ upload: id });
      this.#restoreUnsaved();
    };
    say(`What you wrote is not saved. ${unsaved.reason}`, { label: "Show it", run: show });
  }

  #restoreUnsaved() {
    const unsaved = this.#unsaved.get(this.#id);
    if (!unsaved || !this.#editing) return;
    this.#unsaved.delete(this.#id);
    this.#editing.restore(unsaved);
  }

  /** Take what was saved, of this image or of one before. */
  #change(upload) {
    if (upload.id === this.#id) this.#accept(upload);
    document.dispatchEvent(new Event("uploadschange"));
  }

  #may(scope) {
    return this.#session.scopes.includes(scope);
  }

  #draw() {
    render(this.#toolsTemplate(), this.tools);
    const upload = this.#upload;
    const again = () => this.#read(this.#id);
    render(
      html`${
        this.#problem
          ? html`<p class="problem" role="alert">${this.#problem.message}</p>
              <button @click=${again}>Try again</button>`
          : nothing
      }
      ${
        upload
          ? html`${metadataTemplate(upload)} ${analysesTemplate(upload, this.#may("analyses:run"), again)}
            ${this.#related ? relatedTemplate(this.#related) : nothing}`
          : nothing
      }`,
      this.rest,
    );
  }

  #toolsTemplate() {
    return html`<button @click=${() => this.#dialog.close()}>Close</button>
      <button @click=${() => this.#move(-1)}>Previous</button>
      <button @click=${() => this.#move(1)}>Next</button>
      <button aria-label="Zoom out" @click=${() => this.zoom.reduce()}>−</button>
      <button aria-label="Zoom in" @click=${() => this.zoom.enlarge()}>+</button>
      <a href="api/uploads/${this.#id}/file?download=1" download>Download</a>
      ${this.#may("uploads:delete") ? html`<button @click=${() => this.#trash()}>Move to trash</button>` : nothing}`;
  }

  #press(event) {
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey)
      return;
    const actions = {
      ArrowLeft: () => this.#move(-1),
      ArrowRight: () => this.#move(1),
      "+": () => this.zoom.enlarge(),
      "=": () => this.zoom.enlarge(),
      "-": () => this.zoom.reduce(),
      0: () => this.zoom.reset(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** Show the image before or behind this one, in the order of the grid. */
  async #move(step) {
    let next = null;
    try {
      if (this.#upload && this.#grid.listing && !(await this.#grid.find(this.#upload))) {
        say("No image is next to this one, which is not among those that are shown, or far down there.");
      }
      next = await this.#grid.neighborOf(this.#id, step);
    } catch (problem) {
      say(problem.message);
    }
    if (!next) return;
    this.#grid.reveal(next.id);
    go({ upload: next.id }, { replace: true });
  }

  async #trash() {
    const id = this.#id;
    const next = await this.#grid.neighborOf(id, 1).catch(() => null);
    try {
      await call("DELETE", `api/uploads/${id}`);
    } catch (problem) {
      return say(problem.message);
    }
    document.dispatchEvent(new Event("uploadschange"));
    go({ upload: next?.id ?? null }, { replace: true });
    say(
      "It is in the trash.",
      this.#may("uploads:write") ? { label: "Undo", run: () => restore(id) } : undefined,
    );
  }
}

async function restore(id) {
  try {
    await call("POST", `api/uploads/${id}/restore`);
    document.dispatchEvent(new Event("uploadschange"));
  } catch (problem) {
    say(problem.message);
  }
}

function wordsTemplate(upload) {
  return html`<p>${upload.caption}</p>
    <p>${upload.tags.join(", ")}</p>`;
}
