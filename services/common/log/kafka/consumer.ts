/**
 * A consumer of one topic on kafkajs, behind the guards that kafkajs needs.
 *
 * 1. GROUP_JOIN: pause everything assigned at once (kafkajs fetches right after the event), wait for
 *    running deliveries, tell `revoked`, `claim` the rest, seek, resume. A newer join voids an older
 *    claim. The group's own offsets are never used: autoCommit is off.
 * 2. eachBatch only queues. A batch of a partition that we do not own, that stands, or that is stale by
 *    a seek is dropped without resolving it; kafkajs fetches it again if it is ours.
 * 3. **Silent reset**: kafkajs answers "offset out of range" by moving. So every batch must have been
 *    fetched at the expected offset. If not, or at kafkajs' log line, the log's range decides: outside
 *    it the partition stops with a named state; inside, kafkajs is put back.
 * 4. Fetches with only control or aborted records never reach eachBatch; the END_BATCH_PROCESS event
 *    covers their offsets. Record batches that compaction emptied at the very end of a log reach
 *    nobody: kafkajs cannot tell them from the end, and the partition stays before them.
 * 5. CRASH: kafkajs restarts itself after errors that may heal (the log is `away`, partitions wait).
 *    Otherwise, or after CRASHES_MAX in a row, it has left its group and never joins again, and so this
 *    consumer has ended: `stopped` without a partition. Its owner makes another one.
 *
 * Invariant: the batches handed over for a partition adjoin, from the claimed offset on, whatever
 * kafkajs does.
 */
import { randomUUID } from "node:crypto";
import kafkajs, {
  type Consumer,
  type ConsumerCrashEvent,
  type ConsumerEndBatchProcessEvent,
  type EachBatchPayload,
  type Kafka,
} from "kafkajs";
import { vexErrorFrom } from "../../process/error.ts";
import type { Logger } from "../../process/logger.ts";
import {
  CLAIM_BACKOFF_MAX_MS,
  CLAIM_BACKOFF_MIN_MS,
  claimPartitions,
  rangeStop,
  stopOf,
  stoppedState,
} from "../claim.ts";
import type {
  Assignment,
  ConsumerHandlers,
  LogBatch,
  LogConsumer,
  PartitionRange,
  StopReason,
} from "../source.ts";
import { everything } from "./assigner.ts";
import { RETRY, type ResetSignal } from "./client.ts";
import { protocolType } from "./errors.ts";
import type { FetchedBatch } from "./internals.ts";
import { KafkaPartition } from "./partition.ts";
import { bytesOf, recordsOf } from "./records.ts";

/** Also how long kafkajs sleeps when all is paused, so how late it sees a resume. */
export const FETCH_WAIT_MS = 150;
/** The session must outlive three missed heartbeats. */
export const HEARTBEATS_PER_SESSION = 4;
/** Added partitions are seen within this; kafkajs asks one broker for one topic. */
export const METADATA_AGE_MAX_MS = 30_000;
/** Fetched per partition and in one response; a response is one buffer that its values keep alive. */
const FETCH_BYTES_MAX = 1024 * 1024;
const RESPONSE_BYTES_MAX = 8 * 1024 * 1024;
/** Crashes in a row; with RETRY before each, five span ~20 s of the same error. */
export const CRASHES_MAX = 5;
/** A crash this long after the one before begins a new row: twice what kafkajs may wait in between. */
const CRASH_ROW_MS = 60_000;
/** kafkajs put back to the same offset this often without a batch is not going to get it right. */
const RESEEKS_MAX = 5;
/**
 * Members have this long to join again when the group changes. kafkajs joins without waiting for our
 * deliveries; a member that still delivers a partition that it lost is beaten by the commit.
 */
const REBALANCE_TIMEOUT_MS = 30_000;

export interface KafkaConsumerOptions {
  kafka: Kafka;
  topic: string;
  assignment: Assignment;
  sessionTimeoutMs: number;
  metadataAgeMaxMs?: number;
  handlers: ConsumerHandlers;
  logger: Logger;
  ranges: () => Promise<PartitionRange[] | null>;
  /** Offset reports of a fixed assignment, whose own group is thrown away. */
  reportAs: (group: string, offsets: Map<number, bigint>) => Promise<void>;
  onClosed: (consumer: KafkaConsumer) => void;
}

