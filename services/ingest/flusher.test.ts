/**
 * When a flusher flushes, against a lake that counts: the real one is under test/e2e. Clocks are vitest's.
 */
import type { AppendResult, FlushResult, Lake } from "@vexlake/core";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Feed } from "../common/feed/feed.ts";
import type { FeedTarget } from "../common/feed/feeds.ts";
import { MemoryBudget } from "../common/feed/memory.ts";
import { silentLogger } from "../common/process/logger.ts";
import { Flusher } from "./flusher.ts";
import { IngestMetrics } from "./metrics.ts";

const SEAL_AGE_MS = 1_000;
const HOUR_MS = 3_600_000;

describe("flusher", () => {
  let budget: MemoryBudget;
  let flushed: string[];
  let away: boolean;
  let flushers: Flusher[];
  let metrics: IngestMetrics;

  beforeEach(() => {
    vi.useFakeTimers();
    budget = new MemoryBudget(1_000);
    flushed = [];
    away = false;
    flushers = [];
    metrics = new IngestMetrics(new Registry());
  });
  afterEach(async () => {
    away = false;
    for (const flusher of flushers) await flusher.close();
    vi.useRealTimers();
  });

  const lake = {
    alter: async () => "{}",
    flush: async (incarnation: string) => {
      flushed.push(incarnation);
      if (away) throw Object.assign(new Error("the store is away"), { code: "UNAVAILABLE" });
      const held = budget.held(incarnation);
      return {
        version: 1,
        commits: held > 0 ? 1 : 0,
        memtableBytes: 0,
        ranges: [],
        lost: [],
      } as unknown as FlushResult;
    },
  } as unknown as Lake;
  const feed = { settled: (work: () => unknown) => work(), report: async () => {} } as unknown as Feed;

  function flusher(incarnation: string, over: { sealBytes?: number; sealAgeMs?: number } = {}): Flusher {
    const target = { name: incarnation, incarnation } as FeedTarget;
    const rest = { lake, feed, budget, metrics, logger: silentLogger() };
    const made = new Flusher({ ...rest, target, sealBytes: 500, sealAgeMs: SEAL_AGE_MS, ...over });
    flushers.push(made);
    return made;
  }
  function append(to: Flusher, incarnation: string, bytes: number): void {
    budget.set(incarnation, budget.held(incarnation) + bytes);
    to.appended({ accepted: 1, bad: [] as unknown[] } as AppendResult);
  }

  it("should_flush_at_bytes_and_at_age", async () => {
    const one = flusher("a");
    append(one, "a", 499);
    await vi.advanceTimersByTimeAsync(SEAL_AGE_MS - 1);
    expect(flushed).toEqual([]);
    append(one, "a", 1);
    await vi.advanceTimersByTimeAsync(0);
    expect(flushed).toEqual(["a"]);
    append(one, "a", 1);
    await vi.advanceTimersByTimeAsync(SEAL_AGE_MS);
    expect(flushed).toEqual(["a", "a"]);
  });

  it("should_try_a_failed_flush_again_with_growing_waits_however_much_is_appended", async () => {
    const one = flusher("a");
    away = true;
    for (let passed = 0; passed < 60; passed++) {
      append(one, "a", 1);
      await vi.advanceTimersByTimeAsync(SEAL_AGE_MS);
    }
    // 200 ms doubling to 10 s: 6 tries in the first 12.6 s, then one in 10 s.
    expect(flushed.length).toBeGreaterThan(5);
    expect(flushed.length).toBeLessThanOrEqual(12);
    away = false;
    await vi.advanceTimersByTimeAsync(10_000);
    const settled = flushed.length;
    expect(budget.held("a")).toBe(0);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(flushed).toHaveLength(settled);
  });

  it("should_flush_the_large_feeds_over_the_budget_whoever_crossed_it", async () => {
    const held: Record<string, number> = { a: 400, b: 400, c: 10, d: 195 };
    const all = Object.keys(held).map((name) => [name, flusher(name, { sealAgeMs: HOUR_MS })] as const);
    for (const [name, one] of all) append(one, name, held[name] as number);
    expect(budget.over).toBe(true);
    await vi.advanceTimersByTimeAsync(0);
    expect(flushed.sort()).toEqual(["a", "b", "d"]);
    expect([budget.over, budget.bytes]).toEqual([false, 10]);
  });

  it("should_try_again_by_itself_what_a_request_could_not_flush", async () => {
    const one = flusher("a", { sealAgeMs: HOUR_MS });
    append(one, "a", 10);
    away = true;
    await expect(one.flush()).rejects.toThrow("the store is away");
    away = false;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(budget.held("a")).toBe(0);
  });
});
