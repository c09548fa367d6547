/*
 * How a reader follows a promotion: real engine, real log, the feeds and the router of a query node. The only
 * thing put in between is a gate before the engine's append, by incarnation, so that one of two tails lags for
 * as long as a test wants.
 */
import { join } from "node:path";
import { Lake } from "@vexlake/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createCollection, sourceFrom } from "../../services/common/catalog.ts";
import { Feeds } from "../../services/common/feed/feeds.ts";
import { MemoryBudget } from "../../services/common/feed/memory.ts";
import { LocalSource } from "../../services/common/log/local/source.ts";
import { topicFor } from "../../services/common/log/topic.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { Collections } from "../../services/query/collections.ts";
import { FLIP_MS_MAX, type Flip } from "../../services/query/flips.ts";
import { Writer } from "../../services/query/writer.ts";
import { floatBytes } from "../harness/records.ts";
import { temporaryFolder } from "../harness/services.ts";

const TOPIC = topicFor(0, "docs");
const VECTOR = floatBytes(Float32Array.of(1, 0));

let folder: ReturnType<typeof temporaryFolder>;
let lake: Lake;
let log: LocalSource;
let feeds: Feeds;
let collections: Collections;
let flips: Flip[];
let failures: unknown[];
/** Tries to flip. */
let holds: number;
let nowMs: number;
/** What an append of an incarnation waits for. */
let gates: Map<string, () => Promise<void>>;
let openers: (() => void)[];
let produced: number;
let original: string;
let replay: string;

beforeEach(async () => {
  folder = temporaryFolder();
  flips = [];
  failures = [];
  holds = 0;
  nowMs = 0;
  produced = 0;
  gates = new Map();
  openers = [];
  const logger = silentLogger();
  const store = { url: join(folder.path, "lake") };
  const spoolDir = join(folder.path, "spool");
  lake = await Lake.open({ store, role: "query", instance: "test", spoolDir });
  log = new LocalSource({ directory: join(folder.path, "log"), logger });
  await log.start();
  const shape = { db: 0, name: "docs", dim: 2, metric: "l2", partitions: 2, format: "f32" };
  original = await createCollection(lake, log, { ...shape, from: { at: "earliest" } });
  const source = await sourceFrom(log, TOPIC, { at: "earliest" });
  const begun = await lake.alter({ op: "replay-start", db: 0, name: "docs", source });
  replay = (JSON.parse(begun) as { incarnation: string }).incarnation;
  feeds = new Feeds({
    lake: gated(lake),
    log,
    logger,
    budget: new MemoryBudget(1 << 26),
    assignment: () => ({ kind: "all" }),
  });
  const hold = feeds.hold.bind(feeds);
  feeds.hold = (incarnation, work) => {
    holds += 1;
    return hold(incarnation, work);
  };
  collections = new Collections({
    core: lake,
    log,
    visibility: feeds,
    clock: () => nowMs,
    onFailure: (error) => failures.push(error),
    onFlip: (flip) => flips.push(flip),
    followMs: 1,
  });
});

afterEach(async () => {
  // A feed closes when its append has ended.
  for (const open of openers) open();
  await collections.close();
  await feeds.close();
  await log.close();
  await lake.close();
  folder.remove();
  expect(failures).toEqual([]);
});

