// The trash, with pictures: each can be restored or removed for good.
import { call, get } from "./api.js";
import { html, nothing } from "./lit-html.js";
import { say } from "./messages.js";

const ON_A_PAGE = 30;
const FIELDS = "original_name,caption,trashed_at,expires_at";

const trash = { uploads: [], total: 0, cursor: null };

/** Read the beginning of the trash, and call `draw` when it is there. */
export async function readTrash(draw) {
  Object.assign(trash, { uploads: [], cursor: null });
  await readMore(draw);
}

async function readMore(draw) {
  const parameters = { limit: ON_A_PAGE, fields: FIELDS };
  if (trash.cursor) parameters.cursor = trash.cursor;
  try {
    const page = await get("api/trash", parameters);
    trash.uploads.push(...page.data);
    Object.assign(trash, { total: page.total, cursor: page.next_cursor });
  } catch (problem) {
    say(problem.message);
  }
  draw();
}

/**
 * Draw what has been read.
 *
 * @param {string[]} scopes say whether uploads can be restored or removed.
 * @param {function} draw is called when something has changed.
 */
export function drawTrash(scopes, draw) {
  return html`<section aria-labelledby="trash-heading">
    <h3 id="trash-heading">Trash: ${trash.total ?? "many"} images</h3>
    <ul class="trash">
      ${trash.uploads.map((upload) => drawUpload(upload, scopes, draw))}
    </ul>
    ${trash.cursor ? html`<button @click=${() => readMore(draw)}>More</button>` : nothing}
  </section>`;
}

function drawUpload(upload, scopes, draw) {
  const name = upload.caption || upload.original_name;
  const until = new Date(upload.expires_at).toLocaleDateString();
  return html`<li>
    <img
      src=${`api/trash/${upload.id}/thumbnail?size=150`}
      alt=${name}
      width="150"
      height="150"
      loading="lazy"
      draggable="false"
    />
    <span class="details">${name}; removed for good on ${until}</span>
    ${scopes.includes("uploads:write")
      ? html`<button aria-label=${`Restore ${name}`} @click=${() => restore(upload, draw)}>
          Restore
        </button>`
      : nothing}
    ${scopes.includes("uploads:delete")
      ? html`<button
          class="danger"
          aria-label=${`Remove ${name} for good`}
          @click=${() => removeForGood(upload, name, draw)}
        >
          Remove for good
        </button>`
      : nothing}
  </li>`;
}

async function restore(upload, draw) {
  await change(upload, "POST", `api/uploads/${upload.id}/restore`, draw);
  document.dispatchEvent(new Event("uploadschange"));
}

async function removeForGood(upload, name, draw) {
  if (!confirm(`Remove ${name} for good? Nobody can bring it back.`)) return;
  await change(upload, "DELETE", `api/uploads/${upload.id}?permanently=true`, draw);
}

async function change(upload, method, path, draw) {
  try {
    await call(method, path);
    trash.uploads = trash.uploads.filter((each) => each !== upload);
    if (trash.total !== null) trash.total -= 1;
  } catch (problem) {
    say(problem.message);
  }
  draw();
}
