import axios from "axios";
import { createApiClient } from "./generated/zodios";
import { base, walk } from "./walk";

// Every answer is compared with its schema; a status that is none of success comes through, too.
const api = createApiClient(base, {
  validate: "response",
  axiosConfig: { paramsSerializer: { indexes: null } },
});
const of = (upload_id: string) => ({ params: { upload_id } });

async function status(call: Promise<unknown>, success: number): Promise<number> {
  try {
    await call;
    return success;
  } catch (error) {
    if (axios.isAxiosError(error) && error.response) return error.response.status;
    throw error;
  }
}

await walk({
  upload: async (file) => {
    // Its forms have one part for a list of files.
    const form = new FormData();
    form.append("files", file);
    return (await axios.post(`${base}/api/upload`, form)).data.data[0].id;
  },
  status: async (id) => (await api.get_upload(of(id))).status,
  version: async (id) => (await axios.get(`${base}/api/uploads/${id}`)).headers["etag"],
  page: async (tag, limit, cursor) => {
    const page = await api.list_uploads({ queries: { tag: [tag], limit, cursor } });
    return { ids: page.data.map((one) => one.id), next: page.next_cursor };
  },
  edit: (id, caption, tag, version) => {
    const body = { caption, tags: { add: [tag] } };
    return status(api.edit_upload(body, { ...of(id), headers: { "If-Match": version } }), 200);
  },
  caption: async (id) => (await api.get_upload(of(id))).caption,
  download: async (id) => {
    const options = { responseType: "arraybuffer" as const };
    const answer = await axios.get(`${base}/api/uploads/${id}/file`, options);
    return new Uint8Array(answer.data);
  },
  remove: (id) => status(api.remove_upload(undefined, of(id)), 204),
  restore: (id) => status(api.restore_upload(undefined, of(id)), 200),
});
