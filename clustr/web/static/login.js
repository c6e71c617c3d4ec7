// Log-in and log-out, where the service asks for keys.
import { addAction } from "./actions.js";
import { logIn, logOut, readSession } from "./api.js";
import { html, nothing, render } from "./lit-html.js";
import { say } from "./messages.js";

const dialog = document.getElementById("login");

/** What the dialog shows, and who waits for its end. */
const state = { reason: "", error: "", isAsking: false, done: null };

/**
 * Return the session of who sees the page, after asking for a key where one is needed.
 *
 * When the session ends later, the key is asked for again, over the page as it is then.
 */
export async function startSession() {
  dialog.addEventListener("cancel", (event) => event.preventDefault());
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
    location.reload();
  } catch (problem) {
    say(problem.message);
  }
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
    const session = await logIn(dialog.querySelector("[name=key]").value.trim());
    dialog.close();
    render(nothing, dialog); // The key is not kept in the page.
    state.done(session);
  } catch (problem) {
    Object.assign(state, { error: problem.message, isAsking: false });
    draw();
  }
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
    dialog,
  );
}
