/**
 * Feed: brings one incarnation's topic from a LogSource into the core. Ingest's memtable and a query
 * node's tail are fed by the same code; they differ in `onBad` and in what empties the memory.
 *
 * 1. Claim: refresh the core; a partition starts where the core stands (committed, or further in its
 *    memory). Checked: low ≤ next ≤ high, and that the last committed record still reads the same.
 *    A partition that fails this, or that no checkpoint knows, stops with a named state.
 * 2. Batch: pack buffers and table, append in one call. Then the applied offset and the verdicts on
 *    writes are told to those who wait, and bad records go to `onBad`, awaited before the next batch.
 * 3. Memory: what the core holds counts against a shared budget; over it partitions pause, never the
 *    loop.
 *
 * An append that fails for now (a patch reads its base from the store) is tried again until it works
 * or the feed closes; its partition waits. CONFLICT means that the core stands elsewhere: ask it and
 * seek. Anything else stops the partition. Appending a stretch twice changes nothing, so none of this
 * needs to be exact.
 */
import { rangeStop, stoppedState } from "../log/claim.ts";
import { compareFingerprint } from "../log/fingerprint.ts";
import type {
  Assignment,
  LogBatch,
  LogConsumer,
  LogRecord,
  LogSource,
  PartitionRange,
  StoppedState,
} from "../log/source.ts";
import { packBatch } from "../log/table.ts";
import { VexError, vexErrorFrom } from "../process/error.ts";
import type { Logger } from "../process/logger.ts";
import { Barrier } from "./barrier.ts";
import {
  type AppendBatch,
  type AppendResult,
  type CoreFeed,
  type FeedDescription,
  parseDescription,
} from "./core.ts";
import type { MemoryBudget } from "./memory.ts";
import { OffsetWaiters, type WriteVerdict, WriteWaiters } from "./waiters.ts";

/** Waits between tries of consume and append: 100 ms doubling to 5 s, until it works or closes. */
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5_000;
/** The core's answer moves at most once per lost race; five in a row is a defect. */
const CONFLICTS_MAX = 5;

export interface BadRecord {
  partition: number;
  record: LogRecord;
  reason: string;
  message: string;
}

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
  /** Bad records of one batch; resolves when they are safe. Absent: they are ignored (a tail's). */
  onBad?: (bad: BadRecord[]) => Promise<void>;
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

/** Stands for the whole consumer among the stopped states. */
const ALL = -1;

export class Feed {
  readonly totals: FeedTotals = { batches: 0, accepted: 0, notRecords: 0, bad: 0 };
  readonly #options: FeedOptions;
  readonly #applied = new Map<number, bigint>();
  readonly #stopped = new Map<number, StoppedState>();
  readonly #conflicts = new Map<number, number>();
  readonly #offsets = new OffsetWaiters();
  readonly #writes = new WriteWaiters();
  readonly #barrier = new Barrier();
  readonly #unlisten: () => void;
  readonly #closing = Promise.withResolvers<void>();
  #consumer: LogConsumer | null = null;
  #away: string | null = "not started";
  #closed = false;

  constructor(options: FeedOptions) {
    this.#options = options;
    this.#unlisten = options.budget.listen(() => this.#applyBudget());
  }

