// What is known of the file of one image.
import { html } from "./lit-html.js";

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "short" });
// What the clock showed where the picture was taken is told as it was.
const LOCAL_TIME = new Intl.DateTimeFormat(undefined, {
  dateStyle: "long",
  timeStyle: "short",
  timeZone: "UTC",
});
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte"];

/** The metadata of an upload as a list of names and values. */
export function metadataTemplate(upload) {
  const taken = upload.taken_at_local ?? upload.taken_at;
  const rows = {
    Name: upload.original_name,
    Taken: taken && LOCAL_TIME.format(new Date(`${taken.slice(0, 19)}Z`)),
    Uploaded: TIME.format(new Date(upload.upload_time)),
    "Uploaded by": upload.uploaded_by,
    Size: `${upload.dimensions.width} × ${upload.dimensions.height}, ${formatBytes(upload.size)}`,
    Type: upload.content_type,
    ...cameraRows(upload.analyses.exif?.result ?? {}),
    "SHA-256": upload.sha256,
  };
  const known = Object.entries(rows).filter(([, value]) => value);
  return html`<h3>Metadata</h3>
    <dl>
      ${known.map(
        ([name, value]) =>
          html`<dt>${name}</dt>
            <dd>${value}</dd>`,
      )}
    </dl>`;
}

/** What the analyzer `exif` says of the camera. */
function cameraRows({ camera, lens, exposure }) {
  const { time_seconds: time, f_number: aperture, iso, focal_length_mm: length } = exposure ?? {};
  const parts = [
    time && (time < 1 ? `1/${Math.round(1 / time)} s` : `${time} s`),
    aperture && `f/${aperture}`,
    iso && `ISO ${iso}`,
    length && `${length} mm`,
  ];
  return { Camera: nameOf(camera), Lens: nameOf(lens), Exposure: parts.filter(Boolean).join(", ") };
}

function nameOf(device) {
  return [device?.make, device?.model].filter(Boolean).join(" ");
}

/** So many bytes in words of the reader's language. */
export function formatBytes(bytes) {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const options = { style: "unit", unit: UNITS[power], maximumSignificantDigits: 3 };
  return new Intl.NumberFormat(undefined, options).format(bytes / 1000 ** power);
}
