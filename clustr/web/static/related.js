// What is like one image: copies of its file, and pictures that look alike.
import { get, thumbnailUrl } from "./api.js";
import { html, nothing } from "./lit-html.js";
import { go } from "./route.js";
import { describe } from "./tiles.js";

const MOST = 12;
const FIELDS = "caption,original_name,dimensions";

/** What pictures are compared by, read once from the OpenAPI document: names such as `phash.bits`. */
let vectors = null;

/**
 * Ask for what is like an upload.
 *
 * @returns {Promise<{copies: object[], similar: {by: string, uploads: object[]}[]}>}
 */
export async function readRelated(upload, signal) {
  const others = await get("api/uploads", { sha256: upload.sha256, fields: FIELDS, limit: MOST }, signal);
  const copies = others.data.filter(({ id }) => id !== upload.id);
  vectors ??= await readVectors(signal);
  const known = vectors.filter((name) => upload.analyses[name.split(".")[0]]?.result);
  const similar = await Promise.all(
    known.map(async (by) => {
      const parameters = { by, fields: FIELDS, limit: MOST };
      const found = await get(`api/uploads/${upload.id}/similar`, parameters, signal).catch((problem) => {
        if (problem.status !== 404) throw problem;
        return { data: [] }; // Of this picture there is nothing to compare.
      });
      return { by, uploads: found.data };
    }),
  );
  return { copies, similar };
}

async function readVectors(signal) {
  const document = await get("openapi.json", {}, signal);
  const operation = document.paths["/api/uploads/{upload_id}/similar"]?.get;
  const by = operation?.parameters.find(({ name }) => name === "by").schema;
  const [reference] = by?.allOf ?? [];
  const { enum: names = [] } = reference
    ? document.components.schemas[reference.$ref.split("/").at(-1)]
    : (by ?? {});
  return names.filter((name) => name.includes("."));
}

/** Pictures of what `readRelated` found. */
export function relatedTemplate({ copies, similar }) {
  return html`${listTemplate("Copies", copies)}
  ${similar.map(({ by, uploads }) => listTemplate(`Similar by ${by.split(".")[0]}`, uploads))}`;
}

function listTemplate(title, uploads) {
  if (uploads.length === 0) return nothing;
  return html`<h3>${title}</h3>
    <ul class="related">
      ${uploads.map(
        (upload) =>
          html`<li>
            <button @click=${() => go({ upload: upload.id })}>
              <img src=${thumbnailUrl(upload, 100)} alt=${describe(upload)} draggable="false" />
            </button>
          </li>`,
      )}
    </ul>`;
}
