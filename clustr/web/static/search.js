// The form of the search: words with completions while one types, filters, and how many are found.
import { get } from "./api.js";
import { drawChips, drawControls, drawErrors, readFilters } from "./filters.js";
import { html, nothing, render } from "./lit-html.js";
import * as route from "./route.js";

const PAUSE_MILLISECONDS = 200;
const MOST_SUGGESTIONS = 8;

const form = document.getElementById("search");

/**
 * What is shown: `active` is the index of the suggestion that the keys have come to, or -1, and
 * `found` says how many images the filters `counted` find.
 */
const state = {
  typed: route.current().get("q") ?? "",
  suggestions: [],
  active: -1,
  filters: [],
  counted: "",
  isOpen: false,
  found: "",
  errors: {},
};

/** Show the form, and search whenever somebody types or the address of the page changes. */
export function startSearch() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search.now();
    close();
  });
  route.onChange(routeChanged);
  document.addEventListener("uploadschange", () => readFound());
  document.addEventListener("recovered", () => readFound());
  routeChanged();
}

function routeChanged() {
  const searched = route.current().get("q") ?? "";
  // A space behind the last word is typed, and no part of the address.
  if (searched !== state.typed.trim()) {
    search.stop();
    state.typed = searched;
    close();
  }
  draw();
  const filters = route.filters().toString();
  if (filters !== state.counted) readFound();
  state.counted = filters;
  if ([...route.filters().keys()].some((name) => name !== "q")) showFilters();
}

async function showFilters() {
  try {
    state.filters = await readFilters();
  } catch (problem) {
    state.found = problem.message;
  }
  draw();
}

/**
 * Let `run` be called with a signal that gives up the call before; what that brings is dropped.
 * `stop` gives up a call without another one.
 */
function latest(run) {
  let controller = new AbortController();
  const call = async () => {
    controller.abort();
    controller = new AbortController();
    const { signal } = controller;
    try {
      await run(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    if (!signal.aborted) draw();
  };
  call.stop = () => controller.abort();
  return call;
}

const readFound = latest(async (signal) => {
  const parameters = route.filters();
  if (parameters.size === 0) {
    Object.assign(state, { found: "", errors: {} });
    return;
  }
  parameters.set("fields", "id");
  parameters.set("limit", 1);
  const answer = await get("api/uploads", parameters, signal)
    .then((page) => ({ found: foundText(page), errors: {} }))
    .catch(({ message, document }) =>
      document?.errors ? { found: "", errors: document.errors } : { found: message, errors: {} },
    );
  if (!signal.aborted) Object.assign(state, answer);
});

function foundText({ total, total_is_estimate: isEstimate }) {
  if (total === null) return "More than 1,000 images found";
  if (total === 0) return "No image found";
  const count = `${isEstimate ? "About " : ""}${total.toLocaleString("en")}`;
  return `${count} ${total === 1 ? "image" : "images"} found`;
}

const suggest = latest(async (signal) => {
  const asked = { q: state.typed, limit: MOST_SUGGESTIONS };
  // Without completions one can search all the same, and the search says what is wrong.
  const { data } = state.typed.trim()
    ? await get("api/suggest", asked, signal).catch(() => ({ data: [] }))
    : { data: [] };
  if (signal.aborted) return;
  const active = state.suggestions[state.active]?.search;
  state.suggestions = data;
  state.active = data.findIndex((suggestion) => suggestion.search === active);
});

/** Searches for what was typed: at once, or when somebody has paused. */
const search = {
  timer: 0,
  soon() {
    this.stop();
    this.timer = setTimeout(() => {
      this.now();
      if (document.activeElement === form.elements.q) suggest();
    }, PAUSE_MILLISECONDS);
  },
  stop() {
    clearTimeout(this.timer);
  },
  now() {
    this.stop();
    // "Back" leads past the words that were only half typed.
    route.go({ q: state.typed.trim() || null }, { replace: route.current().has("q") });
  },
};

function choose(suggestion) {
  const isField = suggestion.search.endsWith(":");
  state.typed = isField ? suggestion.search : `${suggestion.search} `;
  search.now();
  close();
  if (isField) suggest();
}

function close() {
  suggest.stop();
  state.suggestions = [];
  state.active = -1;
  draw();
}

function keyPressed(event) {
  if (event.isComposing) return; // The keys choose among characters.
  const count = state.suggestions.length;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && count) {
    // One place is the field itself, before the first suggestion and behind the last one.
    state.active = ((state.active + 1 + step + count + 1) % (count + 1)) - 1;
  } else if (event.key === "Enter" && state.active >= 0) {
    choose(state.suggestions[state.active]);
  } else if (event.key === "Escape" && count) {
    close();
  } else {
    return;
  }
  event.preventDefault();
  draw();
}

function typed(event) {
  state.typed = event.target.value;
  // Completions of other words would take away what was typed since.
  const begun = state.typed.toLowerCase();
  state.suggestions = state.suggestions.filter(({ search }) => search.toLowerCase().startsWith(begun));
  state.active = -1;
  draw();
  search.soon();
}

function toggleFilters() {
  state.isOpen = !state.isOpen;
  if (state.isOpen) showFilters();
  else draw();
}

function draw() {
  render(
    html`
      ${drawField()}
      <button
        type="button"
        aria-expanded=${state.isOpen}
        aria-controls="filters"
        @click=${toggleFilters}
      >
        Filters
      </button>
      <div id="filters">${state.isOpen ? drawControls(state.filters) : nothing}</div>
      ${drawChips(state.filters, state.errors)}
      <p class="found" role="status">${state.found}${drawErrors(state.errors, "q")}</p>
    `,
    form,
  );
}

function drawField() {
  const isExpanded = state.suggestions.length > 0;
  return html`<div class="words">
    <input
      type="search"
      name="q"
      role="combobox"
      aria-label="Search images"
      aria-autocomplete="list"
      aria-controls="suggestions"
      aria-expanded=${isExpanded}
      aria-activedescendant=${state.active >= 0 ? `suggestion-${state.active}` : nothing}
      autocomplete="off"
      placeholder="Search"
      .value=${state.typed}
      @input=${typed}
      @keydown=${keyPressed}
      @blur=${close}
    />
    <ul id="suggestions" role="listbox" aria-label="Completions" ?hidden=${!isExpanded}>
      ${state.suggestions.map(drawSuggestion)}
    </ul>
  </div>`;
}

function drawSuggestion(suggestion, index) {
  // The field keeps the focus while a mouse chooses, else the list would be gone before.
  return html`<li
    id=${`suggestion-${index}`}
    role="option"
    aria-selected=${index === state.active}
    @mousedown=${(event) => event.preventDefault()}
    @click=${() => choose(suggestion)}
  >
    <span>${suggestion.value}</span>
    ${suggestion.count === null ? nothing : html`<span class="count">${suggestion.count}</span>`}
  </li>`;
}
