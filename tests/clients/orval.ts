import * as api from "./generated/orval";
import { walk } from "./walk";

function got<Answer extends { status: number; data: unknown }>(answer: Answer) {
  if (answer.status >= 300) throw new Error(JSON.stringify(answer.data));
  return answer as Extract<Answer, { status: 200 | 201 }>;
}

await walk({
  upload: async (file) => got(await api.uploadFiles({ files: [file] })).data.data[0]!.id,
  status: async (id) => got(await api.getUpload(id)).data.status,
  version: async (id) => (await api.getUpload(id)).headers.get("ETag")!,
  page: async (tag, limit, cursor) => {
    const { data } = got(await api.listUploads({ tag: [tag], limit, cursor }));
    return { ids: data.data.map((one) => one.id), next: data.next_cursor };
  },
  edit: async (id, caption, tag, version) => {
    const headers = { "If-Match": version };
    return (await api.editUpload(id, { caption, tags: { add: [tag] } }, { headers })).status;
  },
  caption: async (id) => got(await api.getUpload(id)).data.caption,
  download: async (id) => {
    // What it generates for `fetch` reads every answer as JSON.
    return new Uint8Array(await (await fetch(api.getGetOriginalUrl(id))).arrayBuffer());
  },
  remove: async (id) => (await api.removeUpload(id)).status,
  restore: async (id) => (await api.restoreUpload(id)).status,
});
