/**
 * Feed: brings one incarnation's topic from a LogSource into the core. Ingest's memtable and a query
 * node's tail are fed by the same code; they differ in `onBad` and in what empties the memory.
 *
 * 1. Life: consume until the consumer ends, close it, wait, consume anew, until the feed closes. A log
 *    that is away, a topic that is missing and a consumer that crashed for good are all this one loop;
 *    what is not just away shows as a named stopped state meanwhile.
 * 2. Claim: refresh the core; a partition starts where the core stands (committed, or further in its
 *    memory). Checked: low ≤ next ≤ high, and that the last committed record still reads the same.
 *    A partition that fails this, or that no checkpoint knows, stops with a named state.
 * 3. Batch: pack buffers and table, append in one call. Then the applied offset and the verdicts on
 *    writes are told to those who wait, and bad records go to `onBad`, awaited before the next batch.
 * 4. Memory: what the core holds counts against a shared budget; over it partitions pause, never the
 *    loop.
 *
 * An append that fails for now (a patch reads its base from the store) is tried again until it works
 * or the feed closes; its partition waits. CONFLICT means that the core stands elsewhere: ask it and
 * seek. Anything else stops the partition. Appending a stretch twice changes nothing, so none of this
 * needs to be exact.
 *
 * Invariant: nothing is sealed while the dead letter of a record that it passes is unacknowledged.
 */
import { rangeStop, stopOf, stoppedState } from "../log/claim.ts";
import { compareFingerprint } from "../log/fingerprint.ts";
import type {
  Assignment,
  ConsumerHandlers,
  LogBatch,
  LogConsumer,
  LogSource,
  PartitionRange,
  StoppedState,
  StopReason,
} from "../log/source.ts";
import { packBatch } from "../log/table.ts";
import { VexError, vexErrorFrom } from "../process/error.ts";
import type { Logger } from "../process/logger.ts";
import { pause } from "../process/pause.ts";
import { Barrier } from "./barrier.ts";
import {
  type AppendBatch,
  type AppendResult,
  type CoreFeed,
  type FeedDescription,
  parseDescription,
} from "./core.ts";
import { badRecords, type SendLetters, WaitingLetters } from "./letters.ts";
import type { MemoryBudget } from "./memory.ts";
import { Stops } from "./stops.ts";
import { OffsetWaiters, type WriteVerdict, WriteWaiters } from "./waiters.ts";

/** Waits between tries of consume and append: 100 ms doubling to 5 s, until it works or closes. */
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5_000;
/** A consumer that lived this long does not wait for the crashes before it. */
const STEADY_MS = 60_000;
/** The core's answer moves at most once per lost race; five in a row is a defect. */
const CONFLICTS_MAX = 5;

export interface FeedOptions {
  source: LogSource;
  core: CoreFeed;
  logger: Logger;
  incarnation: string;
  topic: string;
  /** Id in the incarnation's table of sources. */
  sourceId: number;
  assignment: Assignment;
  /** As people call the collection, for the command that accepts a stopped state. */
  collection?: string;
  format?: AppendBatch["format"];
  badRecord?: AppendBatch["badRecord"];
  budget: MemoryBudget;
  /** Bad records of one batch. Absent: they are ignored (a tail's). */
  onBad?: SendLetters;
  /** A partition stopped (a state) or goes on (null). */
  onStopped?: (partition: number | undefined, state: StoppedState | null) => void;
  /** After each append, for seals by size. */
  onAppend?: (result: AppendResult) => void;
}

export interface FeedTotals {
  batches: number;
  accepted: number;
  notRecords: number;
  bad: number;
}

export class Feed {
  readonly totals: FeedTotals = { batches: 0, accepted: 0, notRecords: 0, bad: 0 };
  readonly #options: FeedOptions;
  readonly #applied = new Map<number, bigint>();
  readonly #stops: Stops;
  readonly #conflicts = new Map<number, number>();
  readonly #offsets = new OffsetWaiters();
  readonly #writes = new WriteWaiters();
  readonly #barrier = new Barrier();
  readonly #letters: WaitingLetters;
  readonly #unlisten: () => void;
  readonly #closing = new AbortController();
  /** Resolves with the first claim or the first named state. */
  readonly #begun = Promise.withResolvers<void>();
  #life: Promise<void> | null = null;
  #consumer: LogConsumer | null = null;
  #away: string | null = "not started";
  #retrying = false;

