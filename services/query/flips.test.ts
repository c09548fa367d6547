import { beforeEach, describe, expect, it } from "vitest";
import { type Incarnation, isOpen, type Listing, type Unreadable } from "../common/catalog.ts";
import { VexError } from "../common/process/error.ts";
import { FLIP_MS_MAX, type Flip, Flips } from "./flips.ts";

const LEDGER = { kept: "0", superseded: "0", dead_lettered: "0", not_records: "0", lost: "0" };

interface Epoch {
  topic?: string;
  epoch: number;
  start?: number;
  /** absent: no checkpoint knows the partition */
  applied?: number;
}

/** One source of one partition an epoch, numbered as they come. */
function incarnation(id: string, epochs: Epoch[]): Incarnation {
  const sources = epochs.map(({ topic = "t", epoch }, source) => [
    source,
    { rank: 100, epoch, kind: "local" as const, cluster: "c", topic, starts: { 0: "0" } },
  ]);
  const checkpoint = { next: "0", log_time: 0, last: null, ledger: LEDGER };
  return {
    incarnation: id,
    schema: { dim: 2, metric: "l2", format: "f32" },
    sources: Object.fromEntries(sources) as Incarnation["sources"],
    version: 0,
    versionWhenMs: 0,
    records: 0,
    committedRecords: 0,
    segments: 0,
    entries: 0,
    bytes: 0,
    feedBytes: 0,
    ledger: LEDGER,
    dropped: 0,
    pins: {},
    retainFrom: 0,
    retired: false,
    partitions: epochs.flatMap(({ start = 0, applied }, source) => {
      if (applied === undefined) return [];
      const stands = { ...checkpoint, start: String(start) };
      return [{ source, partition: 0, applied: String(applied), checkpoint: stands }];
    }),
  };
}

const damaged = (id: string): Unreadable => ({ incarnation: id, code: "CORRUPT", message: "segment gone" });

let now: number;
let known: Map<string, Incarnation | Unreadable>;
let told: Flip[];
let flips: Flips;

beforeEach(() => {
  now = 0;
  known = new Map();
  told = [];
  flips = new Flips({
    visibility: { hold: (_, work) => work(), reached: async () => false },
    describe: async (id) => {
      const found = known.get(id);
      if (found !== undefined && isOpen(found)) return found;
      throw new VexError("CORRUPT", `${id}: segment gone`);
    },
    flip: () => undefined,
    clock: () => now,
    onFlip: (flip) => told.push(flip),
  });
});

/** A name that answered from the first and was promoted to the second; answers what answers now. */
function promote(name: string, from: Incarnation | Unreadable, to: Incarnation | Unreadable): string {
  for (const one of [from, to]) known.set(one.incarnation, one);
  const listing: Listing = { db: 0, name, live: to, fed: [from] };
  return flips.choose(name, listing, from.incarnation).incarnation;
}

describe("Flips", () => {
  it("should compare epochs of a log, not topics of one name", async () => {
    promote(
      "docs",
      incarnation("old", [
        { epoch: 0, applied: 1_000 },
        { epoch: 1, applied: 10 },
      ]),
      incarnation("new", [
        { epoch: 0, applied: 1_000 },
        { epoch: 1, applied: 9 },
      ]),
    );
    await flips.settle();
    expect(told).toEqual([]);
    promote(
      "docs",
      known.get("old") as Incarnation,
      incarnation("new", [
        { epoch: 1, applied: 10 },
        { epoch: 0, applied: 1_000 },
      ]),
    );
    await flips.settle();
    expect(told).toMatchObject([{ from: "old", to: "new", outcome: "caught-up" }]);
  });

  it("should not wait for an epoch that the promoted incarnation never reads", async () => {
    promote(
      "docs",
      incarnation("old", [
        { epoch: 0, applied: 1_000 },
        { epoch: 1, applied: 10 },
      ]),
      incarnation("new", [{ epoch: 1, applied: 10 }]),
    );
    await flips.settle();
    expect(told).toMatchObject([{ outcome: "caught-up" }]);
  });

  it("should take a partition that the promoted incarnation does not know as consumed to its begin", async () => {
    promote(
      "docs",
      incarnation("old", [{ epoch: 0, start: 5, applied: 5 }]),
      incarnation("new", [{ epoch: 0 }]),
    );
    await flips.settle();
    expect(told).toMatchObject([{ outcome: "caught-up" }]);
  });

  it("should answer from the predecessor while the promoted incarnation cannot be opened", async () => {
    expect(promote("docs", incarnation("old", [{ epoch: 0, applied: 1 }]), damaged("new"))).toBe("old");
    now = FLIP_MS_MAX;
    expect(String(await flips.settle())).toContain("new: segment gone");
    expect([told, flips.waiting]).toEqual([[], 1]);
  });

  it("should leave a predecessor that cannot be opened any more", () => {
    const to = incarnation("new", [{ epoch: 0, applied: 0 }]);
    promote("docs", incarnation("old", [{ epoch: 0, applied: 1 }]), to);
    expect(promote("docs", damaged("old"), to)).toBe("new");
    expect(told).toMatchObject([{ outcome: "gone" }]);
  });

  it("should move the other names beside one that cannot", async () => {
    promote("a", incarnation("a-old", [{ epoch: 0, applied: 1 }]), damaged("a-new"));
    promote(
      "b",
      incarnation("b-old", [{ epoch: 0, applied: 1 }]),
      incarnation("b-new", [{ epoch: 0, applied: 1 }]),
    );
    expect(await flips.settle()).toHaveLength(1);
    expect(told).toMatchObject([{ collection: "b", outcome: "caught-up" }]);
  });
});
