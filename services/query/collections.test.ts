import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Collections } from "./collections.ts";
import { FakeCore, FakeLog, failure } from "./testing/fake-core.ts";

let core: FakeCore;
let log: FakeLog;
let now: number;
let failures: unknown[];
let collections: Collections;

beforeEach(() => {
  core = new FakeCore();
  log = new FakeLog(core);
  now = 0;
  failures = [];
  collections = new Collections({
    core,
    log,
    visibility: log,
    clock: () => now,
    onFailure: (error) => failures.push(error),
    followMs: 1,
  });
});

afterEach(async () => {
  await collections.close();
});

const SHAPE = { dim: 2, metric: "cosine", partitions: 1, format: "f32" };

/** As another node would: behind this router's back. */
async function createElsewhere(name: string): Promise<void> {
  await log.ensureTopic(`vexlake.0.${name}`, 1);
  const source = { kind: "local", cluster: "test", topic: `vexlake.0.${name}`, starts: { 0: "0" } } as const;
  await core.alter({ op: "create", db: 0, name, dim: 3, metric: "l2", format: "f32", source });
}

describe("Collections", () => {
  it("should look an unknown name up once more, but not at every miss", async () => {
    await collections.list();
    await createElsewhere("docs");
    expect(await collections.find(0, "docs")).toBeUndefined();
    now += 1_000;
    expect(await collections.find(0, "docs")).toMatchObject({ dim: 3, metric: "l2" });
    expect(collections.find(0, "docs")).toMatchObject({ dim: 3 });
    expect(await collections.find(1, "docs")).toBeUndefined();
  });

  it("should create a collection once when many ask at the same time", async () => {
    await collections.list();
    const wanted = { db: 0, name: "docs", ...SHAPE };
    const views = await Promise.all(Array.from({ length: 10 }, () => collections.findOrCreate(wanted)));
    expect(new Set(views.map((view) => view.incarnation)).size).toBe(1);
    expect(core.stored.size).toBe(1);
  });

  it("should take the other node's collection when that one was faster", async () => {
    await collections.list();
    await createElsewhere("docs");
    expect(await collections.findOrCreate({ db: 0, name: "docs", ...SHAPE })).toMatchObject({ dim: 3 });
  });

  it("should answer a listing that began after the question", async () => {
    const running = collections.list();
    await createElsewhere("docs");
    await collections.list();
    await running;
    expect(collections.known(0, "docs")).toBeDefined();
  });

  it("should begin a cleared collection at the end of its topic, under a new incarnation", async () => {
    const before = await collections.findOrCreate({ db: 0, name: "docs", ...SHAPE });
    await collections.clear(before);
    const after = collections.known(0, "docs");
    expect(after?.incarnation).not.toBe(before.incarnation);
    expect(log.followed).toContain(after?.incarnation);
  });

  it("should go on following the others when one incarnation fails", async () => {
    await createElsewhere("a");
    await createElsewhere("b");
    await collections.start();
    const [a, b] = collections.all().map((view) => view.incarnation) as [string, string];
    log.follow = async (incarnation) => {
      if (incarnation === a) throw failure("UNAVAILABLE", "store away");
      log.followed.push(incarnation);
    };
    await createElsewhere("c");
    await expect.poll(() => collections.known(0, "c")).toBeDefined();
    expect(log.followed).toContain(b);
    expect(String(failures[0])).toContain("store away");
    expect(String(collections.failure)).toContain("store away");
  });

  it("should not call a collection that was dropped meanwhile a failure", async () => {
    await createElsewhere("a");
    await collections.start();
    log.follow = async () => {
      throw failure("NOT_FOUND", "no such incarnation");
    };
    core.stored.clear();
    await expect.poll(() => collections.all()).toEqual([]);
    expect(failures).toEqual([]);
  });

  it("should serve the others beside a collection that cannot be opened, and answer its error", async () => {
    await createElsewhere("a");
    await createElsewhere("b");
    core.damaged.add("a");
    await collections.start();
    expect(collections.all().map(({ name }) => name)).toEqual(["b"]);
    const wanted = { db: 0, name: "a", ...SHAPE };
    expect(() => collections.find(0, "a")).toThrow("segment gone");
    now += 1_000;
    await expect(collections.find(0, "a")).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(collections.findOrCreate(wanted)).rejects.toMatchObject({ code: "CORRUPT" });
    await expect(collections.create(wanted)).rejects.toMatchObject({ code: "CORRUPT" });
    await expect.poll(() => String(failures[0])).toContain("segment gone");
    core.damaged.clear();
    await expect.poll(() => collections.known(0, "a")).toBeDefined();
  });

  it("should refuse a dimension before anything of that size is made", async () => {
    await expect(collections.create({ db: 0, name: "docs", ...SHAPE, dim: 65_537 })).rejects.toThrow(
      "vector has 65537 dimensions, a collection has 1 to 65536",
    );
    expect(log.topics.size).toBe(0);
  });
});
