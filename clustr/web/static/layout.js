// Puts images into rows of one width. It knows sizes alone, so that all is in its place before any
// image is loaded.

/** Images that are wider or taller than this are shown cut, or one panorama would be a thin line. */
const [NARROWEST, WIDEST] = [0.5, 3];
/** How much higher than wanted a row may become that has too few images. */
const TALLEST_ROW = 1.5;
/** Width by height of a usual image, to guess a height by. */
const USUAL_RATIO = 1.4;

/** The height of rows that suits this width, in pixels. */
export function rowHeightFor(width) {
  return Math.round(Math.min(Math.max(width / 6, 120), 240));
}

/** About how high the rows of so many images become, while nothing is known of them. */
export function guessHeight(count, { width, rowHeight, gap }) {
  return Math.max(1, Math.round((count * USUAL_RATIO * rowHeight) / width)) * (rowHeight + gap);
}

/**
 * Put images into rows that all fill the width, in their order.
 *
 * @param {{width: number, height: number}[]} sizes of the images.
 * @param {object} options
 * @param {number} options.width of a row, in pixels.
 * @param {number} options.rowHeight that rows should about have.
 * @param {number} options.gap between images, and below each row.
 * @param {boolean} options.isEnd whether nothing follows, so that the last row is not stretched.
 * @returns {{boxes: {left, top, width, height, row}[], height: number}} a box for each image.
 */
export function justify(sizes, options) {
  const { width, rowHeight, gap, isEnd } = options;
  const ratios = sizes.map((size) => clamp(size.width / size.height));
  const rows = splitIntoRows(ratios, options);
  const boxes = [];
  let top = 0;
  for (const [index, { start, end }] of rows.entries()) {
    const full = heightOf(ratios, start, end, options);
    const isStretched = !(isEnd && index === rows.length - 1);
    const height = Math.round(isStretched ? full : Math.min(full, rowHeight));
    boxes.push(
      ...boxesOfRow(ratios.slice(start, end), {
        top,
        height,
        row: index,
        gap,
        isFull: height >= full - 1,
        width,
      }),
    );
    top += height + gap;
  }
  return { boxes, height: top };
}

function clamp(ratio) {
  return Math.min(Math.max(ratio || 1, NARROWEST), WIDEST);
}

/** The height of a row that these images fill. */
function heightOf(ratios, start, end, { width, gap }) {
  const sum = ratios.slice(start, end).reduce((total, ratio) => total + ratio, 0);
  return (width - gap * (end - start - 1)) / sum;
}

function splitIntoRows(ratios, options) {
  const rows = [];
  let start = 0;
  for (let end = 1; end <= ratios.length; end += 1) {
    const height = heightOf(ratios, start, end, options);
    if (height > options.rowHeight) continue;
    // The last image is left to the next row where that comes nearer to the height wanted.
    const without = end - start > 1 ? heightOf(ratios, start, end - 1, options) : Infinity;
    if (without / options.rowHeight < options.rowHeight / height) end -= 1;
    rows.push({ start, end });
    start = end;
  }
  if (start < ratios.length) addRest(rows, { start, end: ratios.length }, ratios, options);
  return rows;
}

/** Add the images that fill no row: as a row of their own, or to the row before. */
function addRest(rows, rest, ratios, options) {
  const isTooTall = heightOf(ratios, rest.start, rest.end, options) > TALLEST_ROW * options.rowHeight;
  if (isTooTall && !options.isEnd && rows.length > 0) rows.at(-1).end = rest.end;
  else rows.push(rest);
}

/** The boxes of one row, at whole pixels, so that all edges are sharp. */
function boxesOfRow(ratios, { top, height, row, gap, isFull, width }) {
  const sum = ratios.reduce((total, ratio) => total + ratio, 0);
  const scale = isFull ? (width - gap * (ratios.length - 1)) / sum : height;
  let right = 0;
  return ratios.map((ratio, index) => {
    const left = Math.round(right + index * gap);
    right += ratio * scale;
    return { left, top, width: Math.round(right + index * gap) - left, height, row };
  });
}
