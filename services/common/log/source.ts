/**
 * LogSource: the seam between VexLake and a log, Kafka's or the local append-only one.
 *
 * One contract suite (test/contract/log.suite.ts) runs against every implementation:
 * - A partition is an ordered run of offsets. A consumer gets it as adjoining batches `[from, to)`;
 *   offsets inside that carry no record (control, aborted, compacted) are covered by `to`.
 * - Where a partition starts is answered by `claim` on every assignment, never by the group: group
 *   offsets are reported for lag tools and read by nobody.
 * - A consumer never skips and never goes back on its own. Where the log does not hold the next offset
 *   any more, or not yet, that partition stops with a named state; the others go on.
 * - `produce` resolves when every message is durable at the offset it returns. An error with
 *   `fields.doubt === true` leaves that open; it is never sent again by us.
 */
export interface LogRecord {
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer | undefined>;
  /** Milliseconds, set by the log. */
  timestamp: number;
  offset: bigint;
}

/** The adjoining stretch `[from, to)` of one partition; `records` lie inside, in offset order. */
export interface LogBatch {
  partition: number;
  from: bigint;
  to: bigint;
  records: LogRecord[];
}

/** What the log holds: `[low, high)`. */
export interface PartitionRange {
  partition: number;
  low: bigint;
  high: bigint;
}

/** `offset` is the first whose timestamp is at or after the asked time, `high` if there is none. */
export interface OffsetAtTime extends PartitionRange {
  offset: bigint;
}

export type StopReason =
  /** The log's low mark is above the next offset: `lost` is what retention took. */
  | "retention-passed"
  /** The next offset is above the log's high mark: another log, or one that lost its end. */
  | "beyond-end"
  /** The last consumed record reads differently: same name, another topic. */
  | "topic-recreated"
  /** A partition that no checkpoint knows. */
  | "partitions-added"
  /** The topic is gone. */
  | "topic-missing"
  /** The client gave up, for example at an unknown codec. */
  | "crashed"
  /** `bad_record: fail` met a bad record. */
  | "bad-record"
  /** Another process has the right to this incarnation. */
  | "fenced"
  /** The consumer of the batches failed in a way that a retry does not heal. */
  | "failed";

/** A named, visible state in which a partition stands still; without one, the whole consumer has ended. */
export interface StoppedState {
  partition?: number;
  reason: StopReason;
  message: string;
  lost?: { from: bigint; to: bigint };
  /** The command with which a person accepts the loss or the change. */
  accept: string;
}

export interface ConsumerHandlers {
  /** Where each partition starts; called on every assignment, before its first batch, and when asked to. */
  claim(partitions: PartitionRange[]): Promise<Map<number, bigint | { stopped: StoppedState }>>;
  /** Awaited, one at a time per partition: that is the back-pressure. */
  batch(batch: LogBatch): Promise<void>;
  /** Partitions that another member has now; no batch of them is running or will come. */
  revoked(partitions: number[]): Promise<void>;
  /** Without a partition: the consumer has ended for good and delivers nothing more; it wants to be closed. */
  stopped(state: StoppedState): void;
  /** The log cannot be reached (a reason) or can again (null); partitions wait meanwhile. */
  away?(reason: string | null): void;
}

/**
 * `all`: this process owns every partition, without membership; offsets are reported to `group`, if
 * given. `group`: partitions are shared among the group's members.
 */
export type Assignment = { kind: "all"; group?: string } | { kind: "group"; group: string };

export interface LogConsumer {
  /** No batch is delivered after the one in hand; a resume is seen within a fraction of a second. */
  pause(partitions: number[]): void;
  resume(partitions: number[]): void;
  /** The next batch starts at `offset`; undelivered ones are dropped. Restarts a stopped partition. */
  seek(partition: number, offset: bigint): void;
  /** Calls `claim` again for those that are assigned, and goes there or stops there. Never throws. */
  claim(partitions: number[]): Promise<void>;
  assigned(): number[];
  /** As of the last fetch or claim; undefined for a partition that is not assigned. */
  highWatermark(partition: number): bigint | undefined;
  /** Next offsets for lag tools; a hint that may fail silently. */
  report(offsets: Map<number, bigint>): Promise<void>;
  close(): Promise<void>;
}

export interface ProducedMessage {
  /** Absent: the partitioner's choice for the key. */
  partition?: number;
  key: Buffer | null;
  value: Buffer | null;
  headers?: Record<string, Buffer | string>;
  /** Ignored by topics with log append time, which ours have. */
  timestamp?: number;
}

export interface ProducedOffset {
  partition: number;
  offset: bigint;
}

export interface LogSource {
  readonly kind: "kafka" | "local";
  /** The log's identity; a lake refuses to go on with another. */
  cluster(): Promise<string>;
  /** Creates the topic unless it exists; an existing one keeps its partitions. */
  ensureTopic(topic: string, partitions: number): Promise<void>;
  /** Whether compaction may take records out of the topic; false where that may not be read. */
  isCompacted(topic: string): Promise<boolean>;
  /** null: no such topic. */
  ranges(topic: string): Promise<PartitionRange[] | null>;
  offsetsAt(topic: string, timeMs: number): Promise<OffsetAtTime[]>;
  consume(
    options: { topic: string; assignment: Assignment },
    handlers: ConsumerHandlers,
  ): Promise<LogConsumer>;
  /** One entry per message, in order. */
  produce(topic: string, messages: ProducedMessage[]): Promise<ProducedOffset[]>;
  partitionFor(key: Buffer, partitions: number): number;
  /** Bounded re-read of `[from, to)`; ends early at the high watermark. NOT_FOUND below the low mark. */
  read(
    topic: string,
    partition: number,
    from: bigint,
    to: bigint,
    onBatch: (batch: LogBatch) => Promise<void> | void,
  ): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Shared by records without headers, so that readers can skip the look-ups. */
export const NO_HEADERS: Record<string, Buffer | undefined> = Object.freeze({});
