/*
 * The promise that nothing is lost and nothing counted twice, whatever dies: a load of unique keys runs
 * through a series of SIGKILLs of ingest, on real Kafka and a real S3 store, with the compactor merging and
 * a query node following all the while. Then outsiders count.
 *
 * The schedule is seeded. Each kill comes after at least one new commit and is one of
 * - uploaded: the process kills itself between a segment's upload and its commit (VEXLAKE_CRASH_AT);
 * - created: it kills itself right behind the commit, which nobody has told it about yet;
 * - pair: one of two processes that share the partitions, both of which have committed;
 * - alone: the only process, at whatever it is doing when its n-th commit is seen.
 *
 * A killed member's partitions wait for the session timeout, 6 s at least: that is what the test lasts for.
 * VEXLAKE_TEST_SEED=<n> runs another schedule.
 */
import { join } from "node:path";
import { Lake } from "@vexlake/core";
import type { Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { findCollection } from "../../services/common/catalog.ts";
import { redisOf } from "../e2e/client.ts";
import { keyOf, Load, vectorOf } from "../harness/load.ts";
import { copyFiles, duckdb, liveFiles, readParquet, s3Environment } from "../harness/oracles.ts";
import {
  type Configuration,
  startVexlake,
  until,
  type Vexlake,
  vexlake,
  within,
} from "../harness/processes.ts";
import { floatBytes, kafkaClient, seeded, startProducer } from "../harness/records.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";
import { Commits, namedSegments, storedSegments } from "./commits.ts";

type Kind = "uploaded" | "created" | "pair" | "alone";

interface Kill {
  kind: Kind;
  /** alone: own commits before it dies; uploaded, created: the flush that is its last. */
  nth: number;
  /** pair: which of the two. */
  older: boolean;
}

const KEYS_MIN = 100_000;
/** 20 kills of some 7 s each take as long as the keys then. */
const KEYS_PER_SECOND = 600;
const KILLS: Record<Kind, number> = { uploaded: 7, created: 3, pair: 4, alone: 6 };
const SEED = Number(process.env.VEXLAKE_TEST_SEED ?? 20_261_120);
const SAMPLED = 1_000;
const DIM = 16;
const PARTITIONS = 4;
/** A start, a session timeout, a rebalance, some commits: 15 s on a quiet machine. */
const KILL_MS_MAX = 120_000;
/** 130 s on two busy cores. */
const RUN_MS_MAX = 15 * 60_000;
/** Often enough to kill early in the next flush, rarely enough to leave the store alone. */
const WATCH_MS = 100;

await suite(["kafka", "s3", "duckdb"], "kills of ingest under load", ({ kafka, s3, duckdb: oracle }) => {
  const folder = temporaryFolder();
  const collection = unique("kills");
  const lakePrefix = unique("lake");
  const env = s3Environment(s3);
  const config: Configuration = {
    store: { url: `s3://${s3.bucket}/${lakePrefix}`, endpoint: s3.endpoint, path_style: true },
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("kills"), session_timeout_ms: 6_000 },
    query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
    ingest: { http: "127.0.0.1:0", seal_age_ms: 700 },
    compactor: { http: "127.0.0.1:0" },
    collections: { [collection]: { dim: DIM, metric: "cosine", partitions: PARTITIONS, format: "f32" } },
  };
  let started = 0;
  let lake: Lake;
  let commits: Commits;
  let prefix: string;
  let producer: Producer;
  let query: Vexlake;
  let compactor: Vexlake;
  let produced = 0;
  const running: Vexlake[] = [];
  /** Segments that appeared in the store while a process lived that died between upload and commit. */
  const uploadedBy: Set<string>[] = [];
  const done: { kind: Kind; two: boolean }[] = [];

  async function startIngest(extra: Record<string, string> = {}): Promise<Vexlake> {
    started += 1;
    const options = { dir: folder.path, name: `ingest-${started}`, config, env: { ...env, ...extra } };
    const ingest = await startVexlake("ingest", options);
    running.push(ingest);
    return ingest;
  }

  function forget(ingest: Vexlake): void {
    running.splice(running.indexOf(ingest), 1);
  }

  /** Polls the chain until `reached`. */
  async function follow(what: string, reached: () => boolean): Promise<void> {
    let last = 0;
    await until(
      what,
      async () => {
        if (performance.now() - last < WATCH_MS) return false;
        await commits.follow();
        last = performance.now();
        return reached();
      },
      KILL_MS_MAX,
    );
  }

  /** Waits until each has made `count` commits from here on. */
  async function committed(by: Vexlake[], count: number): Promise<void> {
    await commits.follow();
    const before = new Map(by.map(({ pid }) => [pid, commits.appendsBy(pid)]));
    const more = ({ pid }: Vexlake) => commits.appendsBy(pid) >= (before.get(pid) as number) + count;
    await follow(`${by.map(({ pid }) => pid).join(" and ")} to commit ${count} times`, () => by.every(more));
  }

  async function dieAt(crashPoint: string): Promise<Vexlake> {
    const victim = await startIngest({ VEXLAKE_CRASH_AT: crashPoint });
    const end = await within(`${crashPoint} to be reached`, victim.ended, KILL_MS_MAX);
    forget(victim);
    expect(end).toEqual({ code: null, signal: "SIGKILL" });
    return victim;
  }

  async function killUploaded({ nth }: Kill): Promise<void> {
    const before = await storedSegments(s3, prefix);
    await dieAt(`flush:uploaded:${nth}`);
    uploadedBy.push((await storedSegments(s3, prefix)).difference(before));
  }

  async function killCreated({ nth }: Kill): Promise<void> {
    const victim = await dieAt(`commit:after-create:${nth}`);
    await commits.follow();
    expect(commits.appendsBy(victim.pid), "a commit is one, whoever heard of it").toBe(nth);
  }

  async function killOneOfTwo({ older }: Kill): Promise<void> {
    while (running.length < 2) await startIngest();
    await committed(running, 1);
    const victim = running[older ? 0 : 1] as Vexlake;
    await victim.kill();
    forget(victim);
  }

  async function killAlone({ nth }: Kill): Promise<void> {
    const victim = running[0] ?? (await startIngest());
    await committed([victim], nth);
    await victim.kill();
    forget(victim);
  }

  const STEPS = { uploaded: killUploaded, created: killCreated, pair: killOneOfTwo, alone: killAlone };

  beforeAll(async () => {
    producer = await startProducer(kafka.brokers);
    // It creates topic and collection; the first kill comes later.
    await startIngest();
    [query, compactor] = await Promise.all([
      startVexlake("query", { dir: folder.path, config, env }),
      startVexlake("compactor", { dir: folder.path, config, env }),
    ]);
    const { endpoint, region, accessKey, secretKey } = s3;
    const store = {
      url: `s3://${s3.bucket}/${lakePrefix}`,
      endpoint,
      region,
      pathStyle: true,
      accessKey,
      secretKey,
    };
    lake = await Lake.open({
      store,
      role: "cli",
      instance: "watcher",
      spoolDir: join(folder.path, "watcher"),
    });
    const { live } = await findCollection(lake, 0, collection);
    prefix = `${lakePrefix}/c/${live.incarnation}`;
    commits = new Commits(lake, live.incarnation);
  });

  afterAll(async () => {
    await producer.disconnect();
    await lake.close();
    await query.stop();
    folder.remove();
  });

  it(
    "should take every record of the load, through all kills",
    async () => {
      const topic = `vexlake.0.${collection}`;
      const load = new Load({ producer, topic, dim: DIM, keysMin: KEYS_MIN, keysPerSecond: KEYS_PER_SECOND });
      const loaded = load.run();
      loaded.catch(() => {});
      try {
        for (const kill of schedule(SEED)) {
          await commits.follow();
          const appends = commits.appends().length;
          const joins = kill.kind === "uploaded" || kill.kind === "created";
          const two = kill.kind === "pair" || (joins && running.length > 0);
          await STEPS[kill.kind](kill);
          await commits.follow();
          expect(commits.appends().length, "a kill comes after a new commit").toBeGreaterThan(appends);
          done.push({ kind: kill.kind, two });
        }
      } finally {
        load.finish();
        produced = await loaded;
      }
      if (running.length === 0) await startIngest();
      const admin = kafkaClient(kafka.brokers).admin();
      await admin.connect();
      const ends = new Map(
        (await admin.fetchTopicOffsets(topic)).map((one) => [one.partition, BigInt(one.high)]),
      );
      await admin.disconnect();
      expect([...ends.values()].reduce((sum, end) => sum + end, 0n)).toBe(BigInt(produced));
      await until("every record to be committed", async () => {
        const { partitions } = await commits.follow();
        return partitions.every(
          ({ partition, checkpoint }) => BigInt(checkpoint.next) === ends.get(partition),
        );
      });
      for (const ingest of running) expect(await ingest.stop()).toBe(0);
      expect(await compactor.stop()).toBe(0);
    },
    RUN_MS_MAX,
  );

  it("should have died as often, and at the moments, that the schedule says", async () => {
    const wanted = Object.entries(KILLS).flatMap(([kind, count]) => Array(count).fill(kind));
    expect(done.map(({ kind }) => kind).sort()).toEqual(wanted.sort());
    expect(done.filter(({ two }) => two).length).toBeGreaterThanOrEqual(KILLS.pair);
    expect(produced).toBeGreaterThanOrEqual(KEYS_MIN);
  });

  it("should have left an uploaded segment that no commit names at each kill before the commit", async () => {
    const stored = await storedSegments(s3, prefix);
    const named = await namedSegments(s3, prefix, stored);
    expect(named.size).toBeGreaterThan(0);
    const orphans = stored.difference(named);
    expect(uploadedBy).toHaveLength(KILLS.uploaded);
    for (const candidates of uploadedBy) {
      expect([...candidates.intersection(orphans)].length).toBeGreaterThanOrEqual(1);
    }
  });

  it("should have merged segments meanwhile", async () => {
    await commits.follow();
    expect(commits.all.filter(({ kind }) => kind === "replace").length).toBeGreaterThan(0);
  });

  it("should leave live files in which DuckDB counts every offset once", async () => {
    const args = ["--config", query.configFile, "--data-dir", query.dataDir];
    const files = await copyFiles(s3, await liveFiles(collection, args, env), join(folder.path, "copy"));
    const [counted] = await duckdb(
      oracle,
      folder.path,
      `SELECT count(*) AS rows, count(DISTINCT (kafka_partition, kafka_offset)) AS offsets, count(DISTINCT id) AS ids,
       (SELECT count(*) FROM (${files.duckdb})) AS live FROM ${readParquet(files.data)}`,
    );
    expect(counted).toEqual({ rows: produced, offsets: produced, ids: produced, live: produced });
  });

  it("should pass vexlake verify with nothing lost and nothing duplicated", async () => {
    const args = ["verify", collection, "--json", "--config", query.configFile, "--data-dir", query.dataDir];
    const { code, stdout } = await vexlake(args, env);
    expect(JSON.parse(stdout)[`0/${collection}`]).toMatchObject({
      ok: true,
      recounted: true,
      offsets: produced,
      liveRows: produced,
      keys: produced,
      missing: 0,
      duplicated: 0,
      problems: [],
    });
    expect(code).toBe(0);
  });

  it("should find a thousand sampled records by search on a node that followed all the while", async () => {
    const random = seeded(SEED);
    const numbers = Array.from({ length: SAMPLED }, () => Math.floor(random() * produced));
    const redis = redisOf(query);
    const found: unknown[] = [];
    for (let at = 0; at < numbers.length; at += 100) {
      const pipeline = redis.pipeline();
      for (const number of numbers.slice(at, at + 100)) {
        pipeline.call("VSIM", collection, "FP32", floatBytes(vectorOf(number, DIM)), "COUNT", "1");
      }
      for (const [error, reply] of (await pipeline.exec()) ?? []) found.push(error ?? (reply as string[])[0]);
    }
    redis.disconnect();
    expect(found).toEqual(numbers.map(keyOf));
  });
});

/** The kills of a run, in an order and with details that follow from the seed. */
function schedule(seed: number): Kill[] {
  const random = seeded(seed);
  const kinds = Object.entries(KILLS).flatMap(([kind, count]) => Array(count).fill(kind)) as Kind[];
  for (let i = kinds.length - 1; i > 0; i -= 1) {
    const j = Math.floor(random() * (i + 1));
    [kinds[i], kinds[j]] = [kinds[j] as Kind, kinds[i] as Kind];
  }
  return kinds.map((kind) => {
    // The first flush of a process that dies in one is committed: the second or third is its last.
    const dies = kind === "uploaded" || kind === "created";
    const nth = dies ? 2 + Math.floor(random() * 2) : 1 + Math.floor(random() * 3);
    return { kind, nth, older: random() < 0.5 };
  });
}
