/**
 * What only Kafka can do to a consumer: transactions, codecs, resets, added partitions, deleted topics.
 */
import { randomUUID } from "node:crypto";
import kafkajs, { type CompressionTypes, type Kafka } from "kafkajs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CoreFeed } from "../../services/common/feed/core.ts";
import { Feed } from "../../services/common/feed/feed.ts";
import { MemoryBudget } from "../../services/common/feed/memory.ts";
import { decompressSnappy } from "../../services/common/log/kafka/codecs.ts";
import type { LogSource } from "../../services/common/log/source.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import {
  eventually,
  freshTopic,
  kafkaBrokers,
  type LogUnderTest,
  numbered,
  openKafka,
  plainKafka,
  Recorder,
  text,
  withAdmin,
} from "./log.support.ts";

const brokers = (await kafkaBrokers()) as string[];

describe.skipIf(!brokers)("log on Kafka", () => {
  let log: LogUnderTest;
  let source: LogSource;
  let kafka: Kafka;
  const recorders: Recorder[] = [];

  beforeAll(async () => {
    log = await openKafka(brokers);
    source = log.source;
    kafka = await plainKafka(brokers);
  });
  afterAll(async () => {
    for (const { consumer } of recorders) await consumer.close();
    await log.close();
  });

  async function topicOf(partitions: number): Promise<string> {
    const topic = freshTopic();
    await source.ensureTopic(topic, partitions);
    return topic;
  }
  async function consume(topic: string, recorder = new Recorder()): Promise<Recorder> {
    recorders.push(recorder);
    return await recorder.consume(source, topic);
  }
  async function transactions(topic: string, steps: { values: string[]; commit: boolean }[]): Promise<void> {
    const producer = kafka.producer({
      transactionalId: `t-${randomUUID()}`,
      maxInFlightRequests: 1,
      idempotent: true,
    });
    await producer.connect();
    for (const { values, commit } of steps) {
      const transaction = await producer.transaction();
      const messages = values.map((value) => ({ partition: 0, key: value, value }));
      await transaction.send({ topic, messages });
      if (commit) await transaction.commit();
      else await transaction.abort();
    }
    await producer.disconnect();
  }

  it("should_make_topics_that_keep_everything_under_the_log's_own_clock", async () => {
    const topic = await topicOf(1);
    const { resources } = await withAdmin(brokers, (admin) =>
      admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic }],
      }),
    );
    const config = new Map(
      resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue]),
    );
    expect(config.get("message.timestamp.type")).toBe("LogAppendTime");
    expect(config.get("retention.ms")).toBe("-1");
    expect(config.get("cleanup.policy")).toBe("delete");
  });

  it("should_recognise_topics_that_others_made_as_compacted", async () => {
    for (const policy of ["compact", "compact,delete"]) {
      const topic = freshTopic();
      const configEntries = [{ name: "cleanup.policy", value: policy }];
      await withAdmin(brokers, (admin) =>
        admin.createTopics({ topics: [{ topic, numPartitions: 1, configEntries }], waitForLeaders: true }),
      );
      expect(await source.isCompacted(topic), policy).toBe(true);
    }
  });

  it("should_account_for_aborted_and_control_offsets_between_and_after_records", async () => {
    const topic = await topicOf(1);
    await transactions(topic, [
      { values: ["a", "b", "c"], commit: true },
      { values: ["x", "y"], commit: false },
      { values: ["d"], commit: true },
    ]);
    // a b c commit x y abort d commit
    const recorder = await consume(topic);
    await recorder.reached(0, 9n);
    expect(recorder.values(0)).toEqual(["a", "b", "c", "d"]);
    expect(recorder.records(0).map(({ offset }) => offset)).toEqual([0n, 1n, 2n, 7n]);
    recorder.checkAdjoining(0, 0n);
    // A consumer that is at the end meets fetches of nothing but aborted records and markers.
    await transactions(topic, [
      { values: ["x", "y", "z"], commit: false },
      { values: ["x"], commit: false },
    ]);
    await recorder.reached(0, 15n);
    await source.produce(topic, [{ partition: 0, key: text("e"), value: text("e") }]);
    await recorder.reached(0, 16n);
    expect(recorder.values(0)).toEqual(["a", "b", "c", "d", "e"]);
    recorder.checkAdjoining(0, 0n);
    expect(recorder.stopped).toEqual([]);
  });

  it("should_cover_gaps_in_a_bounded_read_as_well", async () => {
    const topic = await topicOf(1);
    await transactions(topic, [
      { values: ["x", "y"], commit: false },
      { values: ["a"], commit: true },
    ]);
    const seen: unknown[] = [];
    await source.read(topic, 0, 0n, 5n, ({ from, to, records }) => {
      seen.push(...records.map(({ offset, value }) => `${offset}=${value}`), `[${from},${to})`);
    });
    expect(seen.filter((entry) => !String(entry).startsWith("["))).toEqual(["3=a"]);
    expect(String(seen.at(-1))).toContain(",5)");
  });

  it("should_read_every_codec", async () => {
    const { GZIP, LZ4, None, Snappy, ZSTD } = kafkajs.CompressionTypes;
    const topic = await topicOf(1);
    const producer = kafka.producer();
    await producer.connect();
    const large = "0123456789".repeat(5_000);
    for (const compression of [None, GZIP, Snappy, LZ4, ZSTD] as CompressionTypes[]) {
      const messages = [{ partition: 0, key: `${compression}`, value: large }];
      await producer.send({ topic, compression, messages });
    }
    await producer.disconnect();
    const recorder = await consume(topic);
    await recorder.reached(0, 5n);
    expect(recorder.records(0).map(({ key }) => String(key))).toEqual(
      [None, GZIP, Snappy, LZ4, ZSTD].map(String),
    );
    for (const value of recorder.values(0)) expect(value).toBe(large);
  });

  it("should_read_snappy_in_the_chunks_that_java_writes", async () => {
    const { compress } = await import("snappy");
    const parts = ["hello ", "world"];
    const frames = [Buffer.from("82534e41505059000000000100000001", "hex")];
    for (const part of parts) {
      const chunk = Buffer.from(await compress(part));
      const length = Buffer.alloc(4);
      length.writeUInt32BE(chunk.length);
      frames.push(length, chunk);
    }
    expect(String(await decompressSnappy(Buffer.concat(frames)))).toBe("hello world");
    await expect(decompressSnappy(Buffer.concat(frames).subarray(0, -3))).rejects.toMatchObject({
      code: "CORRUPT",
    });
  });

  it("should_stop_when_retention_overtakes_a_running_consumer_instead_of_following_kafkajs", async () => {
    const topic = await topicOf(2);
    await source.produce(topic, [...numbered(0, 10), ...numbered(1, 10)]);
    const recorder = await consume(topic);
    await recorder.reached(0, 10n);
    await recorder.reached(1, 10n);
    recorder.consumer.pause([0]);
    await source.produce(topic, [...numbered(0, 50), ...numbered(1, 50)]);
    await recorder.reached(1, 60n);
    await log.forget(topic, 0, 40n);
    recorder.consumer.resume([0]);
    const state = await eventually("stopped", () => recorder.stopped[0]);
    expect(state).toMatchObject({ partition: 0, reason: "retention-passed", lost: { from: 10n, to: 40n } });
    expect(recorder.end(0)).toBe(10n);
    await source.produce(topic, [...numbered(0, 5), ...numbered(1, 5)]);
    await recorder.reached(1, 65n);
    expect(recorder.end(0)).toBe(10n);
    recorder.batches.length = 0;
    recorder.consumer.seek(0, 40n);
    await recorder.reached(0, 65n);
    recorder.checkAdjoining(0, 40n);
  });

  it("should_claim_added_partitions_beside_the_others", async () => {
    const topic = await topicOf(1);
    await source.produce(topic, numbered(0, 5));
    const recorder = await consume(topic);
    await recorder.reached(0, 5n);
    await withAdmin(brokers, (admin) => admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] }));
    await eventually("a claim of both", () => recorder.claims.some((ranges) => ranges.length === 2));
    await source.produce(topic, [...numbered(0, 5), ...numbered(1, 5)]);
    await recorder.reached(0, 10n);
    await recorder.reached(1, 5n);
    recorder.checkAdjoining(0, 0n);
  });

  it("should_end_with_a_named_state_when_the_topic_is_deleted_under_a_consumer", async () => {
    const topic = await topicOf(1);
    const recorder = await consume(topic);
    await source.produce(topic, numbered(0, 5));
    await recorder.reached(0, 5n);
    await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [topic] }));
    const state = await eventually("stopped", () => recorder.stopped[0]);
    // No partition: kafkajs never joins again, so all of the consumer has ended.
    expect([state.reason, state.partition]).toEqual(["topic-missing", undefined]);
    await recorder.consumer.close();
    expect(await source.ranges(topic)).toBeNull();
  });

  it("should_begin_again_with_a_new_consumer_once_a_deleted_topic_is_there_again", async () => {
    const topic = await topicOf(1);
    const applied = new Map<number, bigint>([[0, 0n]]);
    const core: CoreFeed = {
      append: async ({ partition, to }) => {
        applied.set(partition, to);
        return { next: to, accepted: 0, notRecords: 0, memtableBytes: 0, bad: [], acks: [] };
      },
      refresh: async () => {
        const partitions = [...applied].map(([partition, next]) => ({
          source: 0,
          partition,
          applied: String(next),
          checkpoint: { next: String(next), last: null },
        }));
        return JSON.stringify({ retired: false, feedBytes: 0, partitions });
      },
    };
    const assignment = { kind: "all" } as const;
    const rest = { logger: silentLogger(), incarnation: "i", sourceId: 0, budget: new MemoryBudget(1e9) };
    const feed = new Feed({ ...rest, source, core, topic, assignment });
    await feed.start();
    await source.produce(topic, numbered(0, 5));
    expect(await feed.waitFor(0, 5n, 20_000)).toBe(true);
    await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [topic] }));
    await eventually("the missing topic", () => feed.stopped()[0]?.reason === "topic-missing", 60_000);
    await eventually("a topic of that name", () =>
      source.ensureTopic(topic, 1).then(
        () => true,
        () => false,
      ),
    );
    await eventually("the shorter log", () => feed.stopped()[0]?.reason === "beyond-end", 60_000);
    // A person accepts, and what stopped is looked at again.
    applied.set(0, 0n);
    await source.produce(topic, numbered(0, 7));
    await eventually("the way on", async () => {
      await feed.retryStopped();
      return feed.stopped().length === 0 && applied.get(0) === 7n;
    });
    await feed.close();
  });

  it("should_serve_other_topics_after_one_that_it_used_was_deleted", async () => {
    const [gone, stays] = [await topicOf(1), await topicOf(1)];
    const use = async (topic: string) => {
      const [written] = await source.produce(topic, numbered(0, 1));
      await source.read(topic, 0, 0n, (written?.offset as bigint) + 1n, () => undefined);
      return (await source.ranges(topic))?.[0]?.high;
    };
    expect(await use(gone)).toBe(1n);
    await withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [gone] }));
    expect(await use(stays)).toBe(1n);
    expect(await use(await topicOf(1))).toBe(1n);
    expect(await source.ranges(gone)).toBeNull();
    expect(await use(stays)).toBe(2n);
  });

  it("should_report_offsets_under_the_group's_name_from_a_fixed_assignment", async () => {
    const topic = await topicOf(2);
    const group = `g-${randomUUID()}`;
    await source.produce(topic, [...numbered(0, 5), ...numbered(1, 5)]);
    const recorder = new Recorder();
    recorders.push(recorder);
    await recorder.consume(source, topic, { kind: "all", group });
    await recorder.reached(0, 5n);
    await recorder.consumer.report(
      new Map([
        [0, 4n],
        [1, 5n],
      ]),
    );
    const [reported] = await withAdmin(brokers, (admin) =>
      admin.fetchOffsets({ groupId: group, topics: [topic] }),
    );
    expect(reported?.partitions.map(({ offset }) => offset).sort()).toEqual(["4", "5"]);
  });

  it("should_say_for_certain_that_a_refused_record_was_not_written", async () => {
    const topic = await topicOf(1);
    const tooLarge = { partition: 0, key: text("k"), value: Buffer.alloc(1_200_000) };
    await expect(source.produce(topic, [tooLarge])).rejects.toMatchObject({ code: "INVALID", doubt: false });
    const [offset] = await source.produce(topic, numbered(0, 1));
    expect(offset?.offset).toBe(0n);
  });

  it("should_take_more_in_one_call_than_fits_in_one_request", async () => {
    const topic = await topicOf(2);
    const value = Buffer.alloc(4_000, 1);
    const messages = Array.from({ length: 3_000 }, (_, i) => ({
      partition: i % 2,
      key: text(`${i}`),
      value,
    }));
    const offsets = await source.produce(topic, messages);
    expect(offsets.map(({ offset }) => offset)).toEqual(messages.map((_, i) => BigInt(Math.floor(i / 2))));
    const recorder = await consume(topic);
    await recorder.reached(0, 1_500n);
    expect(recorder.records(0).map(({ key }) => String(key))).toEqual(
      Array.from({ length: 1_500 }, (_, i) => String(2 * i)),
    );
  });
});
