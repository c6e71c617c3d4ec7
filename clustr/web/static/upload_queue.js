// Sends files to the service: a few at once, each in a request of its own, and none that is there.
import { call, changeHeaders, csrfToken, get, lacksSession, tellOfEnd } from "./api.js";

const REQUESTS_AT_ONCE = 3;
// So many are hashed before the service is asked in one request which of them it has.
const HASHED_TOGETHER = 20;
// A service that is too busy says for how long; who has to wait longer than this is told so.
const LONGEST_PAUSE_SECONDS = 60;

/** Answers after which the same file can be taken when it is sent again. */
const PASSING = [0, 408, 409, 425, 429];

/**
 * @typedef {object} Item a file that somebody chose.
 * @property {File} file
 * @property {"waiting"|"ready"|"sending"|"uploaded"|"known"|"refused"|"failed"} state `waiting` to
 *   be hashed and `ready` to be sent; in the end `known` if the service had the same bytes already,
 *   and `failed` if it may be tried again.
 * @property {number} sentBytes
 * @property {string} error in words, of `refused` and `failed`, and why one has to wait.
 * @property {string|null} uploadId of the upload with these bytes.
 * @property {string} key by which the service knows a file that is sent again.
 */

/** The files that were chosen; dispatches `change`, and `taken` when the service has a new one. */
export class UploadQueue extends EventTarget {
  items = [];
  #limits = null;
  #isPreparing = false;
  #pausedUntil = 0;
  #isLoggedOut = false;

