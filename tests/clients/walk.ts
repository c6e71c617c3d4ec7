// What every generated client does with a running service, whatever its calls look like.

export interface Client {
  upload(file: File): Promise<string>;
  status(id: string): Promise<string>;
  version(id: string): Promise<string>;
  page(tag: string, limit: number, cursor?: string): Promise<{ ids: string[]; next: string | null }>;
  edit(id: string, caption: string, tag: string, version: string): Promise<number>;
  caption(id: string): Promise<string | null>;
  download(id: string): Promise<Uint8Array>;
  remove(id: string): Promise<number>;
  restore(id: string): Promise<number>;
}

export const base: string = process.argv[2]!;

function same(found: unknown, expected: unknown, what: string): void {
  if (JSON.stringify(found) !== JSON.stringify(expected))
    throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
}

async function processed(client: Client, id: string): Promise<void> {
  for (const limit = Date.now() + 30_000; (await client.status(id)) === "pending"; ) {
    if (Date.now() > limit) throw new Error(`${id} is pending for too long`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function walk(client: Client): Promise<void> {
  const contents = process.argv.slice(3).map((text) => new Uint8Array(Buffer.from(text, "base64")));
  const tag = `walk ${crypto.randomUUID()}`;
  const ids: string[] = [];
  for (const [number, content] of contents.entries()) {
    const id = await client.upload(new File([content], `${number}.jpg`, { type: "image/jpeg" }));
    await processed(client, id);
    const version = await client.version(id);
    same(await client.edit(id, "a caption", tag, version), 200, "an edit with the true version");
    same(await client.edit(id, "lost", tag, version), 412, "an edit with a stale version");
    same(await client.caption(id), "a caption", "the caption");
    same([...(await client.download(id))], [...content], "the bytes");
    ids.unshift(id);
  }
  const first = await client.page(tag, 2);
  same(first.ids, ids.slice(0, 2), "the first page");
  const second = await client.page(tag, 2, first.next!);
  same([second.ids, second.next], [ids.slice(2), null], "the last page");
  same(await client.remove(ids[0]!), 204, "a removal");
  same((await client.page(tag, 2)).ids, ids.slice(1), "the page without what was removed");
  same(await client.restore(ids[0]!), 200, "a restoration");
  same((await client.page(tag, 3)).ids, ids, "the page with what was restored");
  console.log("walked");
}
