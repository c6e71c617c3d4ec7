// The images as a grid. Only what is near the window is loaded and in the page, however many there
// are: all else is a height.
import {
  arrange,
  blockOfPlace,
  blocksBetween,
  boxOf,
  forgetArrangement,
  heightOfPlace,
  placeAt,
  placedBetween,
} from "./arrangement.js";
import { startDates } from "./dates.js";
import { startKeys } from "./keys.js";
import { Listing } from "./listing.js";
import { showNotice } from "./notice.js";
import { startRefreshing } from "./refreshing.js";
import { filters, onChange } from "./route.js";
import { Scroll } from "./scroll.js";
import { loadBroken, MonthView } from "./tiles.js";

/** How far beside the window images are in the page, and how far they are kept, in windows. */
const [DRAWN, KEPT] = [1, 6];
/** What is passed by faster than this, in windows for each frame, is not loaded. */
const FAST = 0.5;
const SETTLED_MILLISECONDS = 80;

/** Start the grid, and return it. */
export function startGrid() {
  const grid = new Grid(document.getElementById("grid"));
  startDates(grid);
  startKeys(grid);
  startRefreshing(grid);
  for (const name of ["recovered", "sessionbegun"]) {
    document.addEventListener(name, () => loadBroken(grid.months));
  }
  let shown = `${filters()}`;
  onChange(() => {
    if (`${filters()}` === shown) return;
    shown = `${filters()}`;
    grid.open();
  });
  grid.open();
  return grid;
}

/**
 * Tells "show" when it shows another listing, and "draw" when other images are in the page; the page is
 * told "recovered" when the service answers again.
 */
class Grid extends EventTarget {
  listing = null;
  #scroll;
  #views = new Map();
  #width = 0;
  #reading = new AbortController();
  #loading = null;
  #frame = null;
  #settling = null;
  #drawnAt = 0;
  #hasProblem = false;

  constructor(element) {
    super();
    this.bar = document.createElement("div");
    this.bar.className = "grid-bar";
    this.notice = document.createElement("div");
    this.notice.className = "grid-notice";
    this.notice.setAttribute("role", "status");
    this.months = document.createElement("div");
    this.months.className = "grid-months";
    element.append(this.bar, this.notice, this.months);
    this.#scroll = new Scroll(this.months);
    addEventListener("scroll", () => this.#drawSoon(), { passive: true });
    new ResizeObserver(() => this.#resize()).observe(this.months);
  }

  /** Show what the filters of the page find, from its beginning. */
  async open() {
    await this.#read(async (signal) => {
      const listing = await Listing.read(filters(), signal);
      for (const view of this.#views.values()) view.element.remove();
      this.#views.clear();
      this.listing = listing;
      scrollTo(0, 0);
      this.#place(null);
      this.dispatchEvent(new Event("show"));
      await this.#loadNear();
    });
  }

  /**
   * Ask whether anything has changed, and show what there is now, where the window is.
   *
   * @param {boolean} [isForced] whether uploads have changed, although there are as many as before.
   */
  async refresh({ isForced = false } = {}) {
    if (!this.listing || `${this.listing.filters}` !== `${filters()}`) return this.open();
    return this.#read(async (signal) => {
      const next = await Listing.read(filters(), signal);
      if (isForced || next.differsFrom(this.listing)) {
        await next.load(this.#sameBlocks(next), signal);
        const place = placeAt(this.listing, this.#scroll.window().start);
        this.listing = next;
        this.#place(place);
        this.dispatchEvent(new Event("show"));
      }
      await this.#loadNear();
    });
  }

  /** The month at the top of the window. */
  monthInWindow() {
    const { start } = this.#scroll.window();
    return this.listing.months.findLast((month) => month.top <= Math.max(0, start))?.name;
  }

  /** Scroll to a month. */
  goToMonth(name) {
    this.#scroll.to(this.listing.months.find((month) => month.name === name).top);
    this.#draw();
  }

  /** Scroll until an upload that is loaded is in the window. Return its element. */
  reveal(id) {
    const box = this.listing && boxOf(this.listing, id);
    if (!box) return null;
    const { start, end } = this.#scroll.window();
    if (box.top < start) this.#scroll.to(box.top);
    else if (box.top + box.height > end) this.#scroll.to(start + box.top + box.height - end);
    this.#draw();
    return this.elementOf(id);
  }

  /** The element of an upload; null while it is not near the window. */
  elementOf(id) {
    return this.months.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  /** The upload beside one that is loaded, in the direction of `step` (1 or -1); null at an end. */
  async neighborOf(id, step) {
    const upload = await this.listing?.neighborOf(id, step);
    if (upload && !boxOf(this.listing, upload.id)) this.#place();
    return upload ?? null;
  }

  /** Load an upload that was reached by another way than through the grid. Return whether it is there. */
  async find(upload) {
    await this.listing.find(upload);
    if (!this.listing.placeOf(upload.id)) {
      this.#place();
      return false;
    }
    this.#scroll.setHeight(arrange(this.listing, this.#width));
    this.reveal(upload.id);
    return true;
  }

  async #read(work) {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    try {
      await work(signal);
    } catch (problem) {
      if (!signal.aborted) this.#tell(problem);
      return;
    }
    this.#tell(null);
  }

