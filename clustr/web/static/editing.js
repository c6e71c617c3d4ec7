// The words of a person for one image: a form, and what to do when somebody else changed them first.
import { call, get } from "./api.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";

const LABELS = { caption: "Caption", tags: "Tags", original_name: "Name", taken_at: "Taken" };
const CHANGED_BY_OTHERS = "Somebody else has changed this image since you opened it.";
const HINTS = { tags: "with commas between them", taken_at: "as the clock showed" };

/** The form for one upload; calls `onSave` with the upload as it is then. */
export class Editing {
  #element;
  #upload;
  #conflict = null;
  #problem = null;
  #onSave;
  #saving = null;

  constructor(element, upload, onSave) {
    this.#element = element;
    this.#upload = upload;
    this.#onSave = onSave;
    this.#draw();
  }

  /** Show what is there now, unless something was written that is not saved. */
  update(upload) {
    if (this.#conflict || this.isChanged) return;
    this.#upload = upload;
    this.#draw();
  }

  /** Whether something was written that is not saved. */
  get isChanged() {
    return Object.keys(this.#changes()).length > 0;
  }

  /**
   * Save what was written of an image that is shown no longer.
   *
   * @returns {Promise<object|null>} what could not be saved, for `restore`, and the `reason`; null when
   *   everything is saved.
   */
  async saveBehind() {
    await this.#saving;
    if (!this.isChanged) return null;
    const changes = this.#changes();
    try {
      if (!this.#form.checkValidity()) {
        delete changes.taken_at; // What is half typed is "", which would remove the date.
        throw new Error("The date is not complete.");
      }
      if (this.#conflict) throw new Error(CHANGED_BY_OTHERS);
      this.#onSave(await this.#send(changes, this.#upload));
      say("Saved.");
      return null;
    } catch (problem) {
      return { changes, version: this.#upload.version, reason: messageOf(problem) };
    }
  }

  /** Fill in what could not be saved; where somebody else has changed the image since, ask. */
  restore({ changes, version }) {
    for (const [name, value] of Object.entries(changes)) this.#form.elements[name].value = value;
    if (version === this.#upload.version || !this.isChanged) return;
    this.#conflict = { changes: this.#changes(), theirs: this.#upload, written: this.#written };
    this.#draw();
  }

  #draw() {
    const values = valuesOf(this.#upload);
    render(
      html`<form @submit=${(event) => this.#submit(event)}>
          <label
            >${LABELS.caption} <textarea name="caption" rows="2" .value=${values.caption}></textarea>
          </label>
          ${["tags", "original_name"].map(
            (name) =>
              html`<label>
                ${LABELS[name]} ${hint(name)}<input name=${name} .value=${values[name]} autocomplete="off" />
              </label>`,
          )}
          <label>
            ${LABELS.taken_at} ${hint("taken_at")}
            <input type="datetime-local" step="1" name="taken_at" .value=${values.taken_at} />
          </label>
          ${this.#problem ? html`<p class="problem" role="alert">${this.#problem}</p>` : nothing}
          <button>Save</button>
        </form>
        ${this.#conflict ? this.#conflictTemplate() : nothing}`,
      this.#element,
    );
  }

  get #form() {
    return this.#element.querySelector("form");
  }

  /** What the form has, by field. */
  get #written() {
    return Object.fromEntries(new FormData(this.#form));
  }

  /** What the form has that is not in the upload, by field. */
  #changes() {
    const values = valuesOf(this.#upload);
    return Object.fromEntries(
      Object.entries(this.#written).filter(([name, value]) => value !== values[name]),
    );
  }

  async #submit(event) {
    event.preventDefault();
    if (this.isChanged) await this.#save(this.#changes(), this.#upload, this.#written);
  }

  /** Change an upload, if it is still as it was read. Return it as it is then. */
  async #send(changes, upload) {
    const headers = { "If-Match": `"${upload.version}"` };
    const json = editOf(changes, upload);
    return (await call("PATCH", `api/uploads/${upload.id}`, { json, headers })).json();
  }

  /** Save changes of an upload; `written` is what the form had when that was asked for. */
  #save(changes, upload, written) {
    return (this.#saving = this.#saveNow(changes, upload, written));
  }

  async #saveNow(changes, upload, written) {
    try {
      this.#accept(await this.#send(changes, upload), written);
      say("Saved.");
    } catch (problem) {
      if (problem.status === 412) await this.#askWhich(changes, upload, written);
      else this.#problem = messageOf(problem);
      this.#draw();
    }
  }

  /** Show what is stored now, which may have other words, and leave what was written since. */
  #accept(upload, before) {
    const written = this.#written;
    this.#upload = upload;
    this.#conflict = this.#problem = null;
    this.#draw();
    for (const [name, stored] of Object.entries(valuesOf(upload))) {
      this.#form.elements[name].value = written[name] === before[name] ? stored : written[name];
    }
    this.#onSave(upload);
  }

  async #askWhich(changes, before, written) {
    try {
      const theirs = await get(`api/uploads/${before.id}`);
      this.#conflict = { changes, theirs, written };
      this.#problem = null;
    } catch (problem) {
      this.#problem = messageOf(problem);
    }
  }

  #conflictTemplate() {
    const { changes, theirs } = this.#conflict;
    const values = valuesOf(theirs);
    const choice = (name, whose, value) =>
      html`<label>
        <input type="radio" name=${name} value=${whose} ?checked=${whose === "mine"} />
        ${whose === "mine" ? "Yours" : "Theirs"}: <q>${value || "nothing"}</q>
      </label>`;
    return html`<form class="conflict" @submit=${(event) => this.#resolve(event)}>
      <p role="alert">${CHANGED_BY_OTHERS} Which shall it be?</p>
      ${Object.entries(changes).map(
        ([name, value]) =>
          html`<fieldset>
            <legend>${LABELS[name]}</legend>
            ${choice(name, "mine", value)} ${choice(name, "theirs", values[name])}
          </fieldset>`,
      )}
      <button>Save this</button>
    </form>`;
  }

  async #resolve(event) {
    event.preventDefault();
    const { changes, theirs, written } = this.#conflict;
    const chosen = new FormData(event.target);
    const values = valuesOf(theirs);
    const mine = Object.entries(changes).filter(
      ([name, value]) => chosen.get(name) === "mine" && value !== values[name],
    );
    if (mine.length > 0) await this.#save(Object.fromEntries(mine), theirs, written);
    else this.#accept(theirs, written);
  }
}

function hint(name) {
  return html`<small>${HINTS[name] ?? ""}</small>`;
}

function messageOf(problem) {
  const errors = Object.values(problem.document?.errors ?? {}).flat();
  return [problem.message, ...errors].join(" ");
}

/** What the form shows of an upload. */
function valuesOf(upload) {
  return {
    // Ends of lines are as a field of the browser has them.
    caption: (upload.caption ?? "").replace(/\r\n?/g, "\n"),
    tags: upload.tags.join(", "),
    original_name: upload.original_name,
    taken_at: localTime(upload)?.slice(0, 19).replace(/:00$/, "") ?? "",
  };
}

/** What the clock showed where the picture was taken, without a zone. */
function localTime(upload) {
  return upload.taken_at_local ?? upload.taken_at;
}

/** The body of a request for these changes. */
function editOf(changes, upload) {
  const edit = { ...changes };
  if ("tags" in edit) edit.tags = tagsEdit(splitTags(edit.tags, upload.tags), upload.tags);
  if ("original_name" in edit) edit.original_name ||= null;
  if ("taken_at" in edit) edit.taken_at = edit.taken_at ? edit.taken_at + offsetOf(upload) : null;
  return edit;
}

/** The tags in a text, with commas between them; those of `before` may have commas in themselves. */
function splitTags(text, before) {
  const tags = [];
  const longestFirst = before.toSorted((one, other) => other.length - one.length);
  for (let parts = partsOf(text); parts.length > 0; ) {
    const isNext = (tag) => partsOf(tag).every((part, index) => part === parts[index]);
    const known = longestFirst.findIndex(isNext);
    const tag = known < 0 ? parts[0] : longestFirst.splice(known, 1)[0];
    tags.push(tag);
    parts = parts.slice(partsOf(tag).length);
  }
  return tags.filter(Boolean);
}

const partsOf = (text) => text.split(",").map((part) => part.trim());

/** Only what was changed, so that analyzers can go on to add tags. */
function tagsEdit(tags, before) {
  const add = tags.filter((tag) => !before.includes(tag));
  const kept = new Set(tags.map((tag) => tag.toLowerCase()));
  const remove = before.filter((tag) => !kept.has(tag.toLowerCase()));
  return { ...(add.length > 0 && { add }), ...(remove.length > 0 && { remove }) };
}

/** The offset of the clock from UTC, which stays as it was: `+02:00`. */
function offsetOf(upload) {
  if (!upload.taken_at) return "Z";
  const [local, utc] = [localTime(upload), upload.taken_at].map((text) =>
    Date.parse(`${text.slice(0, 19)}Z`),
  );
  const minutes = Math.round((local - utc) / 60_000);
  const digits = (value) => String(Math.floor(value)).padStart(2, "0");
  const size = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${digits(size / 60)}:${digits(size % 60)}`;
}
