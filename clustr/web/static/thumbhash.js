// Draws the placeholder that the analyzer `palette` makes: a ThumbHash, which is about 25 bytes with
// the lowest frequencies of a picture (https://evanw.github.io/thumbhash/).

const LONGER_SIDE = 32;
/** What is lost of colors by so few frequencies is put back by this. */
const SATURATION = 1.25;

/**
 * Return a blurred picture as a canvas of some pixels.
 *
 * @param {string} text the ThumbHash in base64.
 * @param {{width: number, height: number}} size of the picture, for the proportions.
 */
export function drawThumbhash(text, size) {
  const scale = LONGER_SIDE / Math.max(size.width, size.height);
  const width = Math.max(1, Math.round(size.width * scale));
  const height = Math.max(1, Math.round(size.height * scale));
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const pixels = new ImageData(decodeThumbhash(text, width, height), width, height);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

/** Return the pixels of a ThumbHash in base64: red, green, blue and opacity, row by row. */
export function decodeThumbhash(text, width, height) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const planes = readPlanes(bytes).map((plane) => computeValues(plane, width, height));
  const [light, yellowBlue, redGreen, opacity] = planes;
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let at = 0; at < width * height; at += 1) {
    const blue = light[at] - (2 / 3) * yellowBlue[at];
    const red = (3 * light[at] - blue + redGreen[at]) / 2;
    const green = red - redGreen[at];
    pixels.set(
      [red, green, blue, opacity ? opacity[at] : 1].map((value) => 255 * value),
      4 * at,
    );
  }
  return pixels;
}

/** The planes of lightness, yellow to blue and red to green, and that of opacity if there is one. */
function readPlanes(bytes) {
  const bits = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const more = bytes[3] | (bytes[4] << 8);
  const hasAlpha = bits >> 23 === 1;
  const isWide = more >> 15 === 1;
  const [longer, shorter] = [hasAlpha ? 5 : 7, more & 7];
  const readVarying = nibblesOf(bytes, hasAlpha ? 6 : 5);
  const plane = (across, down, mean, scale) => ({
    across,
    down,
    mean,
    varying: readVarying(across, down, scale),
  });
  const planes = [
    plane(
      Math.max(3, isWide ? longer : shorter),
      Math.max(3, isWide ? shorter : longer),
      (bits & 63) / 63,
      ((bits >> 18) & 31) / 31,
    ),
    plane(3, 3, ((bits >> 6) & 63) / 31.5 - 1, (SATURATION * ((more >> 3) & 63)) / 63),
    plane(3, 3, ((bits >> 12) & 63) / 31.5 - 1, (SATURATION * ((more >> 9) & 63)) / 63),
  ];
  if (hasAlpha) planes.push(plane(5, 5, (bytes[5] & 15) / 15, (bytes[5] >> 4) / 15));
  return planes;
}

/** Return a function that reads the frequencies of the next plane, four bits each. */
function nibblesOf(bytes, start) {
  let read = 0;
  return (across, down, scale) => {
    const rows = [];
    for (let j = 0; j < down; j += 1) {
      rows.push([]);
      for (let i = 0; i * down < across * (down - j); i += 1) {
        if (i === 0 && j === 0) {
          rows[0].push(0); // The mean has a place of its own.
          continue;
        }
        const nibble = (bytes[start + (read >> 1)] >> (read & 1 ? 4 : 0)) & 15;
        read += 1;
        rows[j].push((nibble / 7.5 - 1) * scale);
      }
    }
    return rows;
  };
}

/** The values of a plane at each pixel. */
function computeValues({ across, down, mean, varying }, width, height) {
  const horizontal = waves(across, width);
  const vertical = waves(down, height);
  const values = new Float64Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const ofColumns = Array.from({ length: across }, (_, i) =>
      varying.reduce((sum, row, j) => sum + 2 * (row[i] ?? 0) * vertical[j][y], 0),
    );
    for (let x = 0; x < width; x += 1) {
      values[y * width + x] = ofColumns.reduce((sum, value, i) => sum + value * horizontal[i][x], mean);
    }
  }
  return values;
}

/** The cosine waves of the lowest frequencies, each at the middle of so many pixels. */
function waves(count, length) {
  return Array.from({ length: count }, (_, i) =>
    Float64Array.from({ length }, (_, x) => Math.cos((Math.PI / length) * i * (x + 0.5))),
  );
}
