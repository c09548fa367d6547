/**
 * The contract of LogSource about logs: topics, what is produced, delivered and read, and what a restart
 * keeps. How a consumer behaves is in log.consumers.test.ts.
 */
import { expect, it } from "vitest";
import type { ProducedMessage } from "../../services/common/log/source.ts";
import { contract } from "./log.suite.ts";
import { eventually, freshTopic, numbered, text } from "./log.support.ts";

await contract("logs", (on) => {
  it("should_name_its_kind_and_a_stable_cluster", async () => {
    expect(on.source.kind).toBe(on.name);
    const cluster = await on.source.cluster();
    expect(cluster.length).toBeGreaterThan(4);
    await on.log.reopen();
    expect(await on.source.cluster()).toBe(cluster);
  });

  it("should_create_a_topic_once_and_keep_its_partitions", async () => {
    const topic = await on.topicOf(3);
    await on.source.ensureTopic(topic, 5);
    const ranges = await on.source.ranges(topic);
    expect(ranges).toEqual([0, 1, 2].map((partition) => ({ partition, low: 0n, high: 0n })));
  });

  it("should_not_compact_the_topics_that_it_makes", async () => {
    const topic = freshTopic();
    await on.source.ensureTopic(topic, 1);
    expect(await on.source.isCompacted(topic)).toBe(false);
  });

  it("should_say_that_a_topic_is_unknown_without_making_it", async () => {
    const topic = freshTopic();
    expect(await on.source.ranges(topic)).toBeNull();
    await expect(on.source.produce(topic, [{ key: text("k"), value: null }])).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    await expect(
      on.source.consume({ topic, assignment: { kind: "all" } }, {} as never),
    ).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    expect(await on.source.ranges(topic)).toBeNull();
  });

  it("should_answer_one_offset_per_message_in_the_partition_of_its_key", async () => {
    const topic = await on.topicOf(4);
    const messages = Array.from({ length: 50 }, (_, i) => ({
      key: text(`key-${i}`),
      value: text(`value-${i}`),
    }));
    const offsets = await on.source.produce(topic, messages);
    const seen = new Map<number, bigint>();
    offsets.forEach(({ partition, offset }, i) => {
      expect(partition).toBe(on.source.partitionFor(messages[i]?.key as Buffer, 4));
      expect(offset).toBe(seen.get(partition) ?? 0n);
      seen.set(partition, offset + 1n);
    });
    for (const [partition, high] of seen) {
      const values: string[] = [];
      await on.source.read(topic, partition, 0n, high, ({ records }) => {
        for (const { value } of records) values.push(String(value));
      });
      expect(values).toEqual(
        messages.filter((_, i) => offsets[i]?.partition === partition).map(({ value }) => String(value)),
      );
    }
  });

  it("should_keep_null_empty_and_binary_parts_apart_and_set_the_timestamp", async () => {
    const topic = await on.topicOf(1);
    const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    const before = Date.now() - 1_000;
    const messages: ProducedMessage[] = [
      { partition: 0, key: null, value: null, timestamp: 5 },
      { partition: 0, key: text(""), value: text("") },
      {
        partition: 0,
        key: binary,
        value: binary,
        headers: { "vexlake-op": "upsert", "vexlake-attrs": text("") },
      },
    ];
    await on.source.produce(topic, messages);
    const recorder = await on.consume(topic);
    await recorder.reached(0, 3n);
    const [first, second, third] = recorder.records(0);
    expect([first?.key, first?.value]).toEqual([null, null]);
    expect([second?.key?.length, second?.value?.length]).toEqual([0, 0]);
    expect(third?.key?.equals(binary) && third.value?.equals(binary)).toBe(true);
    expect(String(third?.headers["vexlake-op"])).toBe("upsert");
    expect(third?.headers["vexlake-attrs"]?.length).toBe(0);
    expect(third?.headers["vexlake-format"]).toBeUndefined();
    for (const record of recorder.records(0)) {
      expect(record.timestamp).toBeGreaterThan(before);
      expect(record.timestamp).toBeLessThan(Date.now() + 60_000);
    }
  });

  it("should_give_concurrent_writers_offsets_without_gap_or_double", async () => {
    const topic = await on.topicOf(2);
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) =>
        on.source.produce(topic, [
          { partition: i % 2, key: text(`a${i}`), value: text(`a${i}`) },
          { partition: i % 2, key: text(`b${i}`), value: text(`b${i}`) },
        ]),
      ),
    );
    for (const partition of [0, 1]) {
      const offsets = answers.flat().filter((answer) => answer.partition === partition);
      expect(offsets.map(({ offset }) => offset).sort((a, b) => Number(a - b))).toEqual(
        Array.from({ length: 60 }, (_, i) => BigInt(i)),
      );
    }
    const recorder = await on.consume(topic);
    await recorder.reached(0, 60n);
    for (const [i, pair] of answers.entries()) {
      if (i % 2 === 0) expect(recorder.values(0)[Number(pair[0]?.offset)]).toBe(`a${i}`);
    }
  });

  it("should_deliver_every_record_once_in_order_as_adjoining_batches", async () => {
    const topic = await on.topicOf(2);
    for (let round = 0; round < 5; round++) {
      await on.source.produce(topic, [...numbered(0, 1_000, `${round}-`), ...numbered(1, 500, `${round}-`)]);
    }
    const recorder = await on.consume(topic);
    await recorder.reached(0, 5_000n);
    await recorder.reached(1, 2_500n);
    await on.source.produce(topic, numbered(0, 10, "live-"));
    await recorder.reached(0, 5_010n);
    recorder.checkAdjoining(0, 0n);
    recorder.checkAdjoining(1, 0n);
    const expected = [0, 1, 2, 3, 4].flatMap((round) =>
      numbered(0, 1_000, `${round}-`).map((m) => String(m.value)),
    );
    expect(recorder.values(0).slice(0, 5_000)).toEqual(expected);
    const times = recorder.records(0).map(({ timestamp }) => timestamp);
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(recorder.consumer.highWatermark(0)).toBe(5_010n);
    expect(recorder.consumer.highWatermark(7)).toBeUndefined();
    expect(recorder.consumer.assigned()).toEqual([0, 1]);
  });

  it("should_carry_records_larger_than_one_read", async () => {
    const topic = await on.topicOf(1);
    const large = Buffer.alloc(850_000, 7);
    const messages = Array.from({ length: 4 }, () => ({ partition: 0, key: text("k"), value: large }));
    const offsets = await on.source.produce(topic, [...messages, ...numbered(0, 3)]);
    expect(offsets.map(({ offset }) => offset)).toEqual([0n, 1n, 2n, 3n, 4n, 5n, 6n]);
    const recorder = await on.consume(topic);
    await recorder.reached(0, 7n);
    expect(recorder.records(0)[3]?.value?.equals(large)).toBe(true);
  });

  it("should_read_a_range_bounded_on_both_sides", async () => {
    const topic = await on.topicOf(1);
    await on.source.produce(topic, numbered(0, 500));
    const read = async (from: bigint, to: bigint) => {
      const values: string[] = [];
      let next = from;
      await on.source.read(topic, 0, from, to, (batch) => {
        expect(batch.from).toBe(next);
        next = batch.to;
        for (const { value } of batch.records) values.push(String(value));
      });
      return { values, next };
    };
    expect(await read(100n, 103n)).toEqual({ values: ["v100", "v101", "v102"], next: 103n });
    expect(await read(498n, 900n)).toEqual({ values: ["v498", "v499"], next: 500n });
    expect(await read(500n, 501n)).toEqual({ values: [], next: 500n });
    await expect(read(700n, 701n)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("should_find_offsets_by_time", async () => {
    const topic = await on.topicOf(1);
    await on.source.produce(topic, numbered(0, 5));
    const first = await on.consume(topic);
    await first.reached(0, 5n);
    const last = first.records(0).at(-1)?.timestamp as number;
    await eventually("the clock to move on", () => Date.now() > last + 1);
    await on.source.produce(topic, numbered(0, 5));
    await first.reached(0, 10n);
    expect((await on.source.offsetsAt(topic, 0))[0]).toMatchObject({
      partition: 0,
      offset: 0n,
      low: 0n,
      high: 10n,
    });
    expect((await on.source.offsetsAt(topic, last + 1))[0]?.offset).toBe(5n);
    expect((await on.source.offsetsAt(topic, Date.now() + 3_600_000))[0]?.offset).toBe(10n);
  });

  it("should_hold_what_was_acknowledged_after_a_restart", async () => {
    const topic = await on.topicOf(2);
    await on.source.produce(topic, [...numbered(0, 300), ...numbered(1, 200)]);
    await on.log.reopen();
    expect((await on.source.ranges(topic))?.map(({ high }) => high)).toEqual([300n, 200n]);
    const [next] = await on.source.produce(topic, numbered(0, 1, "after"));
    expect(next?.offset).toBe(300n);
    const recorder = await on.consume(topic);
    await recorder.reached(0, 301n);
    expect(recorder.values(0)).toEqual([...numbered(0, 300).map(({ value }) => String(value)), "after0"]);
  });
});
