/**
 * Bounded reads of one partition without a group: fetch by fetch at the offset that we name.
 *
 * Used for fingerprints, verify and dead letters. A throw-away group would do as well, but a default
 * broker keeps a new group waiting for 3 s, on every claim, and a group consumer that is out of range
 * moves by itself. Here the broker's OFFSET_OUT_OF_RANGE is simply an error.
 *
 * Left out on purpose: a stretch that compaction emptied to record batches without records, which
 * kafkajs cannot tell from the end of the log; such a read fails after IDLE_FETCHES_MAX.
 */
import type { Consumer, Kafka } from "kafkajs";
import { VexError } from "../../process/error.ts";
import type { LogBatch } from "../source.ts";
import { everything } from "./assigner.ts";
import { RETRY } from "./client.ts";
import { kafkaError, protocolType, STALE } from "./errors.ts";
import { type Cluster, type FetchedPartition, KafkaBatch } from "./internals.ts";
import { recordsOf } from "./records.ts";

const FETCH_WAIT_MS = 250;
const FETCH_BYTES_MAX = 4 * 1024 * 1024;
/** 40 × 250 ms: an open transaction below the high mark holds a read back for at most 10 s. */
const IDLE_FETCHES_MAX = 40;
/** A leader may move twice during a rolling restart while one range is read. */
const METADATA_TRIES_MAX = 6;
const READ_COMMITTED = 1;

export class KafkaReader {
  readonly #kafka: Kafka;
  #connection: Promise<{ consumer: Consumer; cluster: Cluster }> | null = null;

  constructor(kafka: Kafka) {
    this.#kafka = kafka;
  }

  async read(
    topic: string,
    partition: number,
    from: bigint,
    to: bigint,
    onBatch: (batch: LogBatch) => Promise<void> | void,
  ): Promise<void> {
    let position = from;
    let idle = 0;
    while (position < to) {
      const data = await this.#fetch(topic, partition, position);
      const batch = new KafkaBatch(topic, String(position), data);
      if (batch.rawMessages.length === 0) {
        if (position >= BigInt(data.highWatermark)) return;
        idle += 1;
        if (idle >= IDLE_FETCHES_MAX) {
          const message = `${topic}/${partition} gives nothing at ${position}, below its end ${data.highWatermark}`;
          throw new VexError("UNAVAILABLE", message, { fields: { topic, partition, offset: position } });
        }
        continue;
      }
      idle = 0;
      const end = BigInt(batch.lastOffset()) + 1n;
      const next = end > to ? to : end;
      const records = recordsOf(batch.messages).filter(({ offset }) => offset < to);
      await onBatch({ partition, from: position, to: next, records });
      position = next;
    }
  }

  /** Commits offsets under a group that has no members (simple consumer), for lag tools. */
  async report(topic: string, groupId: string, offsets: Map<number, bigint>): Promise<void> {
    const cluster = await this.#connected();
    const coordinator = await cluster.findGroupCoordinator({ groupId });
    await coordinator.offsetCommit({
      groupId,
      memberId: "",
      groupGenerationId: -1,
      topics: [
        {
          topic,
          partitions: [...offsets].map(([partition, offset]) => ({ partition, offset: String(offset) })),
        },
      ],
    });
  }

  async close(): Promise<void> {
    const connection = this.#connection;
    this.#connection = null;
    await (await connection?.catch(() => null))?.consumer.disconnect();
  }

  async #connected(): Promise<Cluster> {
    this.#connection ??= this.#connect();
    return (await this.#connection).cluster;
  }

  async #connect(): Promise<{ consumer: Consumer; cluster: Cluster }> {
    let cluster: Cluster | undefined;
    // Never run, so it never joins: it only lends its cluster.
    const consumer = this.#kafka.consumer({
      groupId: "vexlake-reader",
      allowAutoTopicCreation: false,
      retry: RETRY,
      partitionAssigners: [
        everything((lent) => {
          cluster = lent;
        }),
      ],
    });
    try {
      await consumer.connect();
    } catch (error) {
      this.#connection = null;
      throw kafkaError("the log cannot be reached", error);
    }
    return { consumer, cluster: cluster as Cluster };
  }

  async #fetch(topic: string, partition: number, offset: bigint): Promise<FetchedPartition> {
    let replaced = false;
    for (let tries = 1; ; tries++) {
      const cluster = await this.#connected();
      try {
        await cluster.addTargetTopic(topic);
        await cluster.refreshMetadataIfNecessary();
        const [nodeId] = Object.keys(cluster.findLeaderForPartitions(topic, [partition]));
        if (nodeId === undefined) {
          throw new VexError("NOT_FOUND", `the log holds no ${topic}/${partition}`, {
            fields: { topic, partition },
          });
        }
        const broker = await cluster.findBroker({ nodeId });
        const { responses } = await broker.fetch({
          isolationLevel: READ_COMMITTED,
          maxWaitTime: FETCH_WAIT_MS,
          minBytes: 1,
          maxBytes: FETCH_BYTES_MAX,
          topics: [
            { topic, partitions: [{ partition, fetchOffset: String(offset), maxBytes: FETCH_BYTES_MAX }] },
          ],
        });
        return responses[0]?.partitions[0] as FetchedPartition;
      } catch (error) {
        const unknown = protocolType(error) === "UNKNOWN_TOPIC_OR_PARTITION";
        // A topic that another read used and that is gone by now fails this one, too: see KafkaSource. So
        // only a second client that does not know the topic is believed.
        if (unknown && !replaced) {
          replaced = true;
          await this.close();
        } else await this.#recover(cluster, topic, partition, offset, error, tries);
      }
    }
  }

  async #recover(
    cluster: Cluster,
    topic: string,
    partition: number,
    offset: bigint,
    error: unknown,
    tries: number,
  ): Promise<void> {
    if (error instanceof VexError) throw error;
    const type = protocolType(error);
    if (type === "OFFSET_OUT_OF_RANGE") {
      throw new VexError("NOT_FOUND", `${topic}/${partition} does not hold offset ${offset}`, {
        cause: error,
        fields: { topic, partition, offset },
      });
    }
    const name = (error as Error).name;
    const connection = name.startsWith("KafkaJSConnection") || name === "KafkaJSBrokerNotFound";
    if (tries >= METADATA_TRIES_MAX || !(connection || STALE.has(type ?? ""))) {
      throw kafkaError(`cannot read ${topic}/${partition} at ${offset}`, error);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY.initialRetryTime * tries));
    await cluster.refreshMetadata().catch(() => undefined);
  }
}
