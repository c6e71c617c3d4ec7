// The uploads that the filters of the page find: all of them as months and blocks, and those blocks
// that were asked for with their uploads.
import { get } from "./api.js";

/** How many uploads are loaded and dropped together. */
const BLOCK_SIZE = 100;
/** How many are asked for at once: on the way to what is to be seen, and of what is to be seen. */
const [MOST_SKIPPED, MOST_READ] = [1000, 300];
/** In how many blocks of a month, or of what is found, an upload is looked for. */
const MOST_SEARCHED = 10;
const FIELDS = ["dimensions", "caption", "original_name"];
const PLACEHOLDER = "analyses.palette.thumbhash";

/** The field of placeholders; without the analyzer `palette` there are none to ask for. */
let placeholders = [PLACEHOLDER];

/** Some uploads that follow each other, in one month. */
class Block {
  uploads = null;
  layout = null;
  top = 0;
  height = 0;

  constructor(month, start, count, cursor) {
    Object.assign(this, { month, start, count, cursor });
  }

  get isEnd() {
    return this === this.month.blocks.at(-1);
  }
}

/** A month with its uploads in blocks; `name` is null where the order is not by date. */
class Month {
  top = 0;

  constructor(name, count, cursor) {
    this.name = name;
    this.count = count;
    this.blocks = [];
    for (let start = 0; start < count; start += BLOCK_SIZE) {
      const size = Math.min(BLOCK_SIZE, count - start);
      this.blocks.push(new Block(this, start, size, start === 0 ? cursor : undefined));
    }
  }
}

/** What the filters find, at the time when it was read. */
export class Listing {
  #places = new Map();
  #mayGrow = false;

  /**
   * Read what there is: one request, which is 304 as long as it is the same.
   *
   * @param {URLSearchParams} filters of the listing.
   */
  static async read(filters, signal) {
    const listing = new Listing(filters);
    if (listing.isByMonth) await listing.#readMonths(signal);
    else await listing.#readFirst(signal);
    listing.blocks = listing.months.flatMap((month) => month.blocks);
    for (const [index, block] of listing.blocks.entries()) block.index = index;
    return listing;
  }

  constructor(filters) {
    this.filters = filters;
    this.isByMonth = !filters.has("q") && !filters.has("sort");
    this.months = [];
    this.blocks = [];
  }

  /** Whether this is another state of the service than that of `other`. */
  differsFrom(other) {
    return this.digest !== other.digest;
  }

  get isEmpty() {
    return this.blocks.length === 0;
  }

  /** Where an upload is that has been loaded: its block, and its index there. */
  placeOf(id) {
    return this.#places.get(id);
  }

  /** Load blocks; those that follow each other by one request. */
  async load(blocks, signal) {
    const missing = blocks.filter((block) => !block.uploads);
    for (let next = 0, end; next < missing.length; next = end) {
      end = next + 1;
      let count = missing[next].count;
      while (missing[end]?.index === missing[end - 1].index + 1 && count + missing[end].count <= MOST_READ) {
        count += missing[end].count;
        end += 1;
      }
      await this.#loadRun(missing.slice(next, end), count, signal);
    }
  }

  /** Load what is needed to know the place of an upload, unless very many are before it. */
  async find(upload) {
    const name = this.isByMonth ? (upload.taken_at_local ?? upload.upload_time).slice(0, 7) : null;
    const blocks = this.months.find((each) => each.name === name)?.blocks ?? [];
    // There may be more of them with each that is loaded.
    for (let next = 0; next < Math.min(blocks.length, MOST_SEARCHED); next += 1) {
      if (this.placeOf(upload.id)) return;
      await this.load([blocks[next]]);
    }
  }

  /** Forget the uploads of a block, which keeps its height. */
  drop(block) {
    for (const upload of block.uploads) this.#places.delete(upload.id);
    block.uploads = block.layout = null;
  }

  /** The upload so many places behind (or, below zero, before) one that is loaded; null at an end. */
  async neighborOf(id, step) {
    const place = this.placeOf(id);
    if (!place) return null;
    const upload = place.block.uploads[place.index + step];
    if (upload) return upload;
    const block = this.blocks[place.block.index + step];
    if (!block) return null;
    await this.load([block]);
    return block.uploads.at(step > 0 ? 0 : -1) ?? null;
  }

  async #readMonths(signal) {
    const timeline = await get("api/timeline", withParameters(this.filters, { unit: "month" }), signal);
    this.digest = JSON.stringify(timeline);
    this.total = timeline.total;
    this.months = timeline.data.map(({ month, count, cursor }) => new Month(month, count, cursor));
  }

  async #readFirst(signal) {
    const page = await this.#page({ limit: BLOCK_SIZE }, signal);
    this.digest = JSON.stringify(page);
    this.total = page.total;
    this.#mayGrow = page.total_is_estimate;
    if (page.data.length === 0) return;
    const known = page.total ?? page.data.length + (page.next_cursor ? BLOCK_SIZE : 0);
    const month = new Month(null, known, null);
    this.months = [month];
    this.#fill(month.blocks[0], page.data);
    if (month.blocks[1]) month.blocks[1].cursor = page.next_cursor;
  }

  async #loadRun(blocks, count, signal) {
    const cursor = await this.#cursorOf(blocks[0], signal);
    // Nothing follows where uploads were removed since the listing was read.
    const isPastEnd = cursor === null && blocks[0].index > 0;
    const page = isPastEnd
      ? { data: [], next_cursor: null }
      : await this.#page({ limit: count, cursor }, signal);
    let start = 0;
    for (const block of blocks) {
      this.#fill(block, page.data.slice(start, start + block.count));
      start += block.count;
    }
    this.#follow(blocks.at(-1), page.next_cursor);
  }

  /** Note where the block behind this one begins. */
  #follow(block, cursor) {
    let next = this.blocks[block.index + 1];
    if (!next && cursor && this.#mayGrow) {
      const { month } = block;
      next = new Block(month, month.count, BLOCK_SIZE, cursor);
      next.index = this.blocks.push(next) - 1;
      month.blocks.push(next);
      month.count += BLOCK_SIZE;
    }
    if (next) next.cursor ??= cursor;
  }

  /** Where a block begins, which in a month with many has to be walked to. */
  async #cursorOf(block, signal) {
    let from = block.index;
    while (this.blocks[from].cursor === undefined) from -= 1;
    while (from < block.index) {
      const skipped = this.blocks.slice(from, Math.min(block.index, from + MOST_SKIPPED / BLOCK_SIZE));
      const limit = skipped.reduce((total, each) => total + each.count, 0);
      const page = await this.#page({ limit, cursor: this.blocks[from].cursor, fields: "id" }, signal);
      from += skipped.length;
      this.blocks[from].cursor = page.next_cursor;
    }
    return block.cursor;
  }

  #fill(block, uploads) {
    block.uploads = uploads;
    for (const [index, upload] of uploads.entries()) this.#places.set(upload.id, { block, index });
  }

  async #page({ limit, cursor, fields }, signal) {
    const more = { limit, ...(cursor && { cursor }), ...(this.isByMonth && { sort: "-date" }) };
    const read = () =>
      get(
        "api/uploads",
        withParameters(this.filters, { ...more, fields: fields ?? [...FIELDS, ...placeholders] }),
        signal,
      );
    return read().catch((problem) => {
      if (!problem.document?.errors?.fields || placeholders.length === 0) throw problem;
      placeholders = [];
      return read();
    });
  }
}

function withParameters(filters, more) {
  const parameters = new URLSearchParams(filters);
  for (const [name, value] of Object.entries(more)) parameters.set(name, value);
  return parameters;
}
