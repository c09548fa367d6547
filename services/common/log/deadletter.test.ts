import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { VexError } from "../process/error.ts";
import { silentLogger } from "../process/logger.ts";
import { DeadLetters } from "./deadletter.ts";
import { LocalSource } from "./local/source.ts";
import type { LogRecord, ProducedMessage } from "./source.ts";

const TOPIC = "vexlake.0.docs";
/** Of a caller that does not close. */
const open = new AbortController().signal;

describe("dead letters", () => {
  let directory = "";
  let source: LocalSource;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "vexlake-dlq-"));
    source = new LocalSource({ directory, logger: silentLogger() });
    await source.start();
  });
  afterEach(async () => {
    await source.close();
    await rm(directory, { recursive: true, force: true });
  });

  const record: LogRecord = {
    key: Buffer.from("k"),
    value: Buffer.from("not a vector"),
    headers: { "vexlake-op": Buffer.from("upsert"), gone: undefined },
    timestamp: 5,
    offset: 41n,
  };
  const letter = (over: Partial<LogRecord> = {}) => ({
    partition: 3,
    record: { ...record, ...over },
    reason: "bad-dimension",
    message: "vector has 3 numbers, the collection 4",
  });
  async function lettersOf(topic: string): Promise<LogRecord[]> {
    const found: LogRecord[] = [];
    const high = (await source.ranges(topic))?.[0]?.high ?? 0n;
    await source.read(topic, 0, 0n, high, ({ records }) => void found.push(...records));
    return found;
  }
  const plain = (headers: LogRecord["headers"]) =>
    Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));

  it("should_keep_the_record_as_it_came_under_kafka_connect's_header_names", async () => {
    const letters = new DeadLetters({ source, logger: silentLogger(), instance: "i1" });
    await letters.send(TOPIC, [letter(), letter({ key: null, value: null, offset: 42n })], open);
    await letters.send(TOPIC, [], open);
    const [first, second, ...rest] = await lettersOf(`${TOPIC}.dlq`);
    expect([String(first?.key), String(first?.value)]).toEqual(["k", "not a vector"]);
    expect(plain(first?.headers ?? {})).toEqual({
      "vexlake-op": "upsert",
      "vexlake-reason": "bad-dimension",
      "__connect.errors.topic": TOPIC,
      "__connect.errors.partition": "3",
      "__connect.errors.offset": "41",
      "__connect.errors.connector.name": "vexlake",
      "__connect.errors.task.id": "i1",
      "__connect.errors.stage": "VALUE_CONVERTER",
      "__connect.errors.class.name": "vexlake.ingest",
      "__connect.errors.exception.class.name": "vexlake.BadRecord.bad-dimension",
      "__connect.errors.exception.message": "vector has 3 numbers, the collection 4",
    });
    expect([second?.key, second?.value, rest]).toEqual([null, null, []]);
  });

  /** The real log behind a `produce` that fails first. */
  function failing(failures: ((messages: ProducedMessage[]) => VexError | null)[]) {
    const log = Object.create(source) as LocalSource;
    log.ensureTopic = (topic, partitions) => source.ensureTopic(topic, partitions);
    log.produce = async (topic, messages) => {
      const failure = failures.shift()?.(messages);
      if (failure) throw failure;
      return await source.produce(topic, messages);
    };
    return new DeadLetters({ source: log, logger: silentLogger(), instance: "i1" });
  }

  it("should_send_until_acknowledged_also_after_doubt", async () => {
    const doubt = new VexError("UNAVAILABLE", "in doubt", { retriable: false, fields: { doubt: true } });
    await failing([() => new VexError("UNAVAILABLE", "away"), () => doubt]).send(TOPIC, [letter()], open);
    expect(await lettersOf(`${TOPIC}.dlq`)).toHaveLength(1);
  });

  it("should_omit_only_the_value_that_is_too_large_for_the_log", async () => {
    const tooLarge = (messages: ProducedMessage[]) =>
      messages.some(({ value }) => (value?.length ?? 0) > 100) ? new VexError("INVALID", "too large") : null;
    const letters = [letter(), letter({ value: Buffer.alloc(500) }), letter({ offset: 43n })];
    await failing(Array.from({ length: 10 }, () => tooLarge)).send(TOPIC, letters, open);
    const found = await lettersOf(`${TOPIC}.dlq`);
    expect(found.map(({ value }) => value?.length ?? null)).toEqual([12, null, 12]);
    expect(String(found[1]?.headers["vexlake-value-omitted"])).toBe("500");
  });

  it("should_give_up_at_what_no_retry_heals_and_when_its_caller_closes", async () => {
    await expect(
      failing([() => new VexError("CORRUPT", "no")]).send(TOPIC, [letter()], open),
    ).rejects.toMatchObject({
      code: "CORRUPT",
    });
    const letters = failing(Array.from({ length: 99 }, () => () => new VexError("UNAVAILABLE", "away")));
    const closing = new AbortController();
    const sending = letters.send(TOPIC, [letter()], closing.signal);
    closing.abort();
    await expect(sending).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("should_end_soon_after_its_caller_closes_though_the_log_never_answers", async () => {
    const log = Object.create(source) as LocalSource;
    log.ensureTopic = () => new Promise(() => {});
    const letters = new DeadLetters({ source: log, logger: silentLogger(), instance: "i1" });
    await expect(letters.send(TOPIC, [letter()], AbortSignal.abort())).rejects.toThrow(/within 3000 ms/);
  });
});