  constructor(options: FeedOptions) {
    const { topic, logger, collection, onStopped } = options;
    this.#options = options;
    this.#stops = new Stops({ topic, logger, collection, onStopped });
    this.#letters = new WaitingLetters(options.onBad ?? (async () => {}), this.#closing.signal);
    this.#unlisten = options.budget.listen(() => this.#applyBudget());
  }

  /** Resolves when the topic is being consumed, or stands in a named state; waits for a log that is away. */
  async start(): Promise<void> {
    this.#life ??= this.#live();
    await this.#begun.promise;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closing.abort();
    this.#unlisten();
    await this.#life;
    this.#offsets.end();
    this.#options.budget.remove(this.#options.incarnation);
  }

  /** Next offset to be applied, of each assigned partition. */
  applied(): Map<number, bigint> {
    return new Map(this.#applied);
  }

  /** End of the log as last seen, of each assigned partition. */
  ends(): Map<number, bigint> {
    const ends = new Map<number, bigint>();
    for (const [partition, applied] of this.#applied) {
      const high = this.#consumer?.highWatermark(partition) ?? applied;
      ends.set(partition, high > applied ? high : applied);
    }
    return ends;
  }

  /** Offsets between the end of the log and what is applied, of each assigned partition. */
  lag(): Map<number, bigint> {
    const lag = this.ends();
    for (const [partition, end] of lag) lag.set(partition, end - (this.#applied.get(partition) as bigint));
    return lag;
  }

  stopped(): StoppedState[] {
    return this.#stops.list();
  }

  /** Why the log is not being read right now, null when it is. */
  get away(): string | null {
    return this.#away;
  }

  /** Why writes must not be produced now, undefined when they may. */
  refusal(): string | undefined {
    return this.#stops.list()[0]?.message;
  }

  /** True once everything below `offset` is applied, false at the timeout. */
  waitFor(partition: number, offset: bigint, timeoutMs: number): Promise<boolean> {
    if ((this.#applied.get(partition) ?? -1n) >= offset) return Promise.resolve(true);
    if (this.#closed) return Promise.resolve(false);
    return this.#offsets.wait(partition, offset, timeoutMs);
  }

  /** `waitFor` of several partitions. */
  async reached(offsets: Map<number, bigint>, timeoutMs: number): Promise<boolean> {
    const waits = [...offsets].map(([partition, offset]) => this.waitFor(partition, offset, timeoutMs));
    return (await Promise.all(waits)).every((reached) => reached);
  }

  /** The verdict on a write, by its vexlake-write id; ask before producing it, and `forget` it after. */
  acknowledged(write: string): Promise<WriteVerdict> {
    return this.#writes.wait(write);
  }

  forget(write: string): void {
    this.#writes.forget(write);
  }

  /** Runs `work` while no append is under way; new ones wait for it (consumers queue and then pause). */
  hold<T>(work: () => Promise<T>): Promise<T> {
    return this.#barrier.exclusive(work);
  }

  /**
   * `hold`, and every dead letter is acknowledged. For seals: what they take is settled. Throws, without
   * the work, when letters cannot be sent.
   */
  settled<T>(work: () => Promise<T>): Promise<T> {
    return this.hold(async () => {
      await this.#letters.allSent();
      return await work();
    });
  }

  /**
   * Asks the core where it stands and goes there: after a lost race, an accepted stop. Does not throw:
   * what fails becomes the state of those partitions. While no consumer lives there is nothing to do,
   * since the next one claims everything.
   */
  async reclaim(partitions: number[] = [...this.#applied.keys()]): Promise<void> {
    await this.#consumer?.claim(partitions);
  }

  /** Looks again at what stands still: a person may have accepted the loss. One look at a time. */
  async retryStopped(): Promise<void> {
    const partitions = this.#stops.partitions();
    if (this.#retrying || partitions.length === 0) return;
    this.#retrying = true;
    await this.reclaim(partitions).finally(() => {
      this.#retrying = false;
    });
  }

  /** After the core followed commits: goes on behind what they cover, where that is ahead. */
  async follow(): Promise<void> {
    const description = await this.#describe();
    this.#options.budget.set(this.#options.incarnation, description.feedBytes);
    for (const [partition, applied] of this.#applied) {
      const ahead = description.partitions.get(partition)?.applied ?? applied;
      if (ahead <= applied) continue;
      this.#advance(partition, ahead);
      this.#consumer?.seek(partition, ahead);
    }
  }

  /** Reports committed offsets to the group, for lag tools. */
  async report(offsets: Map<number, bigint>): Promise<void> {
    await this.#consumer?.report(offsets);
  }

  async #describe(): Promise<FeedDescription> {
    const { core, incarnation, sourceId } = this.#options;
    return parseDescription(await core.refresh(incarnation), sourceId);
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #live(): Promise<void> {
    const { topic, logger } = this.#options;
    let wait = BACKOFF_MIN_MS;
    while (!this.#closed) {
      const begun = performance.now();
      try {
        await this.#consume();
      } catch (thrown) {
        const error = vexErrorFrom(thrown);
        if (error.retriable) {
          this.#away = error.message;
          logger.warn({ topic, err: error }, "the log is away, trying again");
        } else {
          this.#away = null;
          const reason: StopReason = error.code === "NOT_FOUND" ? "topic-missing" : "failed";
          this.#stop(stoppedState(topic, reason, undefined, { message: error.message }));
        }
      }
      if (performance.now() - begun > STEADY_MS) wait = BACKOFF_MIN_MS;
      await pause(wait, this.#closing.signal);
      wait = Math.min(wait * 2, BACKOFF_MAX_MS);
    }
    this.#begun.resolve();
  }

  /** The life of one consumer; throws when none comes about. */
  async #consume(): Promise<void> {
    const { source, topic, assignment } = this.#options;
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const end = () => resolve();
    let away: string | null = null;
    let claimed = false;
    const handlers: ConsumerHandlers = {
      claim: async (ranges) => {
        const answers = await this.#claim(ranges);
        // Another consumer's partitions may have been others.
        if (!claimed) this.#keepOnly(ranges.map(({ partition }) => partition));
        claimed = true;
        this.#begun.resolve();
        return answers;
      },
      batch: (batch) => this.#barrier.pass(() => this.#batch(batch)),
      revoked: async (partitions) => this.#revoked(partitions),
      stopped: (state) => {
        this.#stop(state);
        if (state.partition === undefined) end();
      },
      away: (reason) => {
        away = reason;
        this.#away = reason;
      },
    };
    const consumer = await source.consume({ topic, assignment }, handlers);
    this.#consumer = consumer;
    this.#away = away;
    this.#applyBudget();
    const { signal } = this.#closing;
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
    await ended;
    signal.removeEventListener("abort", end);
    await consumer.close();
  }

  async #claim(ranges: PartitionRange[]): Promise<Map<number, bigint | { stopped: StoppedState }>> {
    const description = await this.#describe();
    if (description.retired) {
      throw new VexError("FENCED", `incarnation ${this.#options.incarnation} is retired`);
    }
    const starts = await Promise.all(ranges.map((range) => this.#startOf(range, description)));
    const answers = new Map<number, bigint | { stopped: StoppedState }>();
    ranges.forEach(({ partition, high }, index) => {
      const start = starts[index] as bigint | StoppedState;
      if (typeof start !== "bigint") {
        answers.set(partition, { stopped: start });
        return;
      }
      this.#stops.claimed(partition, start >= high);
      this.#advance(partition, start);
      answers.set(partition, start);
    });
    this.#stops.consumes();
    this.#applyBudget();
    return answers;
  }

  async #startOf(range: PartitionRange, description: FeedDescription): Promise<bigint | StoppedState> {
    const { source, topic } = this.#options;
    const { partition, low, high } = range;
    try {
      await this.#letters.sent(partition);
    } catch (thrown) {
      return stopOf(topic, partition, thrown);
    }
    const known = description.partitions.get(partition);
    if (!known) {
      return stoppedState(topic, "partitions-added", partition, {
        message: `no checkpoint knows ${topic}/${partition}; keys may have moved to it`,
        lost: { from: low, to: high },
      });
    }
    const stop = rangeStop(topic, known.applied, range);
    if (stop) return stop;
    const { last } = known;
    if (!last || last.offset < low || last.offset >= high) return known.applied;
    const found = await compareFingerprint(source, topic, partition, last).catch((thrown: unknown) => {
      const error = vexErrorFrom(thrown);
      // Retention took it between the two questions.
      if (error.code === "NOT_FOUND") return "gone" as const;
      throw error;
    });
    if (found !== "different") return known.applied;
    return stoppedState(topic, "topic-recreated", partition, {
      message: `offset ${last.offset} of ${topic}/${partition} is not the record that was consumed: another topic`,
      lost: { from: known.next, to: high },
    });
  }

  async #batch(batch: LogBatch): Promise<void> {
    const result = await this.#append(batch);
    if (!result) return;
    const { budget, incarnation, onAppend } = this.#options;
    // The record that a partition fails at is not passed: it counts when somebody decides about it.
    const bad = result.failedAt === undefined ? result.bad : result.bad.slice(0, -1);
    this.#count(result, bad.length);
    this.#letters.add(batch.partition, badRecords(batch, bad));
    budget.set(incarnation, result.memtableBytes);
    this.#advance(batch.partition, result.next);
    const reasons = new Map(result.bad.map(({ offset, reason }) => [offset, reason]));
    for (const { write, ...verdict } of result.acks) {
      const reason = reasons.get(verdict.offset);
      this.#writes.settle(write, reason === undefined ? verdict : { ...verdict, reason });
    }
    onAppend?.({ ...result, bad });
    await this.#letters.sent(batch.partition);
    if (result.failedAt !== undefined) {
      const { reason, message } = result.bad.at(-1) as AppendResult["bad"][number];
      const where = `${this.#options.topic}/${batch.partition} offset ${result.failedAt}`;
      throw new VexError("INVALID", `bad record at ${where}: ${reason}: ${message}`, {
        fields: { stop: "bad-record", offset: result.failedAt },
      });
    }
    this.#stops.consumed(batch.partition);
  }

  /** null: the core stands elsewhere, and the consumer was sent there. */
  async #append(batch: LogBatch): Promise<AppendResult | null> {
    const { core, incarnation, sourceId, format, badRecord, logger, topic } = this.#options;
    const { partition, from, to } = batch;
    const request: AppendBatch = {
      incarnation,
      source: sourceId,
      partition,
      from,
      to,
      ...packBatch(batch),
      ...(format === undefined ? {} : { format }),
      ...(badRecord === undefined ? {} : { badRecord }),
    };
    for (let wait = BACKOFF_MIN_MS; ; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      try {
        const result = await core.append(request);
        this.#conflicts.delete(partition);
        return result;
      } catch (thrown) {
        const error = vexErrorFrom(thrown);
        if (error.code === "CONFLICT") return await this.#elsewhere(partition, error);
        if (!error.retriable || this.#closed) throw error;
        logger.warn({ topic, partition, from: String(from), err: error }, "append waits");
        await pause(wait, this.#closing.signal);
      }
    }
  }

  async #elsewhere(partition: number, error: VexError): Promise<null> {
    const conflicts = (this.#conflicts.get(partition) ?? 0) + 1;
    this.#conflicts.set(partition, conflicts);
    if (conflicts > CONFLICTS_MAX) throw new VexError("INTERNAL", error.message, { cause: error });
    const stands = (await this.#describe()).partitions.get(partition);
    if (!stands) throw error;
    this.#applied.set(partition, stands.applied);
    this.#consumer?.seek(partition, stands.applied);
    return null;
  }

  #count(result: AppendResult, bad: number): void {
    this.totals.batches += 1;
    this.totals.accepted += result.accepted;
    this.totals.notRecords += result.notRecords;
    this.totals.bad += bad;
  }

  #advance(partition: number, applied: bigint): void {
    this.#applied.set(partition, applied);
    this.#offsets.advance(partition, applied);
  }

  #revoked(partitions: number[]): void {
    for (const partition of partitions) {
      this.#applied.delete(partition);
      this.#stops.drop(partition);
    }
  }

  /** Of a consumer's first claim: the one before it may have had other partitions. */
  #keepOnly(partitions: number[]): void {
    const known = [...this.#applied.keys(), ...this.#stops.partitions()];
    this.#revoked(known.filter((partition) => !partitions.includes(partition)));
  }

  /** Without a partition: the consumer has ended, and with it each partition that it had. */
  #stop(state: StoppedState): void {
    const partitions = state.partition === undefined ? [...this.#applied.keys()] : [state.partition];
    for (const partition of partitions) this.#stops.add({ ...state, partition });
    if (partitions.length === 0) this.#stops.add(state);
    this.#begun.resolve();
  }

  #applyBudget(): void {
    const partitions = [...this.#applied.keys()];
    if (this.#options.budget.over) this.#consumer?.pause(partitions);
    else this.#consumer?.resume(partitions);
  }
}
