import { client } from "./generated/hey_api/client.gen";
import * as api from "./generated/hey_api/sdk.gen";
import { base, walk } from "./walk";

client.setConfig({ baseUrl: base as never });

await walk({
  upload: async (file) =>
    (await api.uploadFiles({ body: { files: [file] }, throwOnError: true })).data.data[0]!.id,
  status: async (upload_id) =>
    (await api.getUpload({ path: { upload_id }, throwOnError: true })).data.status,
  version: async (upload_id) =>
    (await api.getUpload({ path: { upload_id } })).response!.headers.get("ETag")!,
  page: async (tag, limit, cursor) => {
    const { data } = await api.listUploads({
      query: { tag: [tag], limit, cursor },
      throwOnError: true,
    });
    return { ids: data.data.map((one) => one.id), next: data.next_cursor };
  },
  edit: async (upload_id, caption, tag, version) => {
    const body = { caption, tags: { add: [tag] } };
    const headers = { "If-Match": version };
    return (await api.editUpload({ path: { upload_id }, body, headers })).response!.status;
  },
  caption: async (upload_id) =>
    (await api.getUpload({ path: { upload_id }, throwOnError: true })).data.caption,
  download: async (upload_id) => {
    const { data } = await api.getOriginal({ path: { upload_id }, throwOnError: true });
    return new Uint8Array(await (data as Blob).arrayBuffer());
  },
  remove: async (upload_id) => (await api.removeUpload({ path: { upload_id } })).response!.status,
  restore: async (upload_id) => (await api.restoreUpload({ path: { upload_id } })).response!.status,
});