  /** Resolves when the topic is being consumed; waits for a log that is away, throws what stays wrong. */
  async start(): Promise<void> {
    const { source, topic, assignment, logger } = this.#options;
    const handlers = {
      claim: (ranges: PartitionRange[]) => this.#claim(ranges),
      batch: (batch: LogBatch) => this.#barrier.pass(() => this.#batch(batch)),
      revoked: async (partitions: number[]) => this.#revoked(partitions),
      stopped: (state: StoppedState) => this.#stop(state),
      away: (reason: string | null) => {
        this.#away = reason;
      },
    };
    for (let wait = BACKOFF_MIN_MS; !this.#closed; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      try {
        const consumer = await source.consume({ topic, assignment }, handlers);
        this.#consumer = consumer;
        if (this.#closed) await consumer.close();
        if (this.#away === "not started") this.#away = null;
        this.#applyBudget();
        return;
      } catch (thrown) {
        const error = vexErrorFrom(thrown);
        if (!error.retriable) throw error;
        this.#away = error.message;
        logger.warn({ topic, err: error }, "the log is away, trying again");
        await this.#pause(wait);
      }
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#closing.resolve();
    this.#unlisten();
    await this.#consumer?.close();
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
    return [...this.#stopped.values()];
  }

  /** Why the log is not being read right now, null when it is. */
  get away(): string | null {
    return this.#away;
  }

  /** Why writes must not be produced now, undefined when they may. */
  refusal(): string | undefined {
    return this.#stopped.values().next().value?.message;
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

  /**
   * Runs `work` while no append is under way and every dead letter is acknowledged; new appends wait
   * for it (consumers queue and then pause meanwhile). For seals: what they take is settled.
   */
  settled<T>(work: () => Promise<T>): Promise<T> {
    return this.#barrier.exclusive(work);
  }

  /** Asks the core where it stands and goes there: after a lost race, an accepted stop, a new snapshot. */
  async reclaim(partitions: number[] = [...this.#applied.keys(), ...this.#stopped.keys()]): Promise<void> {
    const { source, topic } = this.#options;
    const ranges = ((await source.ranges(topic)) ?? []).filter(({ partition }) =>
      partitions.includes(partition),
    );
    for (const [partition, start] of await this.#claim(ranges)) {
      if (typeof start === "bigint") this.#consumer?.seek(partition, start);
      else this.#stop(start.stopped);
    }
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

  async #claim(ranges: PartitionRange[]): Promise<Map<number, bigint | { stopped: StoppedState }>> {
    const description = await this.#describe();
    if (description.retired) {
      throw new VexError("FENCED", `incarnation ${this.#options.incarnation} is retired`);
    }
    const starts = await Promise.all(ranges.map((range) => this.#startOf(range, description)));
    const answers = new Map<number, bigint | { stopped: StoppedState }>();
    ranges.forEach(({ partition }, index) => {
      const start = starts[index] as bigint | StoppedState;
      if (typeof start !== "bigint") {
        answers.set(partition, { stopped: start });
        return;
      }
      if (this.#stopped.delete(partition)) this.#options.onStopped?.(partition, null);
      this.#advance(partition, start);
      answers.set(partition, start);
    });
    if (this.#stopped.delete(ALL)) this.#options.onStopped?.(undefined, null);
    this.#applyBudget();
    return answers;
  }

  async #startOf(range: PartitionRange, description: FeedDescription): Promise<bigint | StoppedState> {
    const { source, topic } = this.#options;
    const { partition, low, high } = range;
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
    const { budget, incarnation, onAppend, onBad } = this.#options;
    this.#count(result);
    budget.set(incarnation, result.memtableBytes);
    this.#advance(batch.partition, result.next);
    const reasons = new Map(result.bad.map(({ offset, reason }) => [offset, reason]));
    for (const { write, ...verdict } of result.acks) {
      const reason = reasons.get(verdict.offset);
      this.#writes.settle(write, reason === undefined ? verdict : { ...verdict, reason });
    }
    onAppend?.(result);
    const refused = result.failedAt === undefined ? result.bad : result.bad.slice(0, -1);
    if (onBad && refused.length > 0) await onBad(badRecords(batch, refused));
    if (result.failedAt !== undefined) {
      const { reason, message } = result.bad.at(-1) as AppendResult["bad"][number];
      const where = `${this.#options.topic}/${batch.partition} offset ${result.failedAt}`;
      throw new VexError("INVALID", `bad record at ${where}: ${reason}: ${message}`, {
        fields: { stop: "bad-record", offset: result.failedAt },
      });
    }
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
        await this.#pause(wait);
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

  #count(result: AppendResult): void {
    this.totals.batches += 1;
    this.totals.accepted += result.accepted;
    this.totals.notRecords += result.notRecords;
    this.totals.bad += result.bad.length;
  }

  #advance(partition: number, applied: bigint): void {
    this.#applied.set(partition, applied);
    this.#offsets.advance(partition, applied);
  }

  #revoked(partitions: number[]): void {
    for (const partition of partitions) {
      this.#applied.delete(partition);
      this.#stopped.delete(partition);
    }
  }

  #stop(state: StoppedState): void {
    const { collection, logger, onStopped, topic } = this.#options;
    const accept = collection === undefined ? state.accept : acceptCommand(collection, state);
    const shown = { ...state, accept };
    const before = this.#stopped.get(state.partition ?? ALL);
    this.#stopped.set(state.partition ?? ALL, shown);
    // Looked at again every second: said once.
    if (before?.message === state.message) return;
    logger.error({ topic, ...shown, lost: undefined }, state.message);
    onStopped?.(state.partition, shown);
  }

  #applyBudget(): void {
    const partitions = [...this.#applied.keys()];
    if (this.#options.budget.over) this.#consumer?.pause(partitions);
    else this.#consumer?.resume(partitions);
  }

  #pause(ms: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const passed = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    return Promise.race([passed, this.#closing.promise]).finally(() => clearTimeout(timer));
  }
}

function acceptCommand(collection: string, { partition }: StoppedState): string {
  return `vexlake source accept ${collection}${partition === undefined ? "" : ` --partition ${partition}`}`;
}

function badRecords(batch: LogBatch, bad: AppendResult["bad"]): BadRecord[] {
  const records = new Map(batch.records.map((record) => [record.offset, record]));
  return bad.flatMap(({ offset, reason, message }) => {
    const record = records.get(offset);
    return record ? [{ partition: batch.partition, record, reason, message }] : [];
  });
}