  #tell(problem) {
    if (problem?.name === "AbortError") return; // Something else is wanted by now.
    if (this.#hasProblem && !problem) document.dispatchEvent(new Event("recovered"));
    this.#hasProblem = problem !== null;
    showNotice(this.notice, { problem, listing: this.listing, retry: () => this.refresh() });
  }

  /** The blocks of another listing that are where those are that are drawn now. */
  #sameBlocks(next) {
    const near = this.#near(DRAWN);
    if (next.isEmpty || near.length === 0) return next.blocks.slice(0, 1);
    const [first, last] = [near[0], near.at(-1)].map((block) =>
      blockOfPlace(next, { month: block.month.name, index: block.start }),
    );
    return next.blocks.slice(this.#scroll.window().start < 0 ? 0 : first.index, last.index + 1);
  }

  /** Give everything its place anew, with what was at the top of the window left there. */
  #place(place = placeAt(this.listing, this.#scroll.window().start)) {
    this.#width = this.months.clientWidth;
    this.#scroll.setHeight(arrange(this.listing, this.#width));
    if (place) this.#scroll.to(heightOfPlace(this.listing, place));
    this.#draw();
  }

  #resize() {
    if (!this.listing || this.months.clientWidth === this.#width) return;
    const place = placeAt(this.listing, this.#scroll.window().start);
    forgetArrangement(this.listing);
    this.#place(place);
  }

  #near(windows) {
    const { start, end } = this.#scroll.window(windows);
    return blocksBetween(this.listing, start, end);
  }

  #drawSoon() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
    });
  }

  #draw() {
    if (!this.listing) return;
    this.#scroll.follow();
    const focused = document.activeElement?.closest(".tile")?.dataset.id;
    const blocks = new Set(this.#near(DRAWN)).add(this.listing.placeOf(focused)?.block);
    blocks.delete(undefined);
    const { start, end } = this.#scroll.window(DRAWN);
    const placed = placedBetween(
      [...blocks].sort((one, other) => one.index - other.index),
      start,
      end,
      focused,
    );
    const months = new Map([...blocks].map((block) => [block.month, []]));
    for (const image of placed) months.get(image.month).push(image);
    this.#showMonths([...months].sort(([one], [other]) => one.top - other.top));
    this.dispatchEvent(new Event("draw"));
    this.#loadSoon();
  }

  #showMonths(months) {
    const names = new Set(months.map(([month]) => month.name));
    for (const [name, view] of this.#views) {
      if (names.has(name)) continue;
      view.element.remove();
      this.#views.delete(name);
    }
    for (const [index, [month, images]] of months.entries()) {
      let view = this.#views.get(month.name);
      if (!view) this.#views.set(month.name, (view = new MonthView(month)));
      const { children } = this.months;
      if (children[index] !== view.element) this.months.insertBefore(view.element, children[index] ?? null);
      view.show(month, images, (height) => this.#scroll.inPage(height));
    }
  }

  #loadSoon() {
    const isFast = Math.abs(scrollY - this.#drawnAt) > FAST * innerHeight;
    this.#drawnAt = scrollY;
    clearTimeout(this.#settling);
    const load = () => this.#loadNear().catch((problem) => this.#tell(problem));
    if (isFast) this.#settling = setTimeout(load, SETTLED_MILLISECONDS);
    else load();
  }

  /** Load what is near the window and is not there yet; drop what is far away. */
  async #loadNear() {
    const { listing } = this;
    const missing = this.#near(DRAWN).filter((block) => !block.uploads);
    if (missing.length === 0) return this.#dropFar();
    if (this.#loading?.blocks.some((block) => missing.includes(block))) return this.#loading.done;
    this.#loading?.controller.abort();
    const controller = new AbortController();
    const loading = (this.#loading = { blocks: missing, controller });
    loading.done = listing.load(missing, controller.signal).finally(() => {
      if (this.#loading === loading) this.#loading = null;
    });
    await loading.done.catch((problem) => {
      if (!controller.signal.aborted) throw problem;
    });
    if (listing === this.listing) this.#place();
  }

  #dropFar() {
    const kept = new Set(this.#near(KEPT));
    kept.add(this.listing.placeOf(document.activeElement?.closest(".tile")?.dataset.id)?.block);
    for (const block of this.listing.blocks) {
      if (block.uploads && !kept.has(block)) this.listing.drop(block);
    }
  }
}
