/**
 * Ingest as a whole, with the real core and a local log: what stands in one collection's way, and who
 * writes dead letters when incarnations change. A log that fails is the real one behind a refusal.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Lake } from "@vexlake/core";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createCollection, findCollection, liveSource, sourceFrom } from "../common/catalog.ts";
import { configSchema } from "../common/config/schema.ts";
import { LocalSource } from "../common/log/local/source.ts";
import type { LogSource, ProducedMessage } from "../common/log/source.ts";
import { VexError } from "../common/process/error.ts";
import { silentLogger } from "../common/process/logger.ts";
import { acceptAll, switchSource } from "../common/source-changes.ts";
import { verifyIncarnation } from "../common/verify.ts";
import { type Ingest, startIngest } from "./main.ts";

const DEADLINE_MS = 20_000;
const DIM = 2;

describe("ingest", () => {
  let directory = "";
  let lake: Lake;
  let log: LocalSource;
  let running: Ingest[] = [];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "vexlake-ingest-"));
    log = new LocalSource({ directory: join(directory, "log"), logger: silentLogger() });
    await log.start();
    const store = { url: join(directory, "lake") };
    lake = await Lake.open({ store, role: "test", instance: "i1", spoolDir: join(directory, "spool") });
  });
  afterEach(async () => {
    for (const ingest of running) await ingest.close();
    running = [];
    await log.close();
    await lake.close();
    await rm(directory, { recursive: true, force: true });
  });

  async function started(source: LogSource = log): Promise<Ingest> {
    const config = configSchema.parse({});
    const deps = { lake, log: source, logger: silentLogger(), registry: new Registry() };
    const ingest = await startIngest(config, { ...deps, instance: "i1", ownsAll: true });
    running.push(ingest);
    await ingest.feeds.started();
    return ingest;
  }
  async function collection(name: string): Promise<{ incarnation: string; topic: string }> {
    const shape = { dim: DIM, metric: "l2", partitions: 1, format: "f32" };
    const incarnation = await createCollection(lake, log, {
      db: 0,
      name,
      ...shape,
      from: { at: "earliest" },
    });
    const { live } = await findCollection(lake, 0, name);
    return { incarnation, topic: liveSource(live).topic };
  }
  /** The log with some methods replaced; the others work on the real one. */
  function logWith(over: Partial<LogSource>): LogSource {
    return new Proxy<LogSource>(log, {
      get: (real, name) => {
        const own = Reflect.get(over, name);
        const value = own ?? Reflect.get(real, name, real);
        return typeof value === "function" && own === undefined ? value.bind(real) : value;
      },
    });
  }
  const good = (key: string): ProducedMessage => {
    return { partition: 0, key: Buffer.from(key), value: Buffer.alloc(4 * DIM) };
  };
  const bad = (key: string): ProducedMessage => ({ ...good(key), value: Buffer.alloc(3) });
  async function until(what: string, probe: () => unknown): Promise<void> {
    const deadline = performance.now() + DEADLINE_MS;
    while (!(await probe())) {
      if (performance.now() > deadline) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
  async function letters(topic: string): Promise<string[]> {
    const keys: string[] = [];
    const high = (await log.ranges(`${topic}.dlq`))?.[0]?.high ?? 0n;
    await log
      .read(
        `${topic}.dlq`,
        0,
        0n,
        high,
        ({ records }) => void keys.push(...records.map(({ key }) => `${key}`)),
      )
      .catch(() => {});
    return keys;
  }
  const committed = async (name: string) => {
    const { live } = await findCollection(lake, 0, name);
    return Number(live.partitions[0]?.checkpoint.next);
  };

  it("should_commit_nothing_that_passes_a_letter_before_the_letter_is_written", async () => {
    const { incarnation, topic } = await collection("docs");
    let refusing = true;
    const ensureTopic: LogSource["ensureTopic"] = async (name, partitions) => {
      if (refusing && name.endsWith(".dlq")) throw new VexError("INVALID", "the broker's policy refused it");
      await log.ensureTopic(name, partitions);
    };
    const ingest = await started(logWith({ ensureTopic }));
    await log.produce(topic, [good("a"), bad("b"), good("c")]);
    const feed = ingest.feeds.feed(incarnation);
    await until("the stop", () => feed?.stopped().length === 1);
    await expect(ingest.flush(incarnation)).rejects.toThrow(/policy refused it/);
    expect([await committed("docs"), ingest.feeds.notReady()]).toEqual([
      0,
      expect.stringContaining("policy refused it"),
    ]);
    refusing = false;
    await ingest.flush(incarnation);
    await until("the way on", () => ingest.feeds.notReady() === null);
    expect([await committed("docs"), await letters(topic)]).toEqual([3, ["b"]]);
  });

  it("should_write_letters_of_whoever_is_live_and_of_who_was_until_it_is_retired", async () => {
    const { incarnation: first, topic } = await collection("docs");
    const ingest = await started();
    await log.produce(topic, [good("a"), bad("b")]);
    await until("the first letter", async () => (await letters(topic)).length === 1);
    const source = await sourceFrom(log, topic, { at: "earliest" });
    await lake.alter({ op: "replay-start", db: 0, name: "docs", source });
    await ingest.feeds.reconcile();
    const [fed] = (await findCollection(lake, 0, "docs")).fed;
    const second = fed?.incarnation as string;
    const reached = async (incarnation: string, offset: bigint) =>
      expect(await ingest.feeds.reached(incarnation, new Map([[0, offset]]), DEADLINE_MS)).toBe(true);
    await reached(second, 2n);
    for (const incarnation of [first, second]) await ingest.flush(incarnation);
    // The replay has met the bad record again and written no second letter.
    expect(await letters(topic)).toEqual(["b"]);
    await lake.alter({ op: "promote", db: 0, name: "docs", incarnation: second });
    await ingest.feeds.reconcile();
    await log.produce(topic, [bad("c")]);
    for (const incarnation of [first, second]) {
      await reached(incarnation, 3n);
      await ingest.flush(incarnation);
    }
    expect(await letters(topic)).toEqual(["b", "c", "c"]);
    await lake.alter({ op: "replay-retire", db: 0, name: "docs", incarnation: first });
    await until("its end", async () => {
      await ingest.feeds.reconcile();
      return ingest.feeds.feed(first) === undefined;
    });
    await log.produce(topic, [bad("d")]);
    await reached(second, 4n);
    await ingest.flush(second);
    expect(await letters(topic)).toEqual(["b", "c", "c", "d"]);
  });

  it("should_say_that_a_topic_is_missing_and_feed_the_other_collections", async () => {
    const sick = await collection("sick");
    const well = await collection("well");
    let missing = true;
    const consume: LogSource["consume"] = async (options, handlers) => {
      if (missing && options.topic === sick.topic)
        throw new VexError("NOT_FOUND", `no topic ${options.topic}`);
      return await log.consume(options, handlers);
    };
    const ingest = await started(logWith({ consume }));
    expect(ingest.feeds.notReady()).toContain(`topic-missing: no topic ${sick.topic}`);
    const feed = ingest.feeds.feed(sick.incarnation);
    for (let look = 0; look < 3; look++) await ingest.feeds.reconcile();
    expect(ingest.feeds.feed(sick.incarnation)).toBe(feed);
    await log.produce(well.topic, [good("a")]);
    expect(await ingest.feeds.reached(well.incarnation, new Map([[0, 1n]]), DEADLINE_MS)).toBe(true);
    missing = false;
    await until("the way on", () => ingest.feeds.notReady() === null);
  });

  it("should_follow_the_catalog_though_a_claim_of_one_collection_never_answers", async () => {
    const sick = await collection("sick");
    let looks = 0;
    let stop = () => {};
    const consume: LogSource["consume"] = async (options, handlers) => {
      const consumer = await log.consume(options, handlers);
      if (options.topic === sick.topic) {
        stop = () => handlers.stopped({ partition: 0, reason: "failed", message: "damaged", accept: "" });
        consumer.claim = () => {
          looks += 1;
          return new Promise(() => {});
        };
      }
      return consumer;
    };
    const ingest = await started(logWith({ consume }));
    await until("the claim", () => ingest.feeds.applied(sick.incarnation).size === 1);
    stop();
    await ingest.feeds.reconcile();
    expect(ingest.feeds.notReady()).toContain("damaged");
    const later = await collection("later");
    await ingest.feeds.follow(later.incarnation);
    expect([ingest.feeds.refusal(later.incarnation), looks]).toEqual([undefined, 1]);
  });

  it("should_close_while_a_letter_waits_for_a_log_that_does_not_answer", async () => {
    const { topic } = await collection("docs");
    let asked = false;
    const ensureTopic: LogSource["ensureTopic"] = () => {
      asked = true;
      return new Promise(() => {});
    };
    const ingest = await started(logWith({ ensureTopic }));
    await log.produce(topic, [bad("a")]);
    await until("the letter", () => asked);
    await ingest.close();
    expect(await committed("docs")).toBe(0);
  });

  it("should_take_for_lost_only_what_is_not_consumed_and_from_fed_incarnations_as_well", async () => {
    const { incarnation, topic } = await collection("docs");
    const ingest = await started();
    await log.produce(topic, [good("a"), good("b"), good("c")]);
    const source = await sourceFrom(log, topic, { at: "earliest" });
    await lake.alter({ op: "replay-start", db: 0, name: "docs", source });
    await ingest.feeds.reconcile();
    const fed = (await findCollection(lake, 0, "docs")).fed[0]?.incarnation as string;
    for (const of of [incarnation, fed]) await ingest.feeds.reached(of, new Map([[0, 3n]]), DEADLINE_MS);
    const kept = (low: bigint) => {
      const ranges = async () => [{ partition: 0, low, high: 9n }];
      return logWith({ ranges });
    };
    expect(await acceptAll(lake, kept(2n), await findCollection(lake, 0, "docs"))).toEqual([]);
    await expect(acceptAll(lake, kept(5n), await findCollection(lake, 0, "docs"))).rejects.toThrow(
      /flush first/,
    );
    for (const of of [incarnation, fed]) await ingest.flush(of);
    const lost = { what: "lost", partition: 0, from: "3", to: "5" };
    expect(await acceptAll(lake, kept(5n), await findCollection(lake, 0, "docs"))).toEqual([
      { ...lost, incarnation },
      { ...lost, incarnation: fed },
    ]);
  });

  it("should_recount_only_what_the_running_log_holds_of_a_source", async () => {
    const { incarnation, topic } = await collection("docs");
    const ingest = await started();
    await log.produce(topic, [good("a"), good("b"), good("c")]);
    await ingest.feeds.reached(incarnation, new Map([[0, 3n]]), DEADLINE_MS);
    await ingest.flush(incarnation);
    const verified = async (log: LogSource) =>
      await verifyIncarnation(lake, log, (await findCollection(lake, 0, "docs")).live);
    expect(await verified(log)).toMatchObject({ ok: true, recounted: true });
    // Another log with a topic of that name and other records in it, while the collection goes on with another.
    const other = new LocalSource({ directory: join(directory, "other"), logger: silentLogger() });
    await other.start();
    try {
      for (const name of [topic, "next"]) await other.ensureTopic(name, 1);
      await other.produce(topic, [bad("z"), bad("y"), good("x"), good("w")]);
      const { live } = await findCollection(lake, 0, "docs");
      await switchSource(lake, other, live, "next", { at: "latest" });
      expect(await verified(other)).toMatchObject({ ok: true, recounted: false, problems: [] });
      // The same log, whose topic was made anew and accepted as the next epoch.
      await switchSource(lake, log, live, topic, { at: "latest" });
      expect(await verified(log)).toMatchObject({ ok: true, recounted: false, problems: [] });
    } finally {
      await other.close();
    }
  });
});
