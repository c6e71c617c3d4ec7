// The images that were chosen: some by their ids, or all that the filters of the page find.

class Selection extends EventTarget {
  #ids = new Set();
  #isAll = false;

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

  set(ids, isChosen) {
    this.#isAll = false;
    for (const id of ids) this.#ids[isChosen ? "add" : "delete"](id);
    this.dispatchEvent(new Event("change"));
  }

  chooseAll() {
    this.#isAll = true;
    this.#ids.clear();
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    if (this.isEmpty) return;
    this.#isAll = false;
    this.#ids.clear();
    this.dispatchEvent(new Event("change"));
  }
}

export const selection = new Selection();
