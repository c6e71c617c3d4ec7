// The elements of the grid: one for a month, one for each image that is near the window.
import { thumbnailUrl } from "./api.js";
import { current } from "./route.js";
import { selection } from "./selection.js";
import { drawThumbhash } from "./thumbhash.js";

/** The sizes of thumbnails; an answer is the same for any other that leads to one of them. */
const SIZES = [150, 300, 600, 1200];
const MONTH = new Intl.DateTimeFormat(undefined, { month: "long", year: "numeric", timeZone: "UTC" });

/** How a month is called: `2024-07` is July 2024. */
export function nameOfMonth(month) {
  return MONTH.format(new Date(`${month}-01T00:00:00Z`));
}

/** What an image is called by those who cannot see it. */
export function describe(upload) {
  return upload.caption || upload.original_name;
}

/** A month in the page, with those of its images that are near the window. */
export class MonthView {
  element = document.createElement("section");
  #list = document.createElement("ul");
  #tiles = new Map();

  constructor(month) {
    this.element.className = "month";
    if (month.name) {
      const heading = document.createElement("h2");
      heading.id = `month-${month.name}`;
      heading.textContent = nameOfMonth(month.name);
      this.element.setAttribute("aria-labelledby", heading.id);
      this.element.append(heading);
    } else {
      this.element.setAttribute("aria-label", "Images");
    }
    this.element.append(this.#list);
  }

  /**
   * Show these images and no others, in this order.
   *
   * @param {{upload, box, position}[]} placed `box` is from the top of the grid.
   * @param {function} inPage where a height of the grid is in the page.
   */
  show(month, placed, inPage) {
    const top = inPage(month.top);
    setPixels(this.element, { top });
    const wanted = new Set(placed.map(({ upload }) => upload.id));
    for (const [id, tile] of this.#tiles) {
      if (wanted.has(id)) continue;
      tile.remove();
      this.#tiles.delete(id);
    }
    // Those that stay are in their order already, and are not moved: they would lose the focus.
    for (const [index, { upload, box, position }] of placed.entries()) {
      let tile = this.#tiles.get(upload.id);
      if (!tile) {
        tile = makeTile(upload, box);
        this.#tiles.set(upload.id, tile);
      }
      if (this.#list.children[index] !== tile)
        this.#list.insertBefore(tile, this.#list.children[index] ?? null);
      tile.setAttribute("aria-posinset", position + 1);
      tile.setAttribute("aria-setsize", month.count);
      setPixels(tile, { ...box, top: inPage(box.top) - top });
    }
  }
}

/** Ask again for the images that did not come. */
export function loadBroken(element) {
  for (const image of element.querySelectorAll("img.broken")) {
    image.classList.remove("broken");
    image.src = image.src;
  }
}

/** Put an element where a box is. */
export function setPixels(element, box) {
  for (const side of ["left", "top", "width", "height"]) {
    if (side in box) element.style[side] = `${box[side]}px`;
  }
}

function makeTile(upload, box) {
  const tile = document.createElement("li");
  tile.className = "tile";
  tile.dataset.id = upload.id;
  const link = document.createElement("a");
  link.tabIndex = -1;
  const address = current();
  address.set("upload", upload.id);
  link.href = `#${address}`;
  link.append(makeImage(upload, box));
  tile.append(link, makeCheckbox(upload));
  if (upload.matched?.length) {
    const reason = document.createElement("span");
    reason.className = "matched";
    reason.textContent = `found in ${upload.matched.join(", ")}`;
    link.append(reason);
  }
  return tile;
}

function makeCheckbox(upload) {
  const checkbox = document.createElement("input");
  checkbox.type = "checkbox";
  checkbox.tabIndex = -1;
  checkbox.checked = selection.has(upload.id);
  checkbox.setAttribute("aria-label", `Choose ${describe(upload)}`);
  return checkbox;
}

/** The image over its placeholder, which is there until the image is. */
function makeImage(upload, box) {
  const hash = upload.analyses?.palette?.result?.thumbhash;
  const placeholder = hash ? drawThumbhash(hash, upload.dimensions) : null;
  const image = document.createElement("img");
  image.alt = describe(upload);
  image.decoding = "async";
  image.draggable = false; // It would be dropped as a file.
  image.addEventListener("load", () => placeholder?.remove(), { once: true });
  image.addEventListener("error", () => image.classList.add("broken"));
  const needed = Math.max(box.width, box.height) * Math.min(devicePixelRatio, 2);
  image.src = thumbnailUrl(upload, SIZES.find((size) => size >= needed) ?? SIZES.at(-1));
  const both = document.createDocumentFragment();
  both.append(...[placeholder, image].filter(Boolean));
  return both;
}
