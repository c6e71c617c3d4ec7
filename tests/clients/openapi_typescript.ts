import createClient from "openapi-fetch";
import type { paths } from "./generated/openapi_typescript";
import { base, walk } from "./walk";

const api = createClient<paths>({ baseUrl: base });
const ONE = "/api/uploads/{upload_id}";
const of = (upload_id: string) => ({ path: { upload_id } });

await walk({
  upload: async (file) => {
    // Its types have a string for every file.
    const { data } = await api.POST("/api/upload", {
      body: { files: [] },
      bodySerializer: () => {
        const form = new FormData();
        form.append("files", file);
        return form;
      },
    });
    return data!.data[0]!.id;
  },
  status: async (id) => (await api.GET(ONE, { params: of(id) })).data!.status,
  version: async (id) => (await api.GET(ONE, { params: of(id) })).response.headers.get("ETag")!,
  page: async (tag, limit, cursor) => {
    const { data } = await api.GET("/api/uploads", {
      params: { query: { tag: [tag], limit, cursor } },
    });
    return { ids: data!.data.map((one) => one.id), next: data!.next_cursor };
  },
  edit: async (id, caption, tag, version) => {
    const params = { ...of(id), header: { "If-Match": version } };
    const body = { caption, tags: { add: [tag] } };
    return (await api.PATCH(ONE, { params, body })).response.status;
  },
  caption: async (id) => (await api.GET(ONE, { params: of(id) })).data!.caption,
  download: async (id) => {
    const { data } = await api.GET("/api/uploads/{upload_id}/file", {
      params: of(id),
      parseAs: "arrayBuffer",
    });
    return new Uint8Array(data!);
  },
  remove: async (id) => (await api.DELETE(ONE, { params: of(id) })).response.status,
  restore: async (id) =>
    (await api.POST("/api/uploads/{upload_id}/restore", { params: of(id) })).response.status,
});
