// The filters of the listing, as its OpenAPI document has them: a plugin's are there by themselves.
import { get } from "./api.js";
import { html, nothing } from "./lit-html.js";
import * as route from "./route.js";

/** Parameters that say what of the listing is shown and how, or that have another place here. */
const NO_FILTERS = ["page", "limit", "cursor", "sort", "prefix", "fields", "ids", "q"];

/** These take a day as well, as the clock showed it where the picture was taken. */
const DAYS = ["taken_after", "taken_before"];

/** Parameters of the listing that change nothing about which uploads there are. */
const NOT_FOR_JOBS = ["sort", "prefix"];
const TEXT = { kind: "text" };

const OPERATORS = { ne: "not", gt: "above", gte: "at least", lt: "below", lte: "at most", in: "one of" };

/**
 * @typedef {object} Filter
 * @property {string} name of the parameter.
 * @property {string} title for people.
 * @property {string} description
 * @property {string} group the analyzer whose results it is about, or "Images".
 * @property {"choice"|"boolean"|"number"|"date"|"text"} kind of its values.
 * @property {string[]} values that there are, of a choice.
 * @property {boolean} isRepeatable whether it may be given several times.
 * @property {string|null} kindInList of each of several values with commas between them.
 */

let reading = null;

/** Return the filters of this installation, a list of `Filter`; they are read once. */
export function readFilters() {
  reading ??= get("openapi.json")
    .then(filtersOf)
    .catch((problem) => {
      reading = null;
      throw problem;
    });
  return reading;
}

function filtersOf(document) {
  const parameters = document.paths["/api/uploads"].get.parameters.filter(
    (each) => each.in === "query" && !NO_FILTERS.includes(each.name) && !each["x-internal"],
  );
  // A filter with a short name has a long one besides, which people need not see.
  const short = new Set(parameters.filter((each) => !isLong(each)).map(aboutOf));
  return parameters
    .filter((each) => !isLong(each) || !short.has(aboutOf(each)))
    .map((each) => filterOf(each, document));
}

const isLong = (parameter) => parameter.name.startsWith("analyses.");
const aboutOf = (parameter) => JSON.stringify(parameter["x-clustr-filter"]);

function filterOf(parameter, document) {
  const schema = resolved(parameter.schema, document);
  const isList = schema.type === "array";
  const isRepeatable = isList && parameter.explode !== false;
  const items = isList ? resolved(schema.items, document) : null;
  const value = isRepeatable ? items : schema;
  return {
    name: parameter.name,
    title: schema.title || titleOf(parameter),
    description: (parameter.description ?? "").replaceAll("`", ""),
    group: parameter["x-clustr-filter"]?.analyzer ?? "Images",
    kind: kindOf(value),
    values: value.enum ?? [],
    isRepeatable,
    kindInList: isList && !isRepeatable ? kindOf(items) : null,
  };
}

/** A schema without references, the members of `allOf` joined. */
function resolved(schema, document) {
  const { $ref, allOf = [], ...own } = schema;
  const named = $ref ? [document.components.schemas[$ref.split("/").at(-1)]] : [];
  return Object.assign({}, ...[...named, ...allOf].map((each) => resolved(each, document)), own);
}

function kindOf(schema) {
  if (schema.enum) return "choice";
  if (schema.type === "boolean") return "boolean";
  if (schema.type === "integer" || schema.type === "number") return "number";
  return schema.format === "date-time" ? "date" : "text";
}

function titleOf(parameter) {
  const about = parameter["x-clustr-filter"];
  const words = about
    ? `${about.field.replaceAll(".", " ")} ${OPERATORS[about.operator] ?? ""}`
    : parameter.name;
  const text = words.replaceAll("_", " ").trim();
  return text[0].toUpperCase() + text.slice(1);
}

/**
 * Return filters in the form that jobs have: JSON values, those of plugins below `analyses`.
 *
 * @param {URLSearchParams} parameters of the listing.
 * @param {Filter[]} filters
 * @throws for one that jobs do not have: without it, a job would be about more uploads.
 */
export function filterOfJob(parameters, filters) {
  const body = {};
  for (const name of new Set(parameters.keys())) {
    if (NOT_FOR_JOBS.includes(name)) continue;
    const values = parameters.getAll(name);
    const filter = name === "q" ? TEXT : filters.find((each) => each.name === name);
    if (!filter) throw new Error(`“${name}” is for no more than 10,000 images at once.`);
    const value = filter.isRepeatable
      ? values.map((each) => jsonValue(each, filter.kind))
      : jsonValueOf(values[0], filter);
    if (name.startsWith("analyses.")) {
      (body.analyses ??= {})[name.slice("analyses.".length)] = value;
    } else {
      body[name] = value;
    }
  }
  return body;
}

