/**
 * Runs a part of the contract of LogSource against every implementation. Kafka's turn comes where a broker
 * is offered (VEXLAKE_TEST_KAFKA or the test harness), and its absence is said aloud.
 */
import { afterAll, beforeAll, describe } from "vitest";
import type { LogSource } from "../../services/common/log/source.ts";
import {
  freshTopic,
  kafkaBrokers,
  type LogUnderTest,
  openKafka,
  openLocal,
  Recorder,
} from "./log.support.ts";

/** An implementation, and what is closed after the last test of it. */
export class Subject {
  readonly name: string;
  log!: LogUnderTest;
  readonly #recorders: Recorder[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** The source as it was opened last. */
  get source(): LogSource {
    return this.log.source;
  }

  async topicOf(partitions: number): Promise<string> {
    const topic = freshTopic();
    await this.source.ensureTopic(topic, partitions);
    return topic;
  }

  async consume(topic: string, recorder = new Recorder()): Promise<Recorder> {
    this.closeLater(recorder);
    return await recorder.consume(this.source, topic);
  }

  closeLater(recorder: Recorder): void {
    this.#recorders.push(recorder);
  }

  async close(): Promise<void> {
    for (const { consumer } of this.#recorders) await consumer.close();
    await this.log.close();
  }
}

export async function contract(part: string, tests: (on: Subject) => void): Promise<void> {
  const brokers = await kafkaBrokers();
  if (!brokers) console.warn("no Kafka offered: the log contract runs against the local log only");
  const implementations: [string, (() => Promise<LogUnderTest>) | null][] = [
    ["local", openLocal],
    ["kafka", brokers && (() => openKafka(brokers))],
  ];
  for (const [name, open] of implementations) {
    describe.skipIf(!open)(`log contract, ${part}: ${name}`, () => {
      const on = new Subject(name);
      beforeAll(async () => {
        on.log = await (open as () => Promise<LogUnderTest>)();
      });
      afterAll(() => on.close());
      tests(on);
    });
  }
}
