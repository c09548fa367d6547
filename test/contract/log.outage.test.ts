/**
 * A broker that dies and comes back under a running source: partitions wait, writes are answered, and
 * nothing is lost, read twice or needs a restart of ours. The suite owns its broker.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { KafkaSource } from "../../services/common/log/kafka/source.ts";
import { type VexError, vexErrorFrom } from "../../services/common/process/error.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { ownKafka, suite, temporaryFolder } from "../harness/services.ts";
import { eventually, freshTopic, numbered, Recorder } from "./log.support.ts";

/** A restarted broker, kafkajs' retries (~4 s) and a group join behind it. */
const RECOVERY_MS = 60_000;

await suite(["kafka"], "a broker outage", () => {
  const folder = temporaryFolder("vexlake-outage-");
  let kafka: Awaited<ReturnType<typeof ownKafka>>;
  let source: KafkaSource;

  beforeAll(async () => {
    kafka = await ownKafka(folder.path);
    source = new KafkaSource({ brokers: [kafka.brokers], logger: silentLogger() });
    await source.start();
  });
  afterAll(async () => {
    await source?.close();
    await kafka?.stop();
    folder.remove();
  });

  it("should_wait_and_go_on_without_loss_or_double_for_both_assignments", { timeout: 180_000 }, async () => {
    const topic = freshTopic();
    await source.ensureTopic(topic, 2);
    const all = await new Recorder().consume(source, topic);
    const member = await new Recorder().consume(source, topic, { kind: "group", group: `g-${topic}` });
    await source.produce(topic, [...numbered(0, 50), ...numbered(1, 50)]);
    for (const recorder of [all, member]) await recorder.reached(0, 50n);

    const exited = new Promise<void>((resolve) => {
      void eventually("the broker's end", () => !alive(kafka.supervised.pid)).then(() => resolve());
    });
    process.kill(kafka.supervised.pid, "SIGKILL");
    await exited;
    const refused = await eventually("a certain refusal", async () => {
      const error = await failure(source.produce(topic, numbered(0, 1, "lost-")));
      return error.doubt ? null : error;
    });
    expect(refused).toMatchObject({ code: "UNAVAILABLE", retriable: true });
    expect(refused.message).toContain("nothing was sent");

    const { port } = kafka;
    kafka = await ownKafka(folder.path, port);
    const answers = await eventually(
      "an acknowledged write",
      () => source.produce(topic, [...numbered(0, 5, "back-"), ...numbered(1, 5, "back-")]).catch(() => null),
      RECOVERY_MS,
    );
    const next = new Map(answers.map(({ partition, offset }) => [partition, offset + 1n]));
    for (const recorder of [all, member]) {
      for (const partition of [0, 1]) {
        const end = next.get(partition) as bigint;
        await eventually(`${partition} at ${end}`, () => (recorder.end(partition) ?? 0n) >= end, RECOVERY_MS);
        recorder.checkAdjoining(partition, 0n);
        expect(recorder.values(partition).slice(-5)).toEqual(
          numbered(0, 5, "back-").map(({ value }) => String(value)),
        );
      }
      expect(recorder.stopped).toEqual([]);
      expect(recorder.away.at(-1) ?? null).toBeNull();
      await recorder.consumer.close();
    }
  });
});

async function failure(work: Promise<unknown>): Promise<VexError> {
  return await work.then(
    () => {
      throw new Error("a write to a dead broker was acknowledged");
    },
    (thrown: unknown) => vexErrorFrom(thrown),
  );
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
