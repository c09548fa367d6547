/**
 * The contract of LogSource, run against every implementation. Kafka's part runs where a broker is
 * offered (VEXLAKE_TEST_KAFKA or the test harness) and says so where none is.
 */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { LogSource, ProducedMessage, StoppedState } from "../../services/common/log/source.ts";
import { VexError } from "../../services/common/process/error.ts";
import {
  eventually,
  freshTopic,
  kafkaBrokers,
  type LogUnderTest,
  numbered,
  openKafka,
  openLocal,
  Recorder,
  text,
} from "./log.support.ts";

const brokers = await kafkaBrokers();
if (!brokers) console.warn("no Kafka offered: the log contract runs against the local log only");

const implementations: { name: string; open: (() => Promise<LogUnderTest>) | null }[] = [
  { name: "local", open: openLocal },
  { name: "kafka", open: brokers && (() => openKafka(brokers)) },
];

for (const { name, open } of implementations) {
  describe.skipIf(!open)(`log contract: ${name}`, () => {
    let log: LogUnderTest;
    let source: LogSource;
    const consumers: Recorder[] = [];

    beforeAll(async () => {
      log = await (open as () => Promise<LogUnderTest>)();
      source = log.source;
    });
    afterAll(async () => {
      for (const { consumer } of consumers) await consumer.close();
      await log.close();
    });

    async function topicOf(partitions: number): Promise<string> {
      const topic = freshTopic();
      await source.ensureTopic(topic, partitions);
      return topic;
    }
    async function consume(topic: string, recorder = new Recorder()): Promise<Recorder> {
      consumers.push(recorder);
      return await recorder.consume(source, topic);
    }

    function firstStop(recorder: Recorder): Promise<StoppedState> {
      return eventually("a stopped state", () => recorder.stopped[0]);
    }

    it("should_name_its_kind_and_a_stable_cluster", async () => {
      expect(source.kind).toBe(name);
      const cluster = await source.cluster();
      expect(cluster.length).toBeGreaterThan(4);
      source = await log.reopen();
      expect(await source.cluster()).toBe(cluster);
    });

    it("should_create_a_topic_once_and_keep_its_partitions", async () => {
      const topic = await topicOf(3);
      await source.ensureTopic(topic, 5);
      const ranges = await source.ranges(topic);
      expect(ranges).toEqual([0, 1, 2].map((partition) => ({ partition, low: 0n, high: 0n })));
    });

    it("should_not_compact_the_topics_that_it_makes", async () => {
      const topic = freshTopic();
      await log.source.ensureTopic(topic, 1);
      expect(await log.source.isCompacted(topic)).toBe(false);
    });

    it("should_say_that_a_topic_is_unknown_without_making_it", async () => {
      const topic = freshTopic();
      expect(await source.ranges(topic)).toBeNull();
      await expect(source.produce(topic, [{ key: text("k"), value: null }])).rejects.toMatchObject({
        code: "NOT_FOUND",
      });
      await expect(source.consume({ topic, assignment: { kind: "all" } }, {} as never)).rejects.toMatchObject(
        {
          code: "NOT_FOUND",
        },
      );
      expect(await source.ranges(topic)).toBeNull();
    });

    it("should_answer_one_offset_per_message_in_the_partition_of_its_key", async () => {
      const topic = await topicOf(4);
      const messages = Array.from({ length: 50 }, (_, i) => ({
        key: text(`key-${i}`),
        value: text(`value-${i}`),
      }));
      const offsets = await source.produce(topic, messages);
      const seen = new Map<number, bigint>();
      offsets.forEach(({ partition, offset }, i) => {
        expect(partition).toBe(source.partitionFor(messages[i]?.key as Buffer, 4));
        expect(offset).toBe(seen.get(partition) ?? 0n);
        seen.set(partition, offset + 1n);
      });
      for (const [partition, high] of seen) {
        const values: string[] = [];
        await source.read(topic, partition, 0n, high, ({ records }) => {
          for (const { value } of records) values.push(String(value));
        });
        expect(values).toEqual(
          messages.filter((_, i) => offsets[i]?.partition === partition).map(({ value }) => String(value)),
        );
      }
    });

    it("should_keep_null_empty_and_binary_parts_apart_and_set_the_timestamp", async () => {
      const topic = await topicOf(1);
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
      await source.produce(topic, messages);
      const recorder = await consume(topic);
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
      const topic = await topicOf(2);
      const answers = await Promise.all(
        Array.from({ length: 60 }, (_, i) =>
          source.produce(topic, [
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
      const recorder = await consume(topic);
      await recorder.reached(0, 60n);
      for (const [i, pair] of answers.entries()) {
        if (i % 2 === 0) expect(recorder.values(0)[Number(pair[0]?.offset)]).toBe(`a${i}`);
      }
    });

    it("should_deliver_every_record_once_in_order_as_adjoining_batches", async () => {
      const topic = await topicOf(2);
      for (let round = 0; round < 5; round++) {
        await source.produce(topic, [...numbered(0, 1_000, `${round}-`), ...numbered(1, 500, `${round}-`)]);
      }
      const recorder = await consume(topic);
      await recorder.reached(0, 5_000n);
      await recorder.reached(1, 2_500n);
      await source.produce(topic, numbered(0, 10, "live-"));
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
      const topic = await topicOf(1);
      const large = Buffer.alloc(850_000, 7);
      const messages = Array.from({ length: 4 }, () => ({ partition: 0, key: text("k"), value: large }));
      const offsets = await source.produce(topic, [...messages, ...numbered(0, 3)]);
      expect(offsets.map(({ offset }) => offset)).toEqual([0n, 1n, 2n, 3n, 4n, 5n, 6n]);
      const recorder = await consume(topic);
      await recorder.reached(0, 7n);
      expect(recorder.records(0)[3]?.value?.equals(large)).toBe(true);
    });

    it("should_start_where_the_claim_says_not_where_anybody_stood_before", async () => {
      const topic = await topicOf(1);
      await source.produce(topic, numbered(0, 2_000));
      const group = { kind: "group", group: `g-${randomUUID()}` } as const;
      const first = await new Recorder().consume(source, topic, group);
      await first.reached(0, 2_000n);
      await first.consumer.report(new Map([[0, 2_000n]]));
      await first.consumer.close();
      const second = await new Recorder({ next: new Map([[0, 777n]]) }).consume(source, topic, group);
      consumers.push(second);
      await second.reached(0, 2_000n);
      second.checkAdjoining(0, 777n);
      expect(second.values(0)[0]).toBe("v777");
      expect(second.claims[0]).toEqual([{ partition: 0, low: 0n, high: 2_000n }]);
    });

    it("should_resume_a_paused_partition_within_a_second", async () => {
      const topic = await topicOf(2);
      const recorder = await consume(topic);
      await source.produce(topic, [...numbered(0, 1), ...numbered(1, 1)]);
      await recorder.reached(0, 1n);
      await recorder.reached(1, 1n);
      recorder.consumer.pause([0]);
      await source.produce(topic, [...numbered(0, 5), ...numbered(1, 5)]);
      await recorder.reached(1, 6n);
      recorder.consumer.pause([1]);
      expect(recorder.end(0)).toBe(1n);
      const start = performance.now();
      recorder.consumer.resume([0, 1]);
      await recorder.reached(0, 6n);
      expect(performance.now() - start).toBeLessThan(1_000);
      recorder.checkAdjoining(0, 0n);
    });

    it("should_hand_over_one_batch_of_a_partition_at_a_time_and_not_hold_up_the_others", async () => {
      const topic = await topicOf(2);
      const recorder = new Recorder();
      let open = () => {};
      let inside = 0;
      const gate = new Promise<void>((resolve) => {
        open = resolve;
      });
      recorder.gate = async ({ partition }) => {
        if (partition !== 0) return;
        inside += 1;
        expect(inside).toBe(1);
        await gate;
        inside -= 1;
      };
      await consume(topic, recorder);
      for (let i = 0; i < 10; i++) await source.produce(topic, [...numbered(0, 10), ...numbered(1, 10)]);
      await recorder.reached(1, 100n);
      expect(recorder.end(0)).toBeUndefined();
      open();
      await recorder.reached(0, 100n);
      recorder.checkAdjoining(0, 0n);
    });

    it("should_go_where_a_seek_says", async () => {
      const topic = await topicOf(1);
      await source.produce(topic, numbered(0, 3_000));
      const recorder = await consume(topic);
      await recorder.reached(0, 3_000n);
      recorder.batches.length = 0;
      recorder.consumer.seek(0, 2_990n);
      await recorder.reached(0, 3_000n);
      recorder.checkAdjoining(0, 2_990n);
      recorder.batches.length = 0;
      recorder.consumer.seek(0, 10n);
      await recorder.reached(0, 3_000n);
      recorder.checkAdjoining(0, 10n);
    });

    it("should_claim_again_when_asked_and_go_there_or_stop_there", async () => {
      const topic = await topicOf(2);
      await source.produce(topic, [...numbered(0, 100), ...numbered(1, 100)]);
      const recorder = await consume(topic);
      await recorder.reached(0, 100n);
      await recorder.reached(1, 100n);
      recorder.batches.length = 0;
      const stopped = { partition: 1, reason: "topic-recreated", message: "m", accept: "a" } as const;
      recorder.claim = () =>
        new Map<number, bigint | { stopped: typeof stopped }>([
          [0, 90n],
          [1, { stopped }],
        ]);
      await recorder.consumer.claim([0, 1, 7]);
      expect([recorder.claims.at(-1)?.map(({ partition }) => partition), recorder.stopped]).toEqual([
        [0, 1],
        [stopped],
      ]);
      await source.produce(topic, [...numbered(0, 10), ...numbered(1, 10)]);
      await recorder.reached(0, 110n);
      recorder.checkAdjoining(0, 90n);
      expect(recorder.end(1)).toBeUndefined();
      recorder.claim = () => new Map([[1, 100n]]);
      await recorder.consumer.claim([1]);
      await recorder.reached(1, 110n);
      recorder.checkAdjoining(1, 100n);
    });

    it("should_stop_a_partition_that_retention_passed_and_name_the_lost_range", async () => {
      const topic = await topicOf(2);
      const fat = Array.from({ length: 30 }, () => ({
        partition: 0,
        key: text("k"),
        value: Buffer.alloc(10_000),
      }));
      for (let i = 0; i < 3; i++) await source.produce(topic, [...fat, ...numbered(1, 10)]);
      await log.forget(topic, 0, 60n);
      source = log.source;
      const low = (await source.ranges(topic))?.[0]?.low as bigint;
      expect(low).toBeGreaterThan(0n);
      const recorder = await consume(topic, new Recorder({ next: new Map([[0, 0n]]) }));
      await recorder.reached(1, 30n);
      const state = await firstStop(recorder);
      expect(state).toMatchObject({ partition: 0, reason: "retention-passed", lost: { from: 0n, to: low } });
      expect(state.accept).toContain("vexlake source accept");
      expect(recorder.end(0)).toBeUndefined();
      recorder.consumer.seek(0, low);
      await recorder.reached(0, 90n);
      recorder.checkAdjoining(0, low);
    });

    it("should_stop_a_partition_whose_log_ends_before_the_claim", async () => {
      const topic = await topicOf(2);
      await source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
      const recorder = await consume(topic, new Recorder({ next: new Map([[0, 50n]]) }));
      await recorder.reached(1, 3n);
      const state = await firstStop(recorder);
      expect(state).toMatchObject({ partition: 0, reason: "beyond-end", lost: { from: 3n, to: 50n } });
      await source.produce(topic, [...numbered(0, 100), ...numbered(1, 1)]);
      await recorder.reached(1, 4n);
      expect(recorder.end(0)).toBeUndefined();
    });

    it("should_leave_a_partition_alone_that_the_claim_stops", async () => {
      const topic = await topicOf(2);
      await source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
      const stopped = { partition: 0, reason: "topic-recreated", message: "m", accept: "a" } as const;
      const claim = () =>
        new Map<number, bigint | { stopped: typeof stopped }>([
          [0, { stopped }],
          [1, 1n],
        ]);
      const recorder = await consume(topic, new Recorder({ claim }));
      await recorder.reached(1, 3n);
      expect(recorder.stopped).toEqual([stopped]);
      expect(recorder.records(0)).toEqual([]);
    });

    it("should_ask_again_when_a_claim_fails_for_now_and_stop_when_it_fails_for_good", async () => {
      const topic = await topicOf(1);
      await source.produce(topic, numbered(0, 3));
      let tries = 0;
      const patient = await consume(
        topic,
        new Recorder({
          claim: () => {
            tries += 1;
            if (tries < 3) throw new VexError("UNAVAILABLE", "store is away");
            return new Map([[0, 1n]]);
          },
        }),
      );
      await patient.reached(0, 3n);
      expect(patient.away).toEqual(["store is away", "store is away", null]);
      const fenced = await consume(
        topic,
        new Recorder({
          claim: () => {
            throw new VexError("FENCED", "another has the right");
          },
        }),
      );
      const state = await firstStop(fenced);
      expect(state).toMatchObject({ partition: 0, reason: "fenced" });
    });

    it("should_stop_only_the_partition_whose_batch_failed", async () => {
      const topic = await topicOf(2);
      const recorder = new Recorder();
      recorder.gate = ({ partition }) => {
        if (partition === 0) throw new VexError("INVALID", "cannot take this");
      };
      await consume(topic, recorder);
      await source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
      await recorder.reached(1, 3n);
      const state = await firstStop(recorder);
      expect(state).toMatchObject({ partition: 0, reason: "failed" });
      expect(state.message).toContain("cannot take this");
    });

    it("should_read_a_range_bounded_on_both_sides", async () => {
      const topic = await topicOf(1);
      await source.produce(topic, numbered(0, 500));
      const read = async (from: bigint, to: bigint) => {
        const values: string[] = [];
        let next = from;
        await source.read(topic, 0, from, to, (batch) => {
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
      const topic = await topicOf(1);
      await source.produce(topic, numbered(0, 5));
      const first = await consume(topic);
      await first.reached(0, 5n);
      const last = first.records(0).at(-1)?.timestamp as number;
      await eventually("the clock to move on", () => Date.now() > last + 1);
      await source.produce(topic, numbered(0, 5));
      await first.reached(0, 10n);
      expect((await source.offsetsAt(topic, 0))[0]).toMatchObject({
        partition: 0,
        offset: 0n,
        low: 0n,
        high: 10n,
      });
      expect((await source.offsetsAt(topic, last + 1))[0]?.offset).toBe(5n);
      expect((await source.offsetsAt(topic, Date.now() + 3_600_000))[0]?.offset).toBe(10n);
    });

    it("should_hold_what_was_acknowledged_after_a_restart", async () => {
      const topic = await topicOf(2);
      await source.produce(topic, [...numbered(0, 300), ...numbered(1, 200)]);
      source = await log.reopen();
      expect((await source.ranges(topic))?.map(({ high }) => high)).toEqual([300n, 200n]);
      const [next] = await source.produce(topic, numbered(0, 1, "after"));
      expect(next?.offset).toBe(300n);
      const recorder = await consume(topic);
      await recorder.reached(0, 301n);
      expect(recorder.values(0)).toEqual([...numbered(0, 300).map(({ value }) => String(value)), "after0"]);
    });

    it("should_hand_partitions_between_two_members_without_loss_or_double", async () => {
      const topic = await topicOf(4);
      const group = { kind: "group", group: `g-${randomUUID()}` } as const;
      // Both members claim from the same checkpoints, as two processes of one incarnation do.
      const next = new Map<number, bigint>();
      const first = await new Recorder({ next }).consume(source, topic, group);
      const write = async (count: number) => {
        await source.produce(
          topic,
          [0, 1, 2, 3].flatMap((partition) => numbered(partition, count)),
        );
      };
      const all = (offset: bigint) =>
        eventually(`all at ${offset}`, () => [0, 1, 2, 3].every((p) => (next.get(p) ?? 0n) >= offset));
      await write(100);
      await all(100n);
      const second = await new Recorder({ next }).consume(source, topic, group);
      consumers.push(second);
      const writing = write(100);
      await eventually("a fair share", () => first.consumer.assigned().length === 2);
      await writing;
      await write(100);
      await all(300n);
      expect([...first.consumer.assigned(), ...second.consumer.assigned()].sort()).toEqual([0, 1, 2, 3]);
      expect(first.revoked.flat()).toHaveLength(2);
      await first.consumer.close();
      await write(100);
      await all(400n);
      for (const partition of [0, 1, 2, 3]) {
        const offsets = [first, second].flatMap((member) =>
          member.records(partition).map(({ offset }) => offset),
        );
        expect(offsets.sort((a, b) => Number(a - b))).toEqual(
          Array.from({ length: 400 }, (_, i) => BigInt(i)),
        );
      }
    });

    it("should_tell_of_a_loss_only_when_no_batch_of_it_runs_any_more", async () => {
      const topic = await topicOf(2);
      const group = { kind: "group", group: `g-${randomUUID()}` } as const;
      const first = new Recorder();
      const events: string[] = [];
      const { promise: gate, resolve: open } = Promise.withResolvers<void>();
      let inside = 0;
      first.gate = async () => {
        inside += 1;
        await gate;
        events.push("batch ended");
      };
      first.onRevoked = () => events.push("revoked");
      consumers.push(await first.consume(source, topic, group));
      await source.produce(topic, [...numbered(0, 1), ...numbered(1, 1)]);
      await eventually("both inside", () => inside === 2);
      const second = new Recorder();
      const joining = second.consume(source, topic, group);
      // Kafka lets the other member claim meanwhile; the local log makes it wait for the first.
      if (name === "kafka") await eventually("the other's claim", () => second.claims.length > 0);
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
      expect(events).toEqual([]);
      open();
      consumers.push(await joining);
      await eventually("the loss", () => events.includes("revoked"));
      expect(events).toEqual(["batch ended", "batch ended", "revoked"]);
    });

    it("should_call_no_handler_after_close", async () => {
      const topic = await topicOf(1);
      const recorder = await new Recorder().consume(source, topic);
      await source.produce(topic, numbered(0, 5));
      await recorder.reached(0, 5n);
      await recorder.consumer.close();
      await source.produce(topic, numbered(0, 5));
      const later = await consume(topic);
      await later.reached(0, 10n);
      expect(recorder.end(0)).toBe(5n);
    });
  });
}
