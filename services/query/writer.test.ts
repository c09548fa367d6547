import { beforeEach, describe, expect, it } from "vitest";
import { Collections } from "./collections.ts";
import type { CollectionView } from "./core.ts";
import { FakeCore, FakeLog } from "./testing/fake-core.ts";
import { type Change, Writer } from "./writer.ts";

const TOPIC = "vexlake.0.docs";
const ATTRS = '{"kept":true}';

let core: FakeCore;
let log: FakeLog;
let collections: Collections;
let writer: Writer;
let docs: CollectionView;

beforeEach(async () => {
  core = new FakeCore();
  log = new FakeLog(core);
  const clock = (): number => Date.now();
  const ignore = (): void => undefined;
  collections = new Collections({ core, log, visibility: log, clock, onFailure: ignore, onFlip: ignore });
  const shape = { db: 0, name: "docs", dim: 1, metric: "cosine", format: "f32", partitions: 4 };
  docs = await collections.create(shape);
  writer = new Writer({ core, log, visibility: log, collections });
});

function vector(value: number): Uint8Array {
  return new Uint8Array(Float32Array.of(value).buffer);
}

function put(id: string, value: number): Change {
  return { id: Buffer.from(id), op: "put-vector", format: "f32", value: vector(value) };
}

function upsert(id: string, value: number, attrs = ATTRS): Change {
  return {
    id: Buffer.from(id),
    op: "upsert",
    format: "f32",
    value: vector(value),
    attrs: Buffer.from(attrs),
  };
}

function stored(id: string): { vector: number[]; attrs: string } | undefined {
  const row = core.stored.get(docs.incarnation)?.rows.get(id);
  return row && { vector: row.vector, attrs: row.attrs };
}

/** The next look of the writer is answered from before `change`, as when another node's record comes in between. */
function afterTheLook(change: () => void): void {
  const get = core.get.bind(core);
  core.get = async (request) => {
    core.get = get;
    const answer = await get(request);
    change();
    return answer;
  };
}

