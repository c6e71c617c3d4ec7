// Log-in and log-out, where the service asks for keys.
import { addAction } from "./actions.js";
import { logIn, logOut, readSession } from "./api.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";

const dialog = document.getElementById("login");
/** The log-in has an element of its own: messages are put into the dialog beside it. */
const place = dialog.appendChild(document.createElement("div"));
/** The other tabs with this page, which have the same cookie and so the same session. */
const tabs = new BroadcastChannel("clustr-session");

/** What the dialog shows, and who waits for its end. */
const state = { reason: "", error: "", isAsking: false, done: null };

/**
 * Return the session of who sees the page, after asking for a key where one is needed.
 *
 * When the session ends later, the key is asked for again, over the page as it is then.
 */
export async function startSession() {
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  tabs.addEventListener("message", takeOver);
  const session = await readSession().catch((problem) => {
    if (problem.status === 401) return askForKey("This service asks for a key.");
    throw problem;
  });
  if (session.csrf_token) addAction(session.name ? `Log out ${session.name}` : "Log out", leave);
  document.addEventListener("sessionended", askAgain);
  return session;
}

async function askAgain() {
  if (dialog.open) return;
  await askForKey("Your session has ended. What you typed is still there.");
  document.dispatchEvent(new Event("uploadschange"));
}

async function leave() {
  try {
    await logOut();
  } catch (problem) {
    if (problem.status !== 401) return say(problem.message);
    // The session had ended before.
  }
  location.reload();
}

function askForKey(reason) {
  Object.assign(state, { reason, error: "", isAsking: false });
  draw();
  dialog.showModal();
  return new Promise((resolve) => {
    state.done = resolve;
  });
}

async function submit(event) {
  event.preventDefault();
  Object.assign(state, { error: "", isAsking: true });
  draw();
  try {
    goOn(await logIn(dialog.querySelector("[name=key]").value.trim()));
    tabs.postMessage("begun");
  } catch (problem) {
    Object.assign(state, { error: problem.message, isAsking: false });
    draw();
  }
}

function goOn(session) {
  dialog.close();
  render(nothing, place); // The key is not kept in the page.
  document.dispatchEvent(new Event("sessionbegun"));
  state.done(session);
}

/** Take over the session that another tab has begun; with the one before nothing can be changed. */
async function takeOver() {
  const session = await readSession().catch((problem) => say(problem.message));
  if (session && dialog.open) goOn(session);
}

function draw() {
  render(
    html`<form @submit=${submit}>
      <h2>Log in</h2>
      <p>${state.reason}</p>
      <label>Key <input name="key" type="password" required autocomplete="current-password" /></label>
      ${state.error ? html`<p class="error" role="alert">${state.error}</p>` : nothing}
      <button ?disabled=${state.isAsking}>Log in</button>
    </form>`,
    place,
  );
}
