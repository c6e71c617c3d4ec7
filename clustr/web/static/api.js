// Calls the HTTP API, at addresses relative to the page, so that it works below a prefix, too.

/** An answer that is an error: a problem document (RFC 9457), or none where the service is away. */
export class Problem extends Error {
  /**
   * @param {number} status of HTTP; 0 when no answer came.
   * @param {object} document the problem document.
   */
  constructor(status, document) {
    super(document.detail || document.title || `The service answered ${status}.`);
    this.status = status;
    this.document = document;
  }
}

const SESSION = "api/session";

/** The token of the session that the page has; null without one. */
export let csrfToken = null;

/** Return the scopes of who sees this page; throws a Problem with status 401 for nobody. */
export async function readSession() {
  return keepToken(await get(SESSION));
}

/** Exchange a key for a session, which the browser keeps in a cookie that no script can read. */
export async function logIn(key) {
  return keepToken(await (await call("POST", SESSION, { json: { key } })).json());
}

export async function logOut() {
  await call("DELETE", SESSION);
  csrfToken = null;
}

function keepToken(session) {
  csrfToken = session.csrf_token ?? null;
  return session;
}

/**
 * Read a JSON document. The browser sends the ETag that it has, so that what has not changed costs
 * 304 and no body.
 *
 * @param {string} path such as `api/uploads`.
 * @param {URLSearchParams|object} [parameters] of the query.
 * @param {AbortSignal} [signal] gives the call up.
 */
export async function get(path, parameters, signal) {
  const query = new URLSearchParams(parameters).toString();
  const response = await call("GET", query ? `${path}?${query}` : path, { signal });
  return response.json();
}

/**
 * Call the API.
 *
 * @param {object} [options] `json` is sent as a JSON document, else `body` as it is.
 * @returns {Promise<Response>} a successful one.
 * @throws {Problem} for any other, and when none came.
 */
export async function call(method, path, options = {}) {
  const session = csrfToken;
  const response = await send(method, path, options);
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (lacksSession(problem) && path !== SESSION) {
    // Another session may have begun while this waited for its answer.
    if (csrfToken !== session) return call(method, path, options);
    tellOfEnd();
  }
  throw problem;
}

/** Whether a request was refused because its session has ended, or is no longer that of the cookie. */
export function lacksSession({ status, document }) {
  return status === 401 || (status === 403 && document.type?.endsWith("csrf_token_required"));
}

async function send(method, path, { json, body, headers = {}, signal }) {
  const sent = new Headers(headers);
  if (json !== undefined) {
    sent.set("Content-Type", "application/json");
    body = JSON.stringify(json);
  }
  if (method !== "GET") {
    for (const [name, value] of Object.entries(changeHeaders())) sent.set(name, value);
  }
  return fetch(path, { method, body, headers: sent, signal, cache: "no-cache" }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service cannot be reached." });
  });
}

/** Let the page ask for a key again: the session of a request has ended. */
export function tellOfEnd() {
  document.dispatchEvent(new Event("sessionended"));
}

/** The headers of a request that changes something, for those who send it without `call`. */
export function changeHeaders() {
  return csrfToken ? { "X-CSRF-Token": csrfToken } : {};
}

async function problemOf(response) {
  const isProblem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
  return new Problem(response.status, isProblem ? await response.json() : {});
}

/** The address of a thumbnail: `upload` is one of a listing, `size` one of those of the API. */
export function thumbnailUrl(upload, size) {
  return `api/uploads/${upload.id}/thumbnail?size=${size}`;
}
