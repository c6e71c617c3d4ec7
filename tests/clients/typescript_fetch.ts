import { Configuration, FilesApi, ResponseError, UploadsApi } from "./generated/typescript_fetch";
import { base, walk } from "./walk";

const configuration = new Configuration({ basePath: base });
const api = new UploadsApi(configuration);

async function status(call: Promise<{ raw: Response }>): Promise<number> {
  try {
    return (await call).raw.status;
  } catch (error) {
    if (error instanceof ResponseError) return error.response.status;
    throw error;
  }
}

await walk({
  upload: async (file) => (await api.uploadFiles({ files: [file] })).data[0]!.id,
  status: async (uploadId) => (await api.getUpload({ uploadId })).status,
  version: async (uploadId) => (await api.getUploadRaw({ uploadId })).raw.headers.get("ETag")!,
  page: async (tag, limit, cursor) => {
    const page = await api.listUploads({ tag: [tag], limit, cursor });
    return { ids: page.data.map((one) => one.id), next: page.nextCursor };
  },
  edit: (uploadId, caption, tag, ifMatch) =>
    status(api.editUploadRaw({ uploadId, ifMatch, edit: { caption, tags: { add: [tag] } } })),
  caption: async (uploadId) => (await api.getUpload({ uploadId })).caption,
  download: async (uploadId) =>
    new Uint8Array(await (await new FilesApi(configuration).getOriginal({ uploadId })).arrayBuffer()),
  remove: (uploadId) => status(api.removeUploadRaw({ uploadId })),
  restore: (uploadId) => status(api.restoreUploadRaw({ uploadId })),
});
