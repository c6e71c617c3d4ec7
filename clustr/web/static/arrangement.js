// Where the blocks of a listing are in the grid, in pixels from its top: exactly where their uploads
// are loaded, else by a guess.
import { guessHeight, justify, rowHeightFor } from "./layout.js";

const GAP = 4;
const HEADING = 48;

/** Give each month and block of a listing its place. Return the height of all. */
export function arrange(listing, width) {
  const options = { width, rowHeight: rowHeightFor(width), gap: GAP };
  let top = 0;
  for (const month of listing.months) {
    month.top = top;
    if (month.name) top += HEADING;
    for (const block of month.blocks) {
      arrangeBlock(block, options);
      block.top = top;
      top += block.height;
    }
  }
  return top;
}

/** Forget all heights, as after a change of the width. */
export function forgetArrangement(listing) {
  for (const block of listing.blocks) Object.assign(block, { layout: null, height: 0 });
}

function arrangeBlock(block, options) {
  if (block.uploads && !block.layout) {
    const sizes = block.uploads.map((upload) => upload.dimensions);
    block.layout = justify(sizes, { ...options, isEnd: block.isEnd });
    block.height = block.layout.height;
  }
  block.height ||= guessHeight(block.count, options);
}

/** The blocks between two heights. */
export function blocksBetween(listing, start, end) {
  return listing.blocks.filter((block) => block.top < end && block.top + block.height > start);
}

/** The images between two heights, and the one of this id wherever it is: each with its place. */
export function placedBetween(blocks, start, end, id) {
  const placed = [];
  for (const block of blocks) {
    for (const [index, box] of block.layout?.boxes.entries() ?? []) {
      const upload = block.uploads[index];
      const top = block.top + box.top;
      if (upload.id !== id && (top > end || top + box.height < start)) continue;
      placed.push({ upload, box: { ...box, top }, month: block.month, position: block.start + index });
    }
  }
  return placed;
}

/** The box of an upload that is loaded, from the top of the grid. */
export function boxOf(listing, id) {
  const place = listing.placeOf(id);
  const box = place?.block.layout?.boxes[place.index];
  return box ? { ...box, top: place.block.top + box.top } : null;
}

/**
 * What is at a height, to be found again when heights have changed; null above the first image.
 *
 * @returns {{id, month, index, offset}} `offset` is how far below its top the height is, which
 *   is less than nothing on the heading above it.
 */
export function placeAt(listing, height) {
  const block = listing.blocks.find((each) => each.top + each.height > height);
  if (!block || height <= HEADING) return null;
  const found = block.layout?.boxes.findIndex((box) => block.top + box.top + box.height > height) ?? -1;
  const index = Math.max(0, found);
  const top = block.top + (block.layout?.boxes[index]?.top ?? 0);
  const id = block.uploads?.[index]?.id;
  return { id, month: block.month.name, index: block.start + index, offset: height - top };
}

/** Where that place is now; of an image that has gone, what is in its place. */
export function heightOfPlace(listing, place) {
  const box = boxOf(listing, place.id);
  if (box) return box.top + place.offset;
  const block = blockOfPlace(listing, place);
  if (!block) return 0;
  const top = block.top + (block.layout?.boxes[place.index - block.start]?.top ?? 0);
  return top + Math.min(place.offset, block.height);
}

/** The block in which a place is, or that follows it. */
export function blockOfPlace(listing, { month, index }) {
  const found = listing.months.find(({ name }) => name === null || name <= month);
  if (!found) return listing.blocks.at(-1);
  const isSame = found.name === month;
  return found.blocks.findLast((block) => block.start <= (isSame ? index : 0));
}
