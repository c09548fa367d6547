/**
 * KafkaSource: LogSource on any Kafka, by kafkajs.
 *
 * One admin client, one reader without a group, a producer per topic and a kafkajs client per consumer
 * (each has connections of its own, so a slow consumer delays no write). Topics are made with log append
 * time and without retention: the log is where a collection is rebuilt from.
 *
 * A kafkajs client that has used a topic fails every metadata refresh once that topic is gone, also for
 * other topics. So an unknown topic is believed only from a client that never saw it: `#asked` replaces
 * the admin client and asks again. A broker may also need a moment to lead a topic that is new.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Admin, Kafka } from "kafkajs";
import { VexError } from "../../process/error.ts";
import type { Logger } from "../../process/logger.ts";
import { partitionFor } from "../murmur2.ts";
import type {
  Assignment,
  ConsumerHandlers,
  LogBatch,
  LogConsumer,
  LogSource,
  OffsetAtTime,
  PartitionRange,
  ProducedMessage,
  ProducedOffset,
} from "../source.ts";
import { openClient, RETRY, type ResetSignal } from "./client.ts";
import { isCompacted } from "./compacted.ts";
import { KafkaConsumer } from "./consumer.ts";
import { kafkaError, protocolType, STALE } from "./errors.ts";
import { KafkaProducer } from "./producer.ts";
import { KafkaReader } from "./reader.ts";

/** A partition count may grow; a stale one only sends a key where older clients would, for this long. */
const PARTITIONS_AGE_MAX_MS = 30_000;
/** One or two sockets each; beyond, the producer that was idle longest is closed. */
const PRODUCERS_MAX = 64;
/** The broker creates a topic within this or says why not. */
const CREATE_TIMEOUT_MS = 10_000;

const TOPIC_CONFIG = [
  { name: "cleanup.policy", value: "delete" },
  { name: "retention.ms", value: "-1" },
  { name: "retention.bytes", value: "-1" },
  { name: "message.timestamp.type", value: "LogAppendTime" },
];

export interface KafkaSourceOptions {
  brokers: string[];
  /** The broker's floor is 6,000 (DESIGN §11, session_timeout_ms). */
  sessionTimeoutMs?: number;
  /** How late added partitions may be seen; 30 s unless given. */
  metadataAgeMaxMs?: number;
  clientId?: string;
  logger: Logger;
  now?: () => number;
}

export class KafkaSource implements LogSource {
  readonly kind = "kafka";
  readonly #options: KafkaSourceOptions;
  readonly #kafka: Kafka;
  #admin: Admin;
  /** In order of use, so that the first idle one is the one unused for longest. */
  readonly #producers = new Map<string, KafkaProducer>();
  readonly #reader: KafkaReader;
  readonly #consumers = new Set<KafkaConsumer>();
  readonly #counts = new Map<string, { partitions: number; at: number }>();
  readonly #now: () => number;
  #keyless = 0;

