// Where the window is in the grid, which may be higher than browsers let a page be: Chromium knows no
// place below 33,554,428 pixels, Firefox none below 17,895,697, and both become inexact before that.
// The page of such a grid is lower than the grid; its scroll bar leads through all of it even so.
import { setPixels } from "./tiles.js";

/** How high the grid is in the page at most, and how far above the page something is put, in pixels. */
const [TALLEST, FARTHEST] = [8e6, 1e6];
/** By more windows than this at once nobody scrolls but with the scroll bar, or to an end. */
const LEAP = 20;

export class Scroll {
  #header = document.querySelector("body > header");
  #element;
  #height = 0;
  #before = 0;
  /** How much of the grid above the window has no room in the page. */
  #omitted = 0;

  /** @param {HTMLElement} element the grid. */
  constructor(element) {
    this.#element = element;
  }

  /** Say how high the grid is, all of it. */
  setHeight(height) {
    this.#height = height;
    this.#omitted = Math.min(this.#omitted, height - this.#shownHeight);
    setPixels(this.#element, { height: this.#shownHeight });
  }

  /** The part of the grid that is in the window, enlarged by so many windows. */
  window(more = 0) {
    const start = Math.round(this.#position) + this.#omitted;
    return { start: start - more * innerHeight, end: start + this.#seenHeight + more * innerHeight };
  }

  /** Scroll until this height of the grid is at the top of the window. */
  to(height) {
    this.#omitted = this.#omittedAt(height / (this.#height - this.#seenHeight));
    scrollTo(0, this.#origin + height - this.#omitted);
    this.#before = this.#position;
  }

  /** Take note of where somebody has scrolled to: in a leap it is a share of all, else it is so far. */
  follow() {
    const room = this.#shownHeight - this.#seenHeight;
    const position = this.#position;
    const isLeap = Math.abs(position - this.#before) > LEAP * innerHeight;
    if (isLeap || position <= 0 || position >= room) this.#omitted = this.#omittedAt(position / room);
    this.#before = position;
  }

  /** Where a height of the grid is in the page; what is far from the window is put where it fits. */
  inPage(height) {
    return Math.min(Math.max(height - this.#omitted, -FARTHEST), this.#shownHeight);
  }

  #omittedAt(share) {
    const omitted = this.#height - this.#shownHeight;
    return omitted && Math.round(Math.min(Math.max(share, 0), 1) * omitted);
  }

  get #shownHeight() {
    return Math.min(this.#height, TALLEST);
  }

  get #seenHeight() {
    return innerHeight - this.#header.offsetHeight;
  }

  /** How far the page is scrolled when the beginning of the grid is right below the header. */
  get #origin() {
    return this.#element.getBoundingClientRect().top + scrollY - this.#header.offsetHeight;
  }

  get #position() {
    return scrollY - this.#origin;
  }
}