export class KafkaConsumer implements LogConsumer {
  readonly groupId: string;
  readonly #options: KafkaConsumerOptions;
  readonly #consumer: Consumer;
  readonly #partitions = new Map<number, KafkaPartition>();
  #generation = 0;
  #taking: Promise<void> = Promise.resolve();
  #crashes = 0;
  #crashedAt = 0;
  #away = false;
  #closed = false;

  constructor(options: KafkaConsumerOptions) {
    const { assignment } = options;
    this.#options = options;
    this.groupId = assignment.kind === "group" ? assignment.group : `vexlake-all-${randomUUID()}`;
    this.#consumer = options.kafka.consumer({
      groupId: this.groupId,
      sessionTimeout: options.sessionTimeoutMs,
      heartbeatInterval: Math.floor(options.sessionTimeoutMs / HEARTBEATS_PER_SESSION),
      rebalanceTimeout: REBALANCE_TIMEOUT_MS,
      maxWaitTimeInMs: FETCH_WAIT_MS,
      maxBytesPerPartition: FETCH_BYTES_MAX,
      maxBytes: RESPONSE_BYTES_MAX,
      metadataMaxAge: options.metadataAgeMaxMs ?? METADATA_AGE_MAX_MS,
      allowAutoTopicCreation: false,
      readUncommitted: false,
      retry: { ...RETRY, restartOnFailure: async (error) => this.#mayRestart(error) },
      partitionAssigners:
        assignment.kind === "all" ? [everything(() => undefined)] : [kafkajs.PartitionAssigners.roundRobin],
    });
  }

  /** Joins; the first claim follows on its own. */
  async start(): Promise<void> {
    const { topic } = this.#options;
    const { GROUP_JOIN, END_BATCH_PROCESS, CRASH } = this.#consumer.events;
    this.#consumer.on(GROUP_JOIN, ({ payload }) => this.#joined(payload.memberAssignment[topic] ?? []));
    this.#consumer.on(END_BATCH_PROCESS, (event) => this.#batchEnded(event));
    this.#consumer.on(CRASH, (event) => this.#crashed(event));
    // From the beginning, so that a silent reset shows at once: the next fetch has another offset.
    await this.#consumer.subscribe({ topic, fromBeginning: true });
    await this.#consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: 1,
      eachBatch: async (payload) => this.#eachBatch(payload),
    });
  }

  pause(partitions: number[]): void {
    for (const partition of partitions) this.#partitions.get(partition)?.pause();
  }

  resume(partitions: number[]): void {
    for (const partition of partitions) this.#partitions.get(partition)?.resume();
  }

  seek(partition: number, offset: bigint): void {
    const state = this.#partitions.get(partition);
    if (state && this.#seek(partition, offset)) state.startAt(offset, state.high);
  }

  async claim(partitions: number[]): Promise<void> {
    const generation = this.#generation;
    // Those that wait for a claim already are on their way.
    const standing = partitions.filter((partition) => this.#partitions.get(partition)?.claiming === false);
    if (standing.length > 0)
      await this.#claim(standing, () => generation === this.#generation && !this.#closed);
  }

  assigned(): number[] {
    return [...this.#partitions.keys()].sort((a, b) => a - b);
  }

  highWatermark(partition: number): bigint | undefined {
    return this.#partitions.get(partition)?.high;
  }

  async report(offsets: Map<number, bigint>): Promise<void> {
    const { assignment, topic, logger, reportAs } = this.#options;
    if (offsets.size === 0 || this.#closed) return;
    try {
      if (assignment.kind === "group") {
        const entries = [...offsets].map(([partition, offset]) => ({
          topic,
          partition,
          offset: String(offset),
        }));
        await this.#consumer.commitOffsets(entries);
      } else if (assignment.group !== undefined) {
        await reportAs(assignment.group, offsets);
      }
    } catch (error) {
      logger.debug({ err: error, topic }, "offsets were not reported to the group");
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#generation += 1;
    const held = [...this.#partitions.values()].map((state) => state.hold());
    await this.#disconnect();
    await Promise.all(held);
    await this.#taking;
    this.#partitions.clear();
    this.#options.onClosed(this);
  }

  async #disconnect(): Promise<void> {
    await this.#consumer.disconnect().catch((error: unknown) => {
      this.#options.logger.debug({ err: error }, "the consumer did not disconnect cleanly");
    });
  }

  /** The source saw kafkajs' line "offset out of range" for one of the groups. */
  reset(signal: ResetSignal): void {
    const state = this.#partitions.get(signal.partition);
    if (signal.topic === this.#options.topic && state?.running) this.#putBack(state);
  }

  #joined(assigned: number[]): void {
    // kafkajs lets a start that is under way join after it was told to stop.
    if (this.#closed) return void this.#disconnect();
    const generation = ++this.#generation;
    this.#fetch(assigned, false);
    const held = Promise.all([...this.#partitions.values()].map((state) => state.hold()));
    this.#taking = this.#taking
      .then(() => held)
      .then(() => this.#take(generation, assigned))
      .catch((error: unknown) => {
        // Only a handler that throws gets here; without an owner nothing may be consumed.
        for (const partition of assigned) this.#stop(partition, "failed", vexErrorFrom(error).message);
      });
  }

  async #take(generation: number, assigned: number[]): Promise<void> {
    const { handlers } = this.#options;
    const current = () => generation === this.#generation && !this.#closed;
    if (!current()) return;
    const lost = [...this.#partitions.keys()].filter((partition) => !assigned.includes(partition));
    for (const partition of lost) this.#partitions.delete(partition);
    if (lost.length > 0) await handlers.revoked(lost);
    for (const partition of assigned) {
      if (!this.#partitions.has(partition)) this.#partitions.set(partition, this.#newPartition(partition));
    }
    await this.#claim(assigned, current);
    if (current()) this.#here();
  }

  async #claim(partitions: number[], current: () => boolean): Promise<void> {
    const { handlers, topic, ranges } = this.#options;
    const claimed = await claimPartitions({ topic, partitions, handlers, ranges, current });
    if (!claimed || !current()) return;
    for (const claim of claimed) {
      const state = this.#partitions.get(claim.partition) as KafkaPartition;
      state.high = claim.high;
      if ("stopped" in claim) {
        state.stop(claim.stopped);
        handlers.stopped(claim.stopped);
      } else if (this.#seek(claim.partition, claim.next)) {
        state.startAt(claim.next, claim.high);
      }
    }
  }

  #newPartition(partition: number): KafkaPartition {
    return new KafkaPartition(partition, {
      deliver: (batch) => this.#options.handlers.batch(batch),
      fetch: (which, wanted) => this.#fetch([which], wanted),
      failed: (which, error) => {
        const state = stopOf(this.#options.topic, which, error);
        this.#partitions.get(which)?.stop(state);
        this.#options.handlers.stopped(state);
      },
    });
  }

  #eachBatch({ batch, resolveOffset, isStale }: EachBatchPayload): void {
    const fetched = batch as FetchedBatch;
    const state = this.#partitions.get(fetched.partition);
    if (!state?.running || isStale()) return;
    if (BigInt(fetched.fetchedOffset) !== state.next) {
      this.#putBack(state);
      return;
    }
    const records = recordsOf(fetched.messages);
    const to = BigInt(fetched.lastOffset()) + 1n;
    state.high = BigInt(fetched.highWatermark);
    this.#accept(state, { partition: fetched.partition, from: state.next, to, records });
    // Resolving the last message resolves the control records after it, too.
    resolveOffset(fetched.messages.at(-1)?.offset as string);
  }

  /** Only for fetches whose records were all filtered out; the others came through eachBatch. */
  #batchEnded({ payload }: ConsumerEndBatchProcessEvent): void {
    if (payload.topic !== this.#options.topic || payload.batchSize > 0) return;
    const state = this.#partitions.get(payload.partition);
    if (!state?.running) return;
    const first = payload.firstOffset as string | null;
    const from = state.next;
    const to = BigInt(payload.lastOffset) + 1n;
    const covered: LogBatch = { partition: payload.partition, from, to, records: [] };
    // The event has no fetched offset. One that ends behind `next` is a reset; one that starts ahead is
    // a reset or a compacted gap, which the log's low mark tells apart.
    if (to <= from) this.#putBack(state);
    else if (first !== null && BigInt(first) > from) this.#putBack(state, covered);
    else {
      state.high = BigInt(payload.highWatermark);
      this.#accept(state, covered);
    }
  }

  #accept(state: KafkaPartition, batch: LogBatch): void {
    this.#crashes = 0;
    this.#here();
    state.push(batch, bytesOf(batch.records));
  }

  /**
   * kafkajs is not where we are: stop if the log cannot serve `next`, else seek it back. `gap` is what
   * it skipped if the log does hold `next`: compaction took the records.
   */
  #putBack(state: KafkaPartition, gap?: LogBatch): void {
    state.reseeks += 1;
    state.moving(true);
    const generation = this.#generation;
    const { partition, next, reseeks } = state;
    const valid = () => generation === this.#generation && state.running && state.next === next;
    this.#settle(state, valid, reseeks, gap).catch((error: unknown) => {
      if (valid()) this.#stop(partition, "failed", vexErrorFrom(error).message);
    });
  }

  async #settle(state: KafkaPartition, valid: () => boolean, tries: number, gap?: LogBatch): Promise<void> {
    const { topic, handlers, logger } = this.#options;
    const { partition, next } = state;
    const range = await this.#rangeOf(partition, valid);
    if (!valid()) return;
    if (!range) return this.#stop(partition, "topic-missing", `the log holds no ${topic}/${partition}`);
    const stop = rangeStop(topic, next, range);
    if (stop) {
      state.stop(stop);
      return handlers.stopped(stop);
    }
    if (tries > RESEEKS_MAX) {
      return this.#stop(
        partition,
        "crashed",
        `kafkajs does not return to offset ${next} of ${topic}/${partition}`,
      );
    }
    if (gap) this.#accept(state, gap);
    else logger.warn({ topic, partition, offset: String(next) }, "kafkajs moved by itself and is put back");
    if (this.#seek(partition, state.next)) state.moving(false);
  }

  /** What the log holds, asked for until it answers or nobody needs it any more. */
  async #rangeOf(partition: number, valid: () => boolean): Promise<PartitionRange | undefined> {
    for (let wait = CLAIM_BACKOFF_MIN_MS; ; wait = Math.min(wait * 2, CLAIM_BACKOFF_MAX_MS)) {
      try {
        return (await this.#options.ranges())?.find((candidate) => candidate.partition === partition);
      } catch (error) {
        if (!vexErrorFrom(error).retriable || !valid()) throw error;
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  #crashed({ payload }: ConsumerCrashEvent): void {
    if (this.#closed) return;
    this.#generation += 1;
    const { topic, handlers, logger } = this.#options;
    const message = `${payload.error.name}: ${payload.error.message}`;
    logger.warn({ topic, restart: payload.restart, crashes: this.#crashes }, `consumer crashed: ${message}`);
    for (const state of this.#partitions.values()) void state.hold();
    if (payload.restart) {
      this.#away = true;
      handlers.away?.(message);
      return;
    }
    const reason: StopReason = isMissing(payload.error) ? "topic-missing" : "crashed";
    handlers.stopped(stoppedState(topic, reason, undefined, { message }));
  }

  /** kafkajs asks before each restart, and only after errors that it calls retriable. */
  #mayRestart(error: Error): boolean {
    const now = performance.now();
    if (now - this.#crashedAt > CRASH_ROW_MS) this.#crashes = 0;
    this.#crashedAt = now;
    this.#crashes += 1;
    if (this.#closed || isMissing(error)) return false;
    return this.#crashes < CRASHES_MAX || isOutage(error);
  }

  #here(): void {
    if (!this.#away) return;
    this.#away = false;
    this.#options.handlers.away?.(null);
  }

  #stop(partition: number, reason: StopReason, message: string): void {
    const state = stoppedState(this.#options.topic, reason, partition, { message });
    this.#partitions.get(partition)?.stop(state);
    this.#options.handlers.stopped(state);
  }

  /** False when kafkajs has no group at the moment; its next join claims anew. */
  #seek(partition: number, offset: bigint): boolean {
    try {
      this.#consumer.seek({ topic: this.#options.topic, partition, offset: String(offset) });
      return true;
    } catch {
      return false;
    }
  }

  #fetch(partitions: number[], wanted: boolean): void {
    const topics = [{ topic: this.#options.topic, partitions }];
    try {
      if (wanted) this.#consumer.resume(topics);
      else this.#consumer.pause(topics);
    } catch {
      // No group at the moment: nothing is fetched, and the next join pauses first.
    }
  }
}

function isMissing(error: Error): boolean {
  return protocolType(error) === "UNKNOWN_TOPIC_OR_PARTITION";
}

/** Errors of a broker that is away can last for hours and end by themselves. */
function isOutage(error: Error): boolean {
  const text = `${error.name} ${error.message} ${(error.cause as Error | undefined)?.name ?? ""}`;
  return /Connection|BrokerNotFound|NoBrokerAvailable|ECONNREFUSED|RequestTimeout|LockTimeout|CoordinatorNotFound/.test(
    text,
  );
}
