/**
 * The contract of LogSource about consumers: claims, pauses, seeks, partitions that stop, and members that
 * share a topic. What they read is in log.contract.test.ts.
 */
import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import type { StoppedState } from "../../services/common/log/source.ts";
import { VexError } from "../../services/common/process/error.ts";
import { contract } from "./log.suite.ts";
import { eventually, numbered, Recorder, text } from "./log.support.ts";

function firstStop(recorder: Recorder): Promise<StoppedState> {
  return eventually("a stopped state", () => recorder.stopped[0]);
}

await contract("consumers", (on) => {
  it("should_start_where_the_claim_says_not_where_anybody_stood_before", async () => {
    const topic = await on.topicOf(1);
    await on.source.produce(topic, numbered(0, 2_000));
    const group = { kind: "group", group: `g-${randomUUID()}` } as const;
    const first = await new Recorder().consume(on.source, topic, group);
    await first.reached(0, 2_000n);
    await first.consumer.report(new Map([[0, 2_000n]]));
    await first.consumer.close();
    const second = await new Recorder({ next: new Map([[0, 777n]]) }).consume(on.source, topic, group);
    on.closeLater(second);
    await second.reached(0, 2_000n);
    second.checkAdjoining(0, 777n);
    expect(second.values(0)[0]).toBe("v777");
    expect(second.claims[0]).toEqual([{ partition: 0, low: 0n, high: 2_000n }]);
  });

  it("should_resume_a_paused_partition_within_a_second", async () => {
    const topic = await on.topicOf(2);
    const recorder = await on.consume(topic);
    await on.source.produce(topic, [...numbered(0, 1), ...numbered(1, 1)]);
    await recorder.reached(0, 1n);
    await recorder.reached(1, 1n);
    recorder.consumer.pause([0]);
    await on.source.produce(topic, [...numbered(0, 5), ...numbered(1, 5)]);
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
    const topic = await on.topicOf(2);
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
    await on.consume(topic, recorder);
    for (let i = 0; i < 10; i++) await on.source.produce(topic, [...numbered(0, 10), ...numbered(1, 10)]);
    await recorder.reached(1, 100n);
    expect(recorder.end(0)).toBeUndefined();
    open();
    await recorder.reached(0, 100n);
    recorder.checkAdjoining(0, 0n);
  });

  it("should_go_where_a_seek_says", async () => {
    const topic = await on.topicOf(1);
    await on.source.produce(topic, numbered(0, 3_000));
    const recorder = await on.consume(topic);
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
    const topic = await on.topicOf(2);
    await on.source.produce(topic, [...numbered(0, 100), ...numbered(1, 100)]);
    const recorder = await on.consume(topic);
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
    await on.source.produce(topic, [...numbered(0, 10), ...numbered(1, 10)]);
    await recorder.reached(0, 110n);
    recorder.checkAdjoining(0, 90n);
    expect(recorder.end(1)).toBeUndefined();
    recorder.claim = () => new Map([[1, 100n]]);
    await recorder.consumer.claim([1]);
    await recorder.reached(1, 110n);
    recorder.checkAdjoining(1, 100n);
  });

  it("should_stop_a_partition_that_retention_passed_and_name_the_lost_range", async () => {
    const topic = await on.topicOf(2);
    const fat = Array.from({ length: 30 }, () => ({
      partition: 0,
      key: text("k"),
      value: Buffer.alloc(10_000),
    }));
    for (let i = 0; i < 3; i++) await on.source.produce(topic, [...fat, ...numbered(1, 10)]);
    await on.log.forget(topic, 0, 60n);
    const low = (await on.source.ranges(topic))?.[0]?.low as bigint;
    expect(low).toBeGreaterThan(0n);
    const recorder = await on.consume(topic, new Recorder({ next: new Map([[0, 0n]]) }));
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
    const topic = await on.topicOf(2);
    await on.source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
    const recorder = await on.consume(topic, new Recorder({ next: new Map([[0, 50n]]) }));
    await recorder.reached(1, 3n);
    const state = await firstStop(recorder);
    expect(state).toMatchObject({ partition: 0, reason: "beyond-end", lost: { from: 3n, to: 50n } });
    await on.source.produce(topic, [...numbered(0, 100), ...numbered(1, 1)]);
    await recorder.reached(1, 4n);
    expect(recorder.end(0)).toBeUndefined();
  });

  it("should_leave_a_partition_alone_that_the_claim_stops", async () => {
    const topic = await on.topicOf(2);
    await on.source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
    const stopped = { partition: 0, reason: "topic-recreated", message: "m", accept: "a" } as const;
    const claim = () =>
      new Map<number, bigint | { stopped: typeof stopped }>([
        [0, { stopped }],
        [1, 1n],
      ]);
    const recorder = await on.consume(topic, new Recorder({ claim }));
    await recorder.reached(1, 3n);
    expect(recorder.stopped).toEqual([stopped]);
    expect(recorder.records(0)).toEqual([]);
  });

  it("should_ask_again_when_a_claim_fails_for_now_and_stop_when_it_fails_for_good", async () => {
    const topic = await on.topicOf(1);
    await on.source.produce(topic, numbered(0, 3));
    let tries = 0;
    const patient = await on.consume(
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
    const fenced = await on.consume(
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
    const topic = await on.topicOf(2);
    const recorder = new Recorder();
    recorder.gate = ({ partition }) => {
      if (partition === 0) throw new VexError("INVALID", "cannot take this");
    };
    await on.consume(topic, recorder);
    await on.source.produce(topic, [...numbered(0, 3), ...numbered(1, 3)]);
    await recorder.reached(1, 3n);
    const state = await firstStop(recorder);
    expect(state).toMatchObject({ partition: 0, reason: "failed" });
    expect(state.message).toContain("cannot take this");
  });

  it("should_hand_partitions_between_two_members_without_loss_or_double", async () => {
    const topic = await on.topicOf(4);
    const group = { kind: "group", group: `g-${randomUUID()}` } as const;
    // Both members claim from the same checkpoints, as two processes of one incarnation do.
    const next = new Map<number, bigint>();
    const first = await new Recorder({ next }).consume(on.source, topic, group);
    const write = async (count: number) => {
      await on.source.produce(
        topic,
        [0, 1, 2, 3].flatMap((partition) => numbered(partition, count)),
      );
    };
    const all = (offset: bigint) =>
      eventually(`all at ${offset}`, () => [0, 1, 2, 3].every((p) => (next.get(p) ?? 0n) >= offset));
    await write(100);
    await all(100n);
    const second = await new Recorder({ next }).consume(on.source, topic, group);
    on.closeLater(second);
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
      expect(offsets.sort((a, b) => Number(a - b))).toEqual(Array.from({ length: 400 }, (_, i) => BigInt(i)));
    }
  });

  it("should_tell_of_a_loss_only_when_no_batch_of_it_runs_any_more", async () => {
    const topic = await on.topicOf(2);
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
    on.closeLater(await first.consume(on.source, topic, group));
    await on.source.produce(topic, [...numbered(0, 1), ...numbered(1, 1)]);
    await eventually("both inside", () => inside === 2);
    const second = new Recorder();
    const joining = second.consume(on.source, topic, group);
    // Kafka lets the other member claim meanwhile; the local log makes it wait for the first.
    if (on.name === "kafka") await eventually("the other's claim", () => second.claims.length > 0);
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(events).toEqual([]);
    open();
    on.closeLater(await joining);
    await eventually("the loss", () => events.includes("revoked"));
    expect(events).toEqual(["batch ended", "batch ended", "revoked"]);
  });

  it("should_call_no_handler_after_close", async () => {
    const topic = await on.topicOf(1);
    const recorder = await new Recorder().consume(on.source, topic);
    await on.source.produce(topic, numbered(0, 5));
    await recorder.reached(0, 5n);
    await recorder.consumer.close();
    await on.source.produce(topic, numbered(0, 5));
    const later = await on.consume(topic);
    await later.reached(0, 10n);
    expect(recorder.end(0)).toBe(5n);
  });
});
