// Says how many images there are and which month is in the window, and leads to any other.
import { html, nothing, render } from "./lit-html.js";
import { nameOfMonth, setPixels } from "./tiles.js";

const COUNT = new Intl.NumberFormat();

/** How near to each other years are named beside the slider, as a share of its length. */
const NEAREST_YEARS = 1 / 25;

/** Show the months of the grid as a list to jump from, and on a slider where there is room for one. */
export function startDates(grid) {
  const slider = document.createElement("div");
  slider.className = "grid-slider";
  grid.bar.after(slider);
  keepBelowHeader(slider);
  let shown = null;
  const draw = () => {
    const name = grid.monthInWindow();
    if (shown?.listing === grid.listing && shown.name === name) return;
    shown = { listing: grid.listing, name };
    render(template(grid, name), grid.bar);
    render(sliderTemplate(grid, name), slider);
  };
  grid.addEventListener("show", draw);
  grid.addEventListener("draw", draw);
}

function keepBelowHeader(element) {
  const header = document.querySelector("body > header");
  new ResizeObserver(() => setPixels(element, { top: header.offsetHeight })).observe(header);
}

function template(grid, shownName) {
  const { listing } = grid;
  if (listing.isEmpty) return nothing;
  const count =
    listing.total === null
      ? "Many images"
      : `${COUNT.format(listing.total)} ${listing.total === 1 ? "image" : "images"}`;
  return html`<span>${count}</span> ${
      listing.isByMonth
        ? html`<label>
            Jump to
            <select @change=${(event) => grid.goToMonth(event.target.value)}>
              ${[...Map.groupBy(listing.months, ({ name }) => name.slice(0, 4))].map(
                ([year, months]) =>
                  html`<optgroup label=${year}>
                    ${months.map(
                      ({ name }) =>
                        html`<option value=${name} .selected=${name === shownName}>
                          ${nameOfMonth(name)}
                        </option>`,
                    )}
                  </optgroup>`,
              )}
            </select>
          </label>`
        : nothing
    }`;
}

/** A slider with a place for each month, the newest at the top, and the years beside it. */
function sliderTemplate(grid, shownName) {
  const { months, isByMonth } = grid.listing;
  if (!isByMonth || months.length < 2) return nothing;
  const last = months.length - 1;
  const place = months.findIndex(({ name }) => name === shownName);
  return html`<input
      type="range"
      aria-label="Month"
      aria-valuetext=${nameOfMonth(shownName)}
      max=${last}
      .value=${place}
      @input=${(event) => grid.goToMonth(months[event.target.value].name)}
    />
    ${yearsOf(months).map(
      ({ year, share }) =>
        html`<span aria-hidden="true" .style=${`--share: ${share}`}>${year}</span>`,
    )}`;
}

/** The years that there are, each with where on the slider it begins, as far as there is room. */
function yearsOf(months) {
  const years = [];
  for (const [index, { name }] of months.entries()) {
    const [year, share] = [name.slice(0, 4), index / (months.length - 1)];
    const before = years.at(-1);
    if (before?.year === year || share - before?.share < NEAREST_YEARS) continue;
    years.push({ year, share });
  }
  return years;
}
