// What the page shows, kept in the fragment of its address: `#q=dog&tags=beach&upload=<id>`.
// Every parameter that is not the page's own is one of the listing's, so that a filter of a plugin
// works without a word here.

/** Parameters of the page: the image that is open, and the panel of the service's state. */
const OWN = ["upload", "panel"];

const listeners = new Set();

export function current() {
  return new URLSearchParams(location.hash.slice(1));
}

/** The parameters of the listing, in an order that is always the same. */
export function filters() {
  const parameters = current();
  for (const name of OWN) parameters.delete(name);
  parameters.sort();
  return parameters;
}

/**
 * Show something else.
 *
 * @param {object} changes values by name, lists for several; null takes a parameter away.
 * @param {boolean} [options.replace] whether "back" leads past what is shown now.
 */
export function go(changes, { replace = false } = {}) {
  const parameters = current();
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const each of [value ?? []].flat()) parameters.append(name, each);
  }
  const address = `#${parameters}`;
  if (address === (location.hash || "#")) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  for (const listener of listeners) listener();
}

/** Call `listener` whenever the page is to show something else. */
export function onChange(listener) {
  listeners.add(listener);
}

addEventListener("popstate", () => {
  for (const listener of listeners) listener();
});
