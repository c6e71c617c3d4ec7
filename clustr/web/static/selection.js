// The images that were chosen: some by their ids, or all that the filters of the page find.

/** An order names at most so many uploads; of more, the filters are sent. */
export const MOST_IDS = 10_000;
export const TOO_MANY =
  `At most ${MOST_IDS.toLocaleString("en")} images can be chosen so; ` +
  "search for what you want of more, and choose all hits.";

class Selection extends EventTarget {
  #ids = new Set();
  #isAll = false;
  /** How often choosing has begun anew. */
  begun = 0;

  /** Whether all that the filters find are chosen, loaded or not. */
  get isAll() {
    return this.#isAll;
  }

  get ids() {
    return [...this.#ids];
  }

  get isEmpty() {
    return !this.#isAll && this.#ids.size === 0;
  }

  has(id) {
    return this.#isAll || this.#ids.has(id);
  }

  /** Choose uploads, or choose them no longer; throws for more than an order can name. */
  set(ids, isChosen) {
    if (isChosen && this.#ids.union(new Set(ids)).size > MOST_IDS) throw new Error(TOO_MANY);
    this.#isAll = false;
    for (const id of ids) this.#ids[isChosen ? "add" : "delete"](id);
    this.dispatchEvent(new Event("change"));
  }

  chooseAll() {
    this.begun += 1;
    this.#isAll = true;
    this.#ids.clear();
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    this.begun += 1;
    if (this.isEmpty) return;
    this.#isAll = false;
    this.#ids.clear();
    this.dispatchEvent(new Event("change"));
  }
}

export const selection = new Selection();