function gated(core: Lake): Lake {
  return new Proxy(core, {
    get(target, property) {
      if (property === "append") {
        return async (batch: Parameters<Lake["append"]>[0]) => {
          await gates.get(batch.incarnation)?.();
          return await target.append(batch);
        };
      }
      const value = Reflect.get(target, property) as unknown;
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** Shuts the gate of an incarnation; answers what opens it. */
function shut(incarnation: string): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  gates.set(incarnation, () => promise);
  openers.push(resolve);
  return resolve;
}

async function start(): Promise<void> {
  await feeds.start();
  await feeds.started();
  await collections.start();
}

async function produce(count: number): Promise<void> {
  const records = Array.from({ length: count }, (_, i) => ({
    key: Buffer.from(`k${produced + i}`),
    value: VECTOR,
    partition: (produced + i) % 2,
  }));
  await log.produce(TOPIC, records);
  produced += count;
}

/** How many of the first `produced` keys an incarnation shows. */
async function shown(incarnation: string): Promise<number> {
  const ids = Array.from({ length: produced }, (_, i) => Buffer.from(`k${i}`));
  const { present } = await lake.get({ incarnation, ids, want: "exists", scope: "fresh" });
  return present.reduce((sum, one) => sum + one, 0);
}

const answering = (): string => collections.known(0, "docs")?.incarnation ?? "";

describe("following a promotion", () => {
  it("should answer from the predecessor until the promoted incarnation shows as much", async () => {
    const open = shut(replay);
    await start();
    await produce(20);
    await expect.poll(() => shown(original)).toBe(20);
    await lake.alter({ op: "promote", db: 0, name: "docs" });
    // Some rounds in which it would have moved.
    await expect.poll(() => holds).toBeGreaterThan(2);
    expect([answering(), await shown(answering())]).toEqual([original, 20]);
    expect(collections.flipping).toBe(1);
    open();
    await expect.poll(answering).toBe(replay);
    expect(await shown(replay)).toBe(20);
    expect(flips).toMatchObject([{ from: original, to: replay, outcome: "caught-up" }]);
    expect(collections.flipping).toBe(0);
  });

  it("should never go back while records keep coming and names move to and fro", async () => {
    // Each tail lags by its own time: one of both is always behind.
    const lag = (ms: number) => () => new Promise<void>((resolve) => setTimeout(resolve, ms));
    gates.set(original, lag(5)).set(replay, lag(20));
    await start();
    let stop = false;
    const writer = (async () => {
      while (!stop) {
        await produce(2);
        await lag(3)();
      }
    })();
    const wentBack: [before: number, after: number][] = [];
    const reader = (async () => {
      for (let before = 0; !stop; ) {
        const now = await shown(answering());
        if (now < before) wentBack.push([before, now]);
        before = now;
      }
    })();
    for (const [round, target] of [replay, original, replay, original].entries()) {
      await expect.poll(() => produced).toBeGreaterThan(20 * (round + 1));
      await lake.alter({ op: "promote", db: 0, name: "docs", incarnation: target });
      await expect.poll(answering, { timeout: 20_000 }).toBe(target);
    }
    stop = true;
    await Promise.all([writer, reader]);
    expect(wentBack).toEqual([]);
    expect(flips.map(({ outcome }) => outcome)).toEqual(Array(4).fill("caught-up"));
  });

  it("should show nothing new of an incarnation while it is held", async () => {
    await start();
    await produce(2);
    await expect.poll(async () => [await shown(original), await shown(replay)]).toEqual([2, 2]);
    await feeds.hold(original, async () => {
      await produce(2);
      await expect.poll(() => shown(replay)).toBe(4);
      expect(await shown(original)).toBe(2);
    });
    await expect.poll(() => shown(original)).toBe(4);
  });

  it("should follow at the deadline, and say so, where the promoted incarnation stays behind", async () => {
    shut(replay);
    await start();
    await produce(4);
    await expect.poll(() => shown(original)).toBe(4);
    await lake.alter({ op: "promote", db: 0, name: "docs" });
    await expect.poll(() => holds).toBeGreaterThan(0);
    nowMs = FLIP_MS_MAX;
    await expect.poll(answering).toBe(replay);
    expect(flips).toMatchObject([{ outcome: "late", waitedMs: FLIP_MS_MAX }]);
  });

  it("should stay where it is when the promotion is taken back meanwhile", async () => {
    const open = shut(replay);
    await start();
    await produce(4);
    await expect.poll(() => shown(original)).toBe(4);
    await lake.alter({ op: "promote", db: 0, name: "docs" });
    await expect.poll(() => collections.flipping).toBe(1);
    await lake.alter({ op: "rollback", db: 0, name: "docs" });
    await expect.poll(() => collections.flipping).toBe(0);
    open();
    await expect.poll(() => shown(replay)).toBe(4);
    expect([answering(), flips]).toEqual([original, []]);
  });

  it("should leave a predecessor at once that is retired meanwhile", async () => {
    shut(replay);
    await start();
    await produce(4);
    await expect.poll(() => shown(original)).toBe(4);
    await lake.alter({ op: "promote", db: 0, name: "docs" });
    await expect.poll(() => collections.flipping).toBe(1);
    await lake.alter({ op: "replay-retire", db: 0, name: "docs", incarnation: original });
    await expect.poll(answering).toBe(replay);
    expect(flips).toMatchObject([{ from: original, to: replay, outcome: "gone" }]);
  });

  it("should acknowledge a write only where its reader looks next", async () => {
    const openReplay = shut(replay);
    await start();
    await produce(1);
    await expect.poll(() => shown(original)).toBe(1);
    const openOriginal = shut(original);
    await lake.alter({ op: "promote", db: 0, name: "docs" });
    await expect.poll(() => collections.flipping).toBe(1);
    const view = collections.known(0, "docs");
    if (view === undefined) throw new Error("no such collection");
    const writer = new Writer({ core: lake, log, visibility: feeds, collections });
    const change = { id: Buffer.from("k1"), op: "upsert", format: "f32", value: VECTOR } as const;
    let acknowledged = false;
    const write = writer.write(view, change).then(() => {
      acknowledged = true;
    });
    produced += 1;
    // Both tails wait at their gates; the name moves at the deadline.
    nowMs = FLIP_MS_MAX;
    await expect.poll(answering).toBe(replay);
    openOriginal();
    await expect.poll(() => shown(original)).toBe(2);
    expect(acknowledged).toBe(false);
    openReplay();
    await write;
    expect(await shown(replay)).toBe(2);
  });
});