describe("put-vector", () => {
  it("should make a record where there is none, and keep attributes where there is one", async () => {
    expect(await writer.write(docs, put("a", 1))).toMatchObject({ accepted: true, existed: false });
    await writer.write(docs, upsert("a", 2));
    expect(await writer.write(docs, put("a", 3))).toMatchObject({ accepted: true, existed: true });
    expect(stored("a")).toEqual({ vector: [3], attrs: ATTRS });
    expect(log.operations(TOPIC)).toEqual(["upsert", "upsert", "set-vector"]);
  });

  it("should keep what a write of the same batch gives the key, and what one takes away", async () => {
    const changes = [upsert("a", 1), put("a", 2), upsert("b", 1), { id: Buffer.from("b"), op: "delete" }];
    const writes = [...changes, put("b", 2)].map((change) => writer.write(docs, change as Change));
    expect((await Promise.all(writes)).every(({ accepted }) => accepted)).toBe(true);
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    expect(stored("b")).toEqual({ vector: [2], attrs: "" });
    expect(log.batches).toHaveLength(1);
  });

  it("should keep what a write gives the key that is in the log and not applied yet", async () => {
    log.holding = true;
    const first = writer.write(docs, upsert("a", 1));
    await expect.poll(() => log.batches.length).toBe(1);
    const second = writer.write(docs, put("a", 2));
    await expect.poll(() => log.batches.length).toBe(2);
    log.release();
    expect((await Promise.all([first, second])).every(({ accepted }) => accepted)).toBe(true);
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
  });

  it("should keep what a write gives the key whose client was told that it is late", async () => {
    writer = new Writer({ core, log, visibility: log, collections, visibleMsMax: 200 });
    log.holding = true;
    await expect(writer.write(docs, upsert("a", 1))).rejects.toThrow("not yet visible");
    const second = writer.write(docs, put("a", 2));
    await expect.poll(() => log.batches.length).toBe(2);
    log.release();
    await second;
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    // Applied: the engine's view is asked again.
    core.stored.get(docs.incarnation)?.rows.delete("a");
    expect(await writer.write(docs, put("a", 3))).toMatchObject({ accepted: true, existed: false });
  });

  it("should make the record when it went away after the look", async () => {
    await writer.write(docs, upsert("a", 1));
    afterTheLook(() => core.stored.get(docs.incarnation)?.rows.delete("a"));
    expect(await writer.write(docs, put("a", 2))).toMatchObject({ accepted: true, existed: false });
    expect(stored("a")).toEqual({ vector: [2], attrs: "" });
    expect(log.operations(TOPIC)).toEqual(["upsert", "set-vector", "upsert"]);
  });

  it("should follow a key whose newest record moved to another partition after the look", async () => {
    await writer.write(docs, upsert("a", 1));
    const row = core.stored.get(docs.incarnation)?.rows.get("a");
    afterTheLook(() => {
      if (row) row.partition = 3;
    });
    expect(await writer.write(docs, put("a", 2))).toMatchObject({ accepted: true, existed: true });
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    expect(log.topics.get(TOPIC)?.[3]).toHaveLength(1);
  });

  it("should carry the attributes along where no patch can build on the record", async () => {
    await writer.write(docs, upsert("a", 1));
    const row = core.stored.get(docs.incarnation)?.rows.get("a");
    if (row) row.earlier = true;
    expect(await writer.write(docs, put("a", 2))).toMatchObject({ accepted: true, existed: true });
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    expect(log.operations(TOPIC)).toEqual(["upsert", "set-vector", "upsert"]);
  });

  it("should not carry old attributes over those that a write of this node is about to set", async () => {
    await writer.write(docs, upsert("a", 1, '{"old":1}'));
    const row = core.stored.get(docs.incarnation)?.rows.get("a");
    if (row) row.earlier = true;
    log.holding = true;
    const refused = writer.write(docs, put("a", 2));
    await expect.poll(() => log.batches.length).toBe(2);
    const newer = writer.write(docs, upsert("a", 3));
    await expect.poll(() => log.batches.length).toBe(3);
    log.release();
    await Promise.all([refused, newer]);
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
  });

  it("should write no patch to a compacted topic, and keep the attributes all the same", async () => {
    log.compacted = true;
    docs = { ...docs, source: { ...docs.source, compacted: true } };
    await writer.write(docs, put("a", 0));
    await writer.write(docs, upsert("a", 1));
    await writer.write(docs, put("a", 2));
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    expect(log.operations(TOPIC)).toEqual(["upsert", "upsert", "upsert"]);
  });

  it("should keep on a compacted topic what a write in flight gives the key, or takes away", async () => {
    log.compacted = true;
    docs = { ...docs, source: { ...docs.source, compacted: true } };
    await writer.write(docs, upsert("b", 1));
    const changes = [upsert("a", 1), put("a", 2), { id: Buffer.from("b"), op: "delete" }, put("b", 2)];
    const writes = changes.map((change) => writer.write(docs, change as Change));
    expect((await Promise.all(writes)).every(({ accepted }) => accepted)).toBe(true);
    expect(stored("a")).toEqual({ vector: [2], attrs: ATTRS });
    expect(stored("b")).toEqual({ vector: [2], attrs: "" });
  });

  it("should give up after some attempts, and say so", async () => {
    await writer.write(docs, upsert("a", 1));
    const get = core.get.bind(core);
    core.get = async (request) => {
      const answer = await get(request);
      return { ...answer, present: answer.present.fill(1) };
    };
    core.stored.get(docs.incarnation)?.rows.delete("a");
    await expect(writer.write(docs, put("a", 2))).rejects.toMatchObject({ code: "TRYAGAIN" });
    expect(log.operations(TOPIC)).toEqual(["upsert", ...Array.from({ length: 5 }, () => "set-vector")]);
    expect(log.waiting).toBe(0);
  });
});
