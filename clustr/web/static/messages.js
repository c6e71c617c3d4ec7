// Short messages at the edge of the page, which screen readers read out.
import { html, render } from "./lit-html.js";

const SHOWN_SECONDS = 8;
const shown = [];

/**
 * Show a message for some seconds.
 *
 * @param {string} text what to say.
 * @param {{label: string, run: function}} [action] a button beside it, such as "Undo".
 */
export function say(text, action) {
  const message = { text, action };
  shown.push(message);
  draw();
  setTimeout(() => remove(message), SHOWN_SECONDS * 1000);
}

function remove(message) {
  const index = shown.indexOf(message);
  if (index >= 0) shown.splice(index, 1);
  draw();
}

function draw() {
  const element = document.getElementById("messages");
  // Outside of a modal dialog nothing can be pressed while it is open.
  const place = [...document.querySelectorAll("dialog:modal")].at(-1) ?? document.body;
  if (element.parentElement !== place) place.append(element);
  render(
    shown.map(
      (message) => html`<p>
        ${message.text}
        ${message.action && html`<button @click=${() => run(message)}>${message.action.label}</button>`}
      </p>`,
    ),
    element,
  );
}

document.addEventListener("close", draw, { capture: true });

function run(message) {
  remove(message);
  message.action.run();
}