  constructor(options: KafkaSourceOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#kafka = openClient({
      brokers: options.brokers,
      clientId: options.clientId ?? "vexlake",
      logger: options.logger,
      onReset: (signal) => this.#reset(signal),
    });
    this.#admin = this.#newAdmin();
    this.#reader = new KafkaReader(this.#kafka);
  }

  async start(): Promise<void> {
    await this.#asked("the log cannot be reached", (admin) => admin.connect());
  }

  /** Closes everything that can be closed, then throws what could not. */
  async close(): Promise<void> {
    const users = [...this.#consumers, ...this.#producers.values()];
    const outcomes = await Promise.allSettled(users.map((user) => user.close()));
    outcomes.push(...(await Promise.allSettled([this.#reader.close(), this.#admin.disconnect()])));
    const failed = outcomes.find(({ status }) => status === "rejected");
    if (failed) throw (failed as PromiseRejectedResult).reason;
  }

  async cluster(): Promise<string> {
    const { clusterId } = await this.#asked("cannot describe the cluster", (admin) =>
      admin.describeCluster(),
    );
    return clusterId;
  }

  async ensureTopic(topic: string, partitions: number): Promise<void> {
    if ((await this.#partitionsOf(topic)) !== null) return;
    await this.#asked(`cannot create topic ${topic}`, (admin) =>
      admin.createTopics({
        timeout: CREATE_TIMEOUT_MS,
        waitForLeaders: true,
        topics: [{ topic, numPartitions: partitions, replicationFactor: -1, configEntries: TOPIC_CONFIG }],
      }),
    );
    this.#counts.delete(topic);
  }

  async isCompacted(topic: string): Promise<boolean> {
    return await this.#asked(`cannot read the cleanup policy of ${topic}`, (admin) =>
      isCompacted(admin, topic, this.#options.logger),
    );
  }

  async ranges(topic: string): Promise<PartitionRange[] | null> {
    if ((await this.#partitionsOf(topic)) === null) return null;
    const offsets = await this.#asked(`cannot list offsets of ${topic}`, (admin) =>
      admin.fetchTopicOffsets(topic),
    );
    return offsets
      .map(({ partition, low, high }) => ({ partition, low: BigInt(low), high: BigInt(high) }))
      .sort((a, b) => a.partition - b.partition);
  }

  async offsetsAt(topic: string, timeMs: number): Promise<OffsetAtTime[]> {
    const ranges = await this.ranges(topic);
    if (!ranges) throw missing(topic);
    const found = await this.#asked(`cannot list offsets of ${topic} at ${timeMs}`, (admin) =>
      admin.fetchTopicOffsetsByTimestamp(topic, timeMs),
    );
    const offsets = new Map(found.map(({ partition, offset }) => [partition, BigInt(offset)]));
    return ranges.map((range) => ({ ...range, offset: offsets.get(range.partition) ?? range.high }));
  }

  async consume(
    { topic, assignment }: { topic: string; assignment: Assignment },
    handlers: ConsumerHandlers,
  ): Promise<LogConsumer> {
    if ((await this.#partitionsOf(topic)) === null) throw missing(topic);
    const consumer = new KafkaConsumer({
      kafka: this.#kafka,
      topic,
      assignment,
      handlers,
      sessionTimeoutMs: this.#options.sessionTimeoutMs ?? 6_000,
      ...(this.#options.metadataAgeMaxMs === undefined
        ? {}
        : { metadataAgeMaxMs: this.#options.metadataAgeMaxMs }),
      logger: this.#options.logger,
      ranges: () => this.ranges(topic),
      reportAs: (group, offsets) => this.#reader.report(topic, group, offsets),
      onClosed: (closed) => this.#consumers.delete(closed),
    });
    this.#consumers.add(consumer);
    try {
      await consumer.start();
    } catch (error) {
      await consumer.close().catch(() => undefined);
      throw kafkaError(`cannot consume ${topic}`, error);
    }
    return consumer;
  }

  async produce(topic: string, messages: ProducedMessage[]): Promise<ProducedOffset[]> {
    const highest = messages.reduce((max, { partition }) => Math.max(max, partition ?? 0), 0);
    const partitions = await this.#countOf(topic, highest);
    const placed = messages.map((message) => ({
      ...message,
      partition: message.partition ?? this.#place(message.key, partitions),
    }));
    try {
      return await this.#producerOf(topic).produce(placed, partitions);
    } catch (error) {
      this.#counts.delete(topic);
      throw error;
    }
  }

  partitionFor(key: Buffer, partitions: number): number {
    return partitionFor(key, partitions);
  }

  async read(
    topic: string,
    partition: number,
    from: bigint,
    to: bigint,
    onBatch: (batch: LogBatch) => Promise<void> | void,
  ): Promise<void> {
    await this.#reader.read(topic, partition, from, to, onBatch);
  }

  #reset(signal: ResetSignal): void {
    for (const consumer of this.#consumers) if (consumer.groupId === signal.groupId) consumer.reset(signal);
  }

  #place(key: Buffer | null, partitions: number): number {
    return key === null ? this.#keyless++ % partitions : partitionFor(key, partitions);
  }

  /** Partitions of the topic, NOT_FOUND when `partition` is not among them. */
  async #countOf(topic: string, partition: number): Promise<number> {
    const known = this.#counts.get(topic);
    const fresh = known && this.#now() - known.at < PARTITIONS_AGE_MAX_MS;
    if (fresh && partition < known.partitions) return known.partitions;
    const partitions = await this.#partitionsOf(topic, ", nothing was sent");
    if (partitions === null) throw missing(topic);
    if (partition >= partitions) {
      throw new VexError("NOT_FOUND", `the log holds no ${topic}/${partition}`, {
        fields: { topic, partition },
      });
    }
    return partitions;
  }

  #producerOf(topic: string): KafkaProducer {
    const producer =
      this.#producers.get(topic) ?? new KafkaProducer(this.#kafka, topic, this.#options.logger);
    this.#producers.delete(topic);
    this.#producers.set(topic, producer);
    if (this.#producers.size > PRODUCERS_MAX) {
      const [unused] = [...this.#producers].filter(([name, { idle }]) => idle && name !== topic);
      if (unused) {
        this.#producers.delete(unused[0]);
        void unused[1].close();
      }
    }
    return producer;
  }

  /** Asks for this topic alone: other calls retry an unknown topic for seconds. */
  async #partitionsOf(topic: string, consequence = ""): Promise<number | null> {
    try {
      const { topics } = await this.#admin.fetchTopicMetadata({ topics: [topic] });
      const partitions = topics[0]?.partitions.length ?? 0;
      if (partitions === 0) return null;
      this.#counts.set(topic, { partitions, at: this.#now() });
      return partitions;
    } catch (error) {
      if (protocolType(error) === "UNKNOWN_TOPIC_OR_PARTITION") return null;
      throw kafkaError(`cannot look up topic ${topic}${consequence}`, error);
    }
  }

  async #asked<T>(what: string, ask: (admin: Admin) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const admin = this.#admin;
      try {
        return await ask(admin);
      } catch (error) {
        const type = protocolType(error) ?? "";
        if (type === "UNKNOWN_TOPIC_OR_PARTITION" && tries === 1) await this.#replaceAdmin(admin);
        else if (STALE.has(type) && tries < RETRY.retries) await sleep(RETRY.initialRetryTime * tries);
        else throw kafkaError(what, error);
      }
    }
  }

  /** By another client, unless whoever else met the same has replaced it already. */
  async #replaceAdmin(spoiled: Admin): Promise<void> {
    if (this.#admin !== spoiled) return;
    this.#admin = this.#newAdmin();
    void spoiled.disconnect().catch(() => undefined);
    await this.#admin.connect().catch(() => undefined);
  }

  #newAdmin(): Admin {
    return this.#kafka.admin({ retry: RETRY });
  }
}

function missing(topic: string): VexError {
  return new VexError("NOT_FOUND", `no topic ${topic}`, { fields: { topic } });
}
