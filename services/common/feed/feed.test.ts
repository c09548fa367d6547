/**
 * The feed between the local log (real) and a core that records what it is told. The core itself is
 * tested in Rust; the pair of both in test/e2e.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fingerprintOf } from "../log/fingerprint.ts";
import { LocalSource } from "../log/local/source.ts";
import type { ConsumerHandlers, LogRecord, ProducedMessage, StoppedState } from "../log/source.ts";
import { VexError } from "../process/error.ts";
import { silentLogger } from "../process/logger.ts";
import { Feed, type FeedOptions } from "./feed.ts";
import type { BadRecord } from "./letters.ts";
import { MemoryBudget } from "./memory.ts";
import { RecordingCore } from "./testing/recording-core.ts";

const TOPIC = "vexlake.0.docs";
const INCARNATION = "01JZZZZZZZZZZZZZZZZZZZZZZZ";
const DEADLINE_MS = 10_000;

describe("feed", () => {
  let directory = "";
  let source: LocalSource;
  let core: RecordingCore;
  let budget: MemoryBudget;
  let feeds: Feed[] = [];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "vexlake-feed-"));
    source = new LocalSource({ directory, logger: silentLogger() });
    await source.start();
    await source.ensureTopic(TOPIC, 2);
    core = new RecordingCore(2);
    budget = new MemoryBudget(1_000);
  });
  afterEach(async () => {
    for (const feed of feeds) await feed.close();
    feeds = [];
    await source.close();
    await rm(directory, { recursive: true, force: true });
  });

  async function started(over: Partial<FeedOptions> = {}): Promise<Feed> {
    const feed = new Feed({
      source,
      core,
      logger: silentLogger(),
      incarnation: INCARNATION,
      topic: TOPIC,
      sourceId: 0,
      assignment: { kind: "all" },
      collection: "0/docs",
      budget,
      ...over,
    });
    feeds.push(feed);
    await feed.start();
    return feed;
  }
  const keyed = (partition: number, ...keys: string[]): ProducedMessage[] =>
    keys.map((key) => ({ partition, key: Buffer.from(key), value: Buffer.from("v") }));
  /** The probe answers at once: a promise would count as true. */
  async function until(probe: () => boolean): Promise<void> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!probe()) {
      if (performance.now() > deadline) throw new Error(`not within ${DEADLINE_MS} ms: ${probe}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  async function recordAt(partition: number, offset: bigint): Promise<LogRecord> {
    let found: LogRecord | undefined;
    await source.read(TOPIC, partition, offset, offset + 1n, ({ records }) => {
      found = records[0];
    });
    return found as LogRecord;
  }

  it("should_append_every_record_from_where_the_core_stands", async () => {
    await source.produce(TOPIC, [...keyed(0, "a", "b", "c"), ...keyed(1, "x", "y")]);
    core.partitions.set(0, { applied: 2n, next: 1n, last: null });
    const feed = await started({ format: "json", badRecord: "skip" });
    expect(
      await feed.reached(
        new Map([
          [0, 3n],
          [1, 2n],
        ]),
        DEADLINE_MS,
      ),
    ).toBe(true);
    expect([core.keys(0), core.keys(1)]).toEqual([["c"], ["x", "y"]]);
    expect(core.appended[0]).toMatchObject({
      incarnation: INCARNATION,
      source: 0,
      format: "json",
      badRecord: "skip",
    });
    expect(feed.applied()).toEqual(
      new Map([
        [0, 3n],
        [1, 2n],
      ]),
    );
    expect(feed.lag()).toEqual(
      new Map([
        [0, 0n],
        [1, 0n],
      ]),
    );
    expect(feed.totals).toMatchObject({ accepted: 3, bad: 0 });
    expect([feed.away, feed.refusal(), feed.stopped()]).toEqual([null, undefined, []]);
  });

  it("should_wait_for_an_offset_until_the_deadline_and_no_longer", async () => {
    const feed = await started();
    expect(await feed.waitFor(0, 0n, 0)).toBe(true);
    expect(await feed.waitFor(0, 1n, 1)).toBe(false);
    const waits = [feed.waitFor(0, 2n, DEADLINE_MS), feed.waitFor(0, 1n, DEADLINE_MS)];
    await source.produce(TOPIC, keyed(0, "a", "b"));
    expect(await Promise.all(waits)).toEqual([true, true]);
    const open = feed.waitFor(1, 9n, DEADLINE_MS);
    await feed.close();
    expect(await open).toBe(false);
  });

  it("should_tell_a_writer_the_verdict_on_its_write", async () => {
    core.script = ({ from }) => ({
      bad: [{ offset: from + 1n, reason: "bad-dimension", message: "vector has 3 numbers, not 4" }],
      acks: [
        { write: "w1", offset: from, existed: true, accepted: true },
        {
          write: "w2",
          offset: from + 1n,
          existed: false,
          accepted: false,
          message: "vector has 3 numbers, not 4",
        },
        { write: "nobody", offset: from, existed: false, accepted: true },
      ],
    });
    const feed = await started();
    const verdicts = [feed.acknowledged("w1"), feed.acknowledged("w2")];
    const forgotten = feed.acknowledged("w3");
    feed.forget("w3");
    await source.produce(TOPIC, keyed(0, "a", "b"));
    expect(await Promise.all(verdicts)).toEqual([
      { offset: 0n, existed: true, accepted: true },
      {
        offset: 1n,
        existed: false,
        accepted: false,
        reason: "bad-dimension",
        message: "vector has 3 numbers, not 4",
      },
    ]);
    expect(feed.acknowledged("w3")).not.toBe(forgotten);
  });

  it("should_hand_bad_records_over_as_they_came_before_the_next_batch_of_the_partition", async () => {
    core.script = ({ from }) =>
      from === 0n ? { accepted: 1, bad: [{ offset: 1n, reason: "bad-dimension", message: "3 not 4" }] } : {};
    const { promise: safe, resolve: release } = Promise.withResolvers<void>();
    const handed: BadRecord[] = [];
    const delivered: number[] = [];
    const log = Object.create(source) as LocalSource;
    log.consume = async (options, handlers) =>
      await source.consume(options, {
        ...handlers,
        batch: async (batch) => {
          delivered.push(batch.partition);
          await handlers.batch(batch);
        },
      });
    const feed = await started({
      source: log,
      onBad: async (bad) => {
        handed.push(...bad);
        await safe;
      },
    });
    await source.produce(TOPIC, keyed(0, "a", "b"));
    await until(() => handed.length === 1);
    expect(handed[0]).toMatchObject({ partition: 0, reason: "bad-dimension", message: "3 not 4" });
    expect(String(handed[0]?.record.key)).toBe("b");
    // Readers see the batch already; a seal has to wait for its dead letters.
    expect(await feed.waitFor(0, 2n, DEADLINE_MS)).toBe(true);
    let sealed = false;
    const seal = feed.settled(async () => {
      sealed = true;
    });
    await source.produce(TOPIC, [...keyed(0, "c"), ...keyed(1, "x")]);
    // No append passes a seal that waits, not of another partition either.
    await until(() => delivered.includes(1));
    expect([sealed, core.keys(0), core.keys(1)]).toEqual([false, ["a", "b"], []]);
    release();
    await seal;
    expect(
      await feed.reached(
        new Map([
          [0, 3n],
          [1, 1n],
        ]),
        DEADLINE_MS,
      ),
    ).toBe(true);
    expect(core.keys(0)).toEqual(["a", "b", "c"]);
  });

  it("should_stop_before_a_bad_record_when_told_to_fail", async () => {
    core.script = () => ({
      next: 1n,
      failedAt: 1n,
      bad: [{ offset: 1n, reason: "not-finite", message: "number 2 is NaN" }],
    });
    const states: (StoppedState | null)[] = [];
    const handed: BadRecord[] = [];
    const feed = await started({
      badRecord: "fail",
      onBad: async (bad) => void handed.push(...bad),
      onStopped: (_, state) => states.push(state),
    });
    await source.produce(TOPIC, keyed(0, "a", "b", "c"));
    await until(() => states.length > 0);
    expect(states[0]).toMatchObject({ partition: 0, reason: "bad-record" });
    expect(states[0]?.message).toContain("offset 1: not-finite: number 2 is NaN");
    expect(states[0]?.accept).toBe("vexlake source accept 0/docs --partition 0");
    expect([feed.applied().get(0), feed.refusal(), handed]).toEqual([1n, states[0]?.message, []]);
    core.script = () => ({});
    await feed.reclaim([0]);
    expect(await feed.waitFor(0, 3n, DEADLINE_MS)).toBe(true);
    await until(() => feed.stopped().length === 0);
    expect(states.at(-1)).toBeNull();
  });

  it("should_stop_a_partition_whose_topic_was_made_anew_and_go_on_when_the_record_is_the_same", async () => {
    await source.produce(TOPIC, [...keyed(0, "a", "b"), ...keyed(1, "x", "y")]);
    const same = fingerprintOf(await recordAt(0, 1n));
    const last = { ...same, offset: String(same.offset) };
    core.partitions.set(0, { applied: 2n, next: 2n, last });
    core.partitions.set(1, { applied: 2n, next: 2n, last });
    const feed = await started();
    await source.produce(TOPIC, [...keyed(0, "c"), ...keyed(1, "z")]);
    expect(await feed.waitFor(0, 3n, DEADLINE_MS)).toBe(true);
    expect(core.keys(0)).toEqual(["c"]);
    expect(feed.stopped()).toMatchObject([
      { partition: 1, reason: "topic-recreated", lost: { from: 2n, to: 2n } },
    ]);
    expect(core.keys(1)).toEqual([]);
  });

  it("should_name_a_log_that_ends_early_and_a_partition_that_no_checkpoint_knows", async () => {
    await source.produce(TOPIC, [...keyed(0, "a"), ...keyed(1, "x")]);
    core.partitions.set(0, { applied: 7n, next: 7n, last: null });
    core.partitions.delete(1);
    const feed = await started();
    await until(() => feed.stopped().length === 2);
    expect(feed.stopped()).toMatchObject([
      { partition: 0, reason: "beyond-end", lost: { from: 1n, to: 7n } },
      { partition: 1, reason: "partitions-added", lost: { from: 0n, to: 1n } },
    ]);
    expect(core.appended).toEqual([]);
  });

  it("should_stop_as_fenced_when_the_incarnation_is_retired", async () => {
    core.retired = true;
    const feed = await started();
    await until(() => feed.stopped().length === 2);
    expect(feed.stopped().map(({ reason }) => reason)).toEqual(["fenced", "fenced"]);
  });

  it("should_pause_over_the_budget_and_resume_below_it", async () => {
    core.memtableBytes = 1_500;
    const feed = await started();
    await source.produce(TOPIC, keyed(0, "a"));
    expect(await feed.waitFor(0, 1n, DEADLINE_MS)).toBe(true);
    expect([budget.bytes, budget.over]).toEqual([1_500, true]);
    await source.produce(TOPIC, [...keyed(0, "b"), ...keyed(1, "x")]);
    await until(() => feed.lag().get(0) === 1n && feed.lag().get(1) === 1n);
    expect(core.appended).toHaveLength(1);
    budget.set(INCARNATION, 950);
    expect(budget.over).toBe(true);
    core.memtableBytes = 100;
    budget.set(INCARNATION, 100);
    expect(
      await feed.reached(
        new Map([
          [0, 2n],
          [1, 1n],
        ]),
        DEADLINE_MS,
      ),
    ).toBe(true);
    await feed.close();
    expect(budget.bytes).toBe(0);
  });

  it("should_try_an_append_again_that_fails_for_now_and_stop_at_one_that_fails_for_good", async () => {
    let tries = 0;
    core.script = ({ partition }) => {
      if (partition === 1) throw new VexError("INVALID", "source 0 has no partition 1");
      tries += 1;
      if (tries < 3) throw Object.assign(new Error("store is away"), { code: "UNAVAILABLE" });
      return {};
    };
    const feed = await started();
    await source.produce(TOPIC, [...keyed(0, "a"), ...keyed(1, "x")]);
    expect(await feed.waitFor(0, 1n, DEADLINE_MS)).toBe(true);
    expect([tries, core.keys(0)]).toEqual([3, ["a"]]);
    await until(() => feed.stopped().length === 1);
    expect(feed.stopped()).toMatchObject([{ partition: 1, reason: "failed" }]);
  });

  it("should_go_where_the_core_stands_when_they_disagree", async () => {
    await source.produce(TOPIC, keyed(0, "a", "b", "c"));
    core.partitions.set(0, { applied: 2n, next: 0n, last: null });
    const feed = await started();
    expect(await feed.waitFor(0, 3n, DEADLINE_MS)).toBe(true);
    // A lost race: another process committed, this core dropped what it had of the partition.
    core.partitions.set(0, { applied: 1n, next: 1n, last: null });
    core.appended.length = 0;
    await source.produce(TOPIC, keyed(0, "d"));
    await until(() => core.keys(0).includes("d"));
    expect(core.keys(0)).toEqual(["b", "c", "d"]);
  });

  it("should_seek_forward_when_a_snapshot_covers_more_than_was_fed", async () => {
    budget.set("another", 5_000);
    const feed = await started();
    await source.produce(TOPIC, keyed(0, "a", "b", "c"));
    const waiting = feed.waitFor(0, 2n, DEADLINE_MS);
    core.partitions.set(0, { applied: 2n, next: 2n, last: null });
    await feed.follow();
    expect(await waiting).toBe(true);
    budget.remove("another");
    expect(await feed.waitFor(0, 3n, DEADLINE_MS)).toBe(true);
    expect(core.keys(0)).toEqual(["c"]);
  });

  it("should_name_a_topic_that_is_not_there_and_consume_it_once_it_is", async () => {
    const feed = await started({ topic: "vexlake.0.none" });
    expect(feed.stopped()).toMatchObject([{ reason: "topic-missing" }]);
    expect(feed.refusal()).toContain("no topic vexlake.0.none");
    await source.ensureTopic("vexlake.0.none", 1);
    await source.produce("vexlake.0.none", keyed(0, "a"));
    expect(await feed.waitFor(0, 1n, DEADLINE_MS)).toBe(true);
    expect(feed.stopped()).toEqual([]);
  });

  it("should_make_a_new_consumer_when_one_has_ended_and_say_so_meanwhile", async () => {
    const lives: ConsumerHandlers[] = [];
    const log = Object.create(source) as LocalSource;
    let refused = 0;
    log.consume = async (options, handlers) => {
      if (lives.length === 1 && refused++ < 2) throw new VexError("INVALID", "not authorised");
      lives.push(handlers);
      return await source.consume(options, handlers);
    };
    const feed = await started({ source: log });
    await source.produce(TOPIC, keyed(0, "a"));
    expect(await feed.waitFor(0, 1n, DEADLINE_MS)).toBe(true);
    const crash = { reason: "crashed", message: "a batch does not decode", accept: "" } as const;
    lives[0]?.stopped(crash);
    await source.produce(TOPIC, keyed(0, "b"));
    expect(feed.stopped()).toMatchObject([
      { partition: 0, reason: "crashed" },
      { partition: 1, reason: "crashed" },
    ]);
    // What a look at the stopped partitions must not do: call a dead consumer well.
    await feed.retryStopped();
    expect(feed.refusal()).toBe(crash.message);
    expect(await feed.waitFor(0, 2n, DEADLINE_MS)).toBe(true);
    await until(() => feed.stopped().length === 0);
    expect([lives.length, core.keys(0)]).toEqual([2, ["a", "b"]]);
  });

  it("should_hold_back_seal_and_partition_while_a_dead_letter_cannot_be_sent", async () => {
    core.script = ({ partition, from }) =>
      partition === 0 && from < 2n
        ? { bad: [{ offset: 1n, reason: "bad-dimension", message: "3 not 4" }] }
        : {};
    let refusing = true;
    const sent: string[] = [];
    const feed = await started({
      onBad: async (bad) => {
        if (refusing) throw new VexError("INVALID", "not authorised to write to the topic");
        sent.push(...bad.map(({ record }) => String(record.key)));
      },
    });
    await source.produce(TOPIC, keyed(0, "a", "b"));
    await until(() => feed.stopped().length === 1);
    await source.produce(TOPIC, keyed(0, "c"));
    let sealed = 0;
    const seal = async () => {
      sealed += 1;
    };
    await expect(feed.settled(seal)).rejects.toThrow(/not authorised/);
    await feed.retryStopped();
    // The other partition goes on meanwhile, so this one could have as well.
    await source.produce(TOPIC, keyed(1, "x"));
    expect(await feed.waitFor(1, 1n, DEADLINE_MS)).toBe(true);
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(feed.stopped()).toMatchObject([{ partition: 0, reason: "failed" }]);
    expect([sealed, core.keys(0)]).toEqual([0, ["a", "b"]]);
    refusing = false;
    await feed.settled(seal);
    expect([sealed, sent]).toEqual([1, ["b"]]);
    await feed.retryStopped();
    expect(await feed.waitFor(0, 3n, DEADLINE_MS)).toBe(true);
    await until(() => feed.stopped().length === 0);
    expect([sent, core.keys(0)]).toEqual([["b"], ["a", "b", "c"]]);
  });

  it("should_close_while_a_dead_letter_waits_for_a_log_that_is_away", async () => {
    core.script = ({ from }) => ({ bad: [{ offset: from, reason: "bad-dimension", message: "3 not 4" }] });
    let waiting = false;
    const feed = await started({
      onBad: (_, signal) =>
        new Promise((_resolve, reject) => {
          waiting = true;
          const closing = () => reject(new VexError("UNAVAILABLE", "closing"));
          if (signal.aborted) closing();
          signal.addEventListener("abort", closing);
        }),
    });
    await source.produce(TOPIC, keyed(0, "a"));
    await until(() => waiting);
    await feed.close();
    await expect(feed.settled(async () => {})).rejects.toThrow();
  });

  it("should_stay_stopped_between_the_looks_at_a_record_that_stays_bad", async () => {
    core.script = ({ from }) => ({
      next: from,
      failedAt: from,
      bad: [{ offset: from, reason: "not-finite", message: "number 2 is NaN" }],
    });
    const changes: (string | undefined)[] = [];
    const feed = await started({
      badRecord: "fail",
      onStopped: (_, state) => changes.push(state?.reason),
    });
    await source.produce(TOPIC, keyed(0, "a"));
    await until(() => feed.stopped().length === 1);
    for (let look = 0; look < 3; look++) {
      const before = feed.totals.batches;
      await feed.retryStopped();
      await until(() => feed.totals.batches > before);
      expect(feed.stopped()).toHaveLength(1);
    }
    expect([changes, feed.totals.bad]).toEqual([["bad-record"], 0]);
  });

  it("should_stop_a_running_partition_that_a_claim_finds_stopped", async () => {
    const feed = await started();
    await source.produce(TOPIC, keyed(0, "a"));
    expect(await feed.waitFor(0, 1n, DEADLINE_MS)).toBe(true);
    core.partitions.delete(0);
    await feed.reclaim();
    expect(feed.stopped()).toMatchObject([{ partition: 0, reason: "partitions-added" }]);
    core.partitions.set(0, { applied: 1n, next: 1n, last: null });
    await source.produce(TOPIC, [...keyed(0, "b"), ...keyed(1, "x")]);
    expect(await feed.waitFor(1, 1n, DEADLINE_MS)).toBe(true);
    expect(core.keys(0)).toEqual(["a"]);
    await feed.retryStopped();
    expect(await feed.waitFor(0, 2n, DEADLINE_MS)).toBe(true);
  });
});
