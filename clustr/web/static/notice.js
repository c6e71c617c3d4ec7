// What is said instead of images: that there are none, or why they cannot be shown.
import { html, nothing, render } from "./lit-html.js";
import { filters, go } from "./route.js";

/**
 * Say what there is to say.
 *
 * @param {HTMLElement} element where.
 * @param {object} said
 * @param {Error} [said.problem] why something could not be read.
 * @param {object} [said.listing] what was read last.
 * @param {function} said.retry reads it again, which is also done without being asked.
 */
export function showNotice(element, { problem, listing, retry }) {
  render(problem ? problemNotice(problem, retry) : listing?.isEmpty ? emptyNotice() : nothing, element);
}

function problemNotice(problem, retry) {
  return html`<p>${problem.message} It is tried again every few seconds.</p>
    <button @click=${retry}>Try again</button>`;
}

function emptyNotice() {
  const names = [...filters().keys()];
  if (names.length === 0) return html`<p>Nothing has been uploaded yet.</p>`;
  const showAll = () => go(Object.fromEntries(names.map((name) => [name, null])));
  return html`<p>Nothing is found.</p>
    <button @click=${showAll}>Show all images</button>`;
}