function jsonValueOf(value, { kind, kindInList }) {
  if (!kindInList) return jsonValue(value, kind);
  return value.split(",").map((each) => jsonValue(each, kindInList));
}

function jsonValue(value, kind) {
  if (kind === "number") return Number(value);
  return kind === "boolean" ? value === "true" : value;
}

/** Change a filter: one that is repeatable gets a further value, any other another one. */
function apply(filter, value) {
  const before = filter.isRepeatable ? route.current().getAll(filter.name) : [];
  const values = value === "" ? before : [...new Set([...before, value])];
  route.go({ [filter.name]: values });
}

/**
 * Draw what removes each filter that is in use, with what is wrong with it.
 *
 * @param {Filter[]} filters those that are known so far.
 * @param {object} errors of the listing: a list of messages for each parameter.
 */
export function drawChips(filters, errors) {
  const used = [...route.filters()].filter(([name]) => !["q", "sort", "prefix"].includes(name));
  if (used.length === 0) return nothing;
  return html`<ul class="chips" aria-label="Filters in use">
    ${used.map(([name, value]) => {
      const filter = filters.find((each) => each.name === name) ?? { name, title: name };
      const label = `${filter.title}: ${shownValue(filter, value)}`;
      return html`<li>
        <button
          type="button"
          class="chip"
          aria-label=${`Remove the filter ${label}`}
          @click=${() => removeValue(name, value)}
        >
          ${label} <span aria-hidden="true">×</span>
        </button>
        ${drawErrors(errors, name)}
      </li>`;
    })}
  </ul>`;
}

function removeValue(name, value) {
  route.go({ [name]: route.current().getAll(name).filter((each) => each !== value) });
}

/** Draw in words what the listing says of a parameter, or of one of its values. */
export function drawErrors(errors, name) {
  const messages = Object.entries(errors)
    .filter(([field]) => field === name || field.startsWith(`${name}.`))
    .flatMap(([, texts]) => texts);
  return messages.length ? html`<span class="error" role="alert">${messages.join(" ")}</span>` : nothing;
}

/** Draw a control for each filter, in a group for each analyzer. */
export function drawControls(filters) {
  const groups = Map.groupBy(filters, (filter) => filter.group);
  return [...groups].map(
    ([group, members]) => html`<fieldset>
      <legend>${group}</legend>
      ${members.map(
        (filter) => html`<label title=${filter.description}>
          <span>${filter.title}</span> ${drawControl(filter)}
        </label>`,
      )}
    </fieldset>`,
  );
}

function drawControl(filter) {
  const value = filter.isRepeatable ? "" : (route.current().get(filter.name) ?? "");
  const change = (event) => {
    if (event.target.validity.badInput || isHalfTyped(filter, event.target)) return;
    apply(filter, valueOf(filter, event.target));
    if (filter.isRepeatable) event.target.value = "";
  };
  if (filter.kind === "choice" || filter.kind === "boolean") {
    const values = filter.kind === "boolean" ? ["true", "false"] : filter.values;
    return html`<select name=${filter.name} @change=${change}>
      <option value="" .selected=${value === ""}>${filter.isRepeatable ? "add…" : "any"}</option>
      ${values.map(
        (each) => html`<option value=${each} .selected=${each === value}>
          ${shownValue(filter, each)}
        </option>`,
      )}
    </select>`;
  }
  const shown = filter.kind === "date" && value ? dayOf(value) : value;
  return html`<input
    name=${filter.name}
    type=${filter.kind}
    step="any"
    .value=${shown}
    @change=${change}
  />`;
}

/** Browsers tell of a year with each of its digits: of 2024 they say 0002 first. */
function isHalfTyped(filter, { value }) {
  return filter.kind === "date" && value !== "" && value < "1000";
}

/** What of a control is sent: a day is its first moment here, where somebody chooses it. */
function valueOf(filter, control) {
  const isTime = filter.kind === "date" && !DAYS.includes(filter.name);
  if (!isTime || !control.value) return control.value.trim();
  return new Date(`${control.value}T00:00`).toISOString();
}

function dayOf(time) {
  if (/^\d{4}-\d\d-\d\d$/.test(time)) return time;
  const date = new Date(time);
  if (Number.isNaN(date.valueOf())) return "";
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function shownValue(filter, value) {
  if (filter.kind === "boolean") return value === "true" ? "yes" : "no";
  return filter.kind === "date" ? dayOf(value) || value : value;
}
