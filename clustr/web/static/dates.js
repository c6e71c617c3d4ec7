// Says how many images there are and which month is in the window, and leads to any other.
import { html, nothing, render } from "./lit-html.js";
import { nameOfMonth } from "./tiles.js";

const COUNT = new Intl.NumberFormat();

/** Show the months of the grid as a list to jump from. */
export function startDates(grid) {
  let shown = null;
  const draw = () => {
    const name = grid.monthInWindow();
    if (shown?.listing === grid.listing && shown.name === name) return;
    shown = { listing: grid.listing, name };
    render(template(grid, name), grid.bar);
  };
  grid.addEventListener("show", draw);
  grid.addEventListener("draw", draw);
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
