// Moving between the images of the grid with the keyboard, and choosing some of them.
import { blockOfPlace, boxOf } from "./arrangement.js";
import { say } from "./messages.js";
import { filters, go } from "./route.js";
import { MOST_IDS, selection, TOO_MANY } from "./selection.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const ROWS = { ArrowUp: -1, ArrowDown: 1 };

/** One image is reached by the tabulator key, the others from it by the arrow keys. */
export function startKeys(grid) {
  const keys = new Keys(grid);
  grid.months.addEventListener("keydown", (event) => keys.press(event));
  grid.months.addEventListener("click", (event) => keys.click(event));
  grid.months.addEventListener("focusin", (event) => keys.enter(idOf(event.target)));
  grid.addEventListener("draw", () => keys.mark());
  selection.addEventListener("change", () => keys.showChosen());
}

function idOf(element) {
  return element.closest(".tile")?.dataset.id;
}

class Keys {
  #grid;
  #current = null;
  /** The place of the image from which a range is chosen. */
  #anchor = null;

  constructor(grid) {
    this.#grid = grid;
  }

  enter(id) {
    if (!id) return;
    this.#current = id;
    this.mark();
  }

  /** Make the current image the one that is reached by the tabulator key. */
  mark() {
    const tiles = [...this.#grid.months.querySelectorAll(".tile")];
    const current = tiles.find((tile) => tile.dataset.id === this.#current) ?? tiles.find(isInWindow);
    for (const tile of tiles) {
      const tabIndex = tile === current ? 0 : -1;
      for (const each of tile.querySelectorAll("a, input")) each.tabIndex = tabIndex;
    }
  }

  showChosen() {
    for (const tile of this.#grid.months.querySelectorAll(".tile")) {
      tile.querySelector("input").checked = selection.has(tile.dataset.id);
    }
  }

  async press(event) {
    const id = idOf(event.target);
    if (!id || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.matches("a")) {
      event.preventDefault();
      await this.#choose(id, !selection.has(id), event.shiftKey);
    } else if (event.key in STEPS || event.key in ROWS) {
      event.preventDefault();
      const next =
        event.key in STEPS
          ? await this.#grid.neighborOf(id, STEPS[event.key])
          : await this.#verticalNeighborOf(id, ROWS[event.key]);
      if (!next) return;
      this.#focus(next.id);
      if (event.shiftKey) {
        this.#beginRange(this.#placeOf(id));
        await this.#choose(next.id, true, true);
      }
    }
  }

  click(event) {
    const id = idOf(event.target);
    if (!id) return;
    if (event.target.matches("input")) {
      this.#choose(id, event.target.checked, event.shiftKey);
    } else if (event.target.closest("a") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      go({ upload: id });
    }
  }

  #focus(id) {
    this.#current = id;
    this.#grid.reveal(id)?.querySelector("a").focus({ preventScroll: true });
  }

  /** The image of the row above or below that is nearest. */
  async #verticalNeighborOf(id, step) {
    const box = boxOf(this.#grid.listing, id);
    let [nearest, smallest, row] = [null, Infinity, null];
    for (let next = id; ;) {
      const upload = await this.#grid.neighborOf(next, step);
      const other = upload && boxOf(this.#grid.listing, upload.id);
      if (!other || (row !== null && other.top !== row)) return nearest;
      next = upload.id;
      if (other.top === box.top) continue;
      row = other.top;
      const distance = Math.abs(other.left + other.width / 2 - box.left - box.width / 2);
      if (distance < smallest) [nearest, smallest] = [upload, distance];
    }
  }

  async #choose(id, isChosen, isRange) {
    const place = this.#placeOf(id);
    if (isRange) this.#beginRange(place);
    else this.#anchor = place;
    try {
      selection.set(isRange ? await this.#idsBetween(place) : [id], isChosen);
    } catch (problem) {
      say(problem.message);
      this.showChosen();
    }
  }

  /** Begin a range here, unless one was begun among what is shown. */
  #beginRange(place) {
    if (this.#anchor?.filters !== place.filters) this.#anchor = place;
  }

  #placeOf(id) {
    const { listing } = this.#grid;
    const { block, index } = listing.placeOf(id);
    return { id, month: block.month.name, index: block.start + index, filters: `${listing.filters}` };
  }

  /** The images from here to where the range begins, which may have been dropped since. */
  async #idsBetween(place) {
    const { listing } = this.#grid;
    const ends = [place, this.#anchor];
    const [first, last] = ends.map((end) => blockOfPlace(listing, end).index).sort((a, b) => a - b);
    const blocks = listing.blocks.slice(first, last + 1);
    const between = blocks.slice(1, -1).reduce((total, { count }) => total + count, 0);
    if (between > MOST_IDS) throw new Error(TOO_MANY);
    const choice = selection.begun;
    const ids = [];
    for (const block of blocks) {
      await listing.load([block]);
      if (selection.begun !== choice || `${filters()}` !== place.filters) {
        throw new Error("Something else was chosen meanwhile, so this range was not.");
      }
      ids.push(...block.uploads.map(({ id }) => id));
      // The grid has no place for it, and would take it for one that is shown.
      if (!block.layout) listing.drop(block);
    }
    const [start, end] = ends.map(({ id }) => ids.indexOf(id)).sort((a, b) => a - b);
    if (start < 0) throw new Error("The image that the range begins with is not here; choose it again.");
    return ids.slice(start, end + 1);
  }
}

function isInWindow(tile) {
  const { top, bottom } = tile.getBoundingClientRect();
  return bottom > 0 && top >= 0 && top < innerHeight;
}