  constructor() {
    super();
    document.addEventListener("sessionended", () => (this.#isLoggedOut = true));
    document.addEventListener("sessionbegun", () => {
      this.#isLoggedOut = false;
      this.#send();
    });
  }

  get isBusy() {
    return this.items.some((item) => ["waiting", "ready", "sending"].includes(item.state));
  }

  withState(...states) {
    return this.items.filter((item) => states.includes(item.state));
  }

  /** Take files; those that the service would refuse are not sent. */
  add(files) {
    this.items.push(...[...files].map(newItem));
    this.#work();
  }

  retry() {
    for (const item of this.withState("failed")) item.state = "waiting";
    this.#work();
  }

  /** Forget what has ended, and with `all` also what was not begun. */
  clear({ all = false } = {}) {
    const kept = all ? ["sending"] : ["waiting", "ready", "sending"];
    this.items = this.withState(...kept);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #work() {
    this.#changed();
    this.#limits ??= await get("api/limits").catch(() => null);
    if (this.#isPreparing) return;
    this.#isPreparing = true;
    for (let items; (items = this.withState("waiting").slice(0, HASHED_TOGETHER)).length; ) {
      await this.#prepare(items);
      this.#send();
    }
    this.#isPreparing = false;
  }

  /** Tell which files are refused or known; the others are ready to be sent. */
  async #prepare(items) {
    const hashes = new Map();
    for (const item of items) {
      item.error = this.#limits ? whyRefused(item.file, this.#limits) : "";
      if (item.error) end(item, "refused");
      else await hash(item, hashes);
    }
    const known = await findKnown([...new Set(hashes.values())]);
    for (const item of items.filter((each) => each.state === "waiting")) {
      item.uploadId = known[hashes.get(item)] ?? null;
      if (item.uploadId) end(item, "known");
      else item.state = "ready";
    }
    this.#changed();
  }

  #send() {
    if (this.#isLoggedOut || Date.now() < this.#pausedUntil) return;
    const free = REQUESTS_AT_ONCE - this.withState("sending").length;
    for (const item of this.withState("ready").slice(0, free)) {
      item.state = "sending";
      send(item, () => this.#changed()).then((pauseSeconds) => {
        if (pauseSeconds) this.#pause(pauseSeconds);
        if (item.state === "uploaded") this.dispatchEvent(new Event("taken"));
        this.#changed();
        this.#send();
      });
    }
  }

  /** Send nothing for some seconds. */
  #pause(seconds) {
    this.#pausedUntil = Date.now() + seconds * 1000;
    setTimeout(() => this.#send(), seconds * 1000 + 1);
  }
}

function newItem(file) {
  // `crypto.randomUUID` is not there on pages without TLS.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { file, key, state: "waiting", sentBytes: 0, error: "", uploadId: null };
}

function end(item, state, error = item.error) {
  Object.assign(item, { state, error, sentBytes: item.file.size });
}

/** Say why a file would be refused; empty when it has to be sent to be known. */
function whyRefused(file, { formats, max_file_bytes: maxBytes }) {
  if (file.size > maxBytes) {
    return `The file has ${megabytes(file.size)}; at most ${megabytes(maxBytes)} are accepted.`;
  }
  const extension = file.name.toLowerCase().split(".").at(-1);
  const isAccepted = formats.some(
    (format) => format.content_type === file.type || format.extensions.includes(extension),
  );
  // A file of which the browser knows nothing may be an image all the same.
  if (isAccepted || !file.type) return "";
  const accepted = formats.map((format) => format.extensions[0]).join(", ");
  return `This is none of the image formats that are accepted: ${accepted}.`;
}

const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

/** Add the SHA-256 of a file to `hashes`, where the page may compute it: with TLS or on this host. */
async function hash(item, hashes) {
  if (!crypto.subtle) return;
  try {
    const digest = await crypto.subtle.digest("SHA-256", await item.file.arrayBuffer());
    const bytes = [...new Uint8Array(digest)];
    hashes.set(item, bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(""));
  } catch {
    end(item, "failed", "The file cannot be read; it may have been moved, or be a folder.");
  }
}

/** The ids of uploads with these hashes; what the service does not say is sent and told apart then. */
async function findKnown(hashes) {
  if (hashes.length === 0) return {};
  const asked = call("POST", "api/uploads/exists", { json: { sha256: hashes } });
  return asked.then(async (response) => (await response.json()).data).catch(() => ({}));
}

/** Send a file; its item says what came of it. Resolves to seconds to wait, when it was too early. */
function send(item, changed) {
  const request = new XMLHttpRequest();
  request.open("POST", "api/upload?duplicates=reuse");
  const session = csrfToken;
  const headers = { "Idempotency-Key": item.key, ...changeHeaders() };
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.addEventListener("progress", (event) => {
    item.sentBytes = Math.min(event.loaded, item.file.size);
    changed();
  });
  const body = new FormData();
  body.append("files", item.file);
  return new Promise((resolve) => {
    request.addEventListener("loadend", () => resolve(take(item, request, session)));
    request.send(body);
  });
}

function take(item, request, session) {
  const answer = parsed(request.responseText);
  if (request.status === 201) {
    const [upload] = answer.data;
    item.uploadId = upload.id;
    end(item, upload.reused || upload.duplicate_of ? "known" : "uploaded", "");
    return 0;
  }
  if (lacksSession({ status: request.status, document: answer })) {
    // It is sent again with the next session, which may have begun already.
    if (csrfToken === session) tellOfEnd();
    Object.assign(item, { state: "ready", sentBytes: 0, error: "" });
    return 0;
  }
  const pauseSeconds = Number(request.getResponseHeader("Retry-After"));
  if (pauseSeconds > 0 && pauseSeconds <= LONGEST_PAUSE_SECONDS) {
    const error = errorText(request.status, answer);
    Object.assign(item, { state: "ready", sentBytes: 0, error });
    return pauseSeconds;
  }
  const isPassing = request.status >= 500 || PASSING.includes(request.status);
  end(item, isPassing ? "failed" : "refused", errorText(request.status, answer));
  return 0;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {}; // A proxy answered with a page of its own, or nobody did.
  }
}

function errorText(status, { detail, errors }) {
  if (status === 0) return "The service cannot be reached.";
  return (Array.isArray(errors) && errors[0]?.detail) || detail || `The service answered ${status}.`;
}
