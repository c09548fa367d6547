/*
 * Every role as a process of its own, as deploy/ runs them: real Kafka, SeaweedFS and Redis, one
 * configuration of deploy/vexlake.yaml's shape for all. One story, told in order: the query node alone on its
 * tail, then an ingest, a second one in the middle of a load, the first one leaving, merges by BullMQ.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import type { Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { parse } from "yaml";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import { keyOf, Load, vectorOf } from "../harness/load.ts";
import { copyFiles, duckdb, liveFiles, readParquet, s3Environment } from "../harness/oracles.ts";
import {
  type Configuration,
  startVexlake,
  until,
  type Vexlake,
  vexlake,
  vexlakeJson,
  writeConfiguration,
} from "../harness/processes.ts";
import { encode, floatBytes, randomVector, seeded, startProducer } from "../harness/records.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";
import { call, collectionOf, redisOf } from "./client.ts";

const DIM = 16;
const PARTITIONS = 4;
/** Each second of load is a second in which a rebalance may go wrong. */
const KEYS_MIN = 8_000;
const KEYS_PER_SECOND = 400;
const STORY_MS_MAX = 240_000;

await suite(
  ["kafka", "s3", "redis", "duckdb"],
  "separate processes",
  ({ kafka, s3, redis, duckdb: oracle }) => {
    const folder = temporaryFolder();
    const collection = unique("docs");
    const topic = `vexlake.0.${collection}`;
    const env = s3Environment(s3);
    const config = configuration();
    const cli = [
      "--config",
      writeConfiguration(folder.path, "cli", config),
      "--data-dir",
      join(folder.path, "cli"),
    ];
    let producer: Producer;
    let query: Vexlake;
    let resp: Redis;
    let first: Vexlake;
    let second: Vexlake;
    let compactor: Vexlake;
    /** Records of this story that are live. */
    let records = 0;

    /** deploy/vexlake.yaml with this run's addresses, and no key more or less than it has. */
    function configuration(): Configuration {
      const deployed = parse(readFileSync(join(ROOT, "deploy", "vexlake.yaml"), "utf8")) as Configuration;
      const { store, log, jobs, query: node, ingest, compactor: merges, collections } = deployed;
      const shape = Object.values(collections as Record<string, object>)[0];
      return {
        ...deployed,
        store: { ...store, url: `s3://${s3.bucket}/${unique("lake")}`, endpoint: s3.endpoint },
        log: { ...log, brokers: [kafka.brokers], group: unique("story") },
        jobs: { ...jobs, redis: redis.url, prefix: unique("story") },
        query: { ...node, resp: "127.0.0.1:0", http: "127.0.0.1:0" },
        ingest: { ...ingest, http: "127.0.0.1:0", seal_age_ms: 1_000 },
        compactor: { ...merges, http: "127.0.0.1:0" },
        collections: { [collection]: { ...shape, dim: DIM, metric: "cosine", partitions: PARTITIONS } },
      };
    }

    const start = (role: "ingest" | "query" | "compactor", name: string = role) =>
      startVexlake(role, { dir: folder.path, name, config, env });

    async function nearest(vector: Float32Array, ...options: string[]): Promise<string[]> {
      const found = await resp.call("VSIM", collection, "FP32", floatBytes(vector), "COUNT", "1", ...options);
      return found as string[];
    }

    beforeAll(async () => {
      const shape = ["--dim", String(DIM), "--partitions", String(PARTITIONS)];
      await vexlakeJson(["collection", "create", collection, ...shape, ...cli], env);
      [producer, query] = await Promise.all([startProducer(kafka.brokers), start("query")]);
      resp = redisOf(query);
    });

    afterAll(async () => {
      resp.disconnect();
      await producer.disconnect();
      folder.remove();
    });

    it("should find a record on the query node's own tail while no ingest runs at all", async () => {
      const vector = randomVector(DIM, seeded(1_000_001));
      await producer.send({
        topic,
        messages: [encode("f32", { id: "tail", vector, attrs: '{"from":"kafka"}' })],
      });
      records += 1;
      await until("the tail to show it", async () => (await nearest(vector))[0] === "tail");
      expect(JSON.parse((await resp.call("VGETATTR", collection, "tail")) as string)).toEqual({
        from: "kafka",
      });
      const { version, segments } = await collectionOf(query, collection);
      expect({ version, segments }).toEqual({ version: 0, segments: 0 });
      expect(await nearest(vector, "SNAPSHOT")).toEqual([]);
    });

    it("should acknowledge a write through the query node once its tail shows it", async () => {
      const vector = randomVector(DIM, seeded(1_000_002));
      expect(
        await resp.call("VADD", collection, "FP32", floatBytes(vector), "by-resp", "SETATTR", '{"n":1}'),
      ).toBe(1);
      expect(await nearest(vector)).toEqual(["by-resp"]);
      expect(await resp.call("VSETATTR", collection, "by-resp", '{"n":2}')).toBe(1);
      expect(await resp.call("VGETATTR", collection, "by-resp")).toBe('{"n":2}');
      expect(await resp.call("VADD", collection, "FP32", floatBytes(vector), "gone")).toBe(1);
      expect(await resp.call("VREM", collection, "gone")).toBe(1);
      records += 1;
      expect(await resp.call("VCARD", collection)).toBe(records);
    });

    it("should serve the snapshot as soon as an ingest has committed what the tail had", async () => {
      first = await start("ingest", "ingest-1");
      compactor = await start("compactor");
      const tail = randomVector(DIM, seeded(1_000_001));
      await until("the commit to be followed", async () => (await nearest(tail, "SNAPSHOT"))[0] === "tail");
      expect((await collectionOf(query, collection)).version).toBeGreaterThan(0);
      expect(await resp.call("VCARD", collection)).toBe(records);
    });

    it(
      "should share the partitions with a second ingest in the middle of a load, and take them all back",
      async () => {
        const load = new Load({
          producer,
          topic,
          dim: DIM,
          keysMin: KEYS_MIN,
          keysPerSecond: KEYS_PER_SECOND,
        });
        const loaded = load.run();
        loaded.catch(() => {});
        try {
          await until("the load to be under way", () => load.produced > 200);
          second = await start("ingest", "ingest-2");
          await until("both to own partitions", async () => {
            const [a, b] = await Promise.all([assigned(first, collection), assigned(second, collection)]);
            return a.length > 0 && b.length > 0 && new Set([...a, ...b]).size === PARTITIONS;
          });
          const [one, two] = [await committed(first, collection), await committed(second, collection)];
          await until("both to commit", async () => {
            const [a, b] = [await committed(first, collection), await committed(second, collection)];
            return a > one && b > two;
          });
          expect(await first.stop()).toBe(0);
          const all = async () => (await assigned(second, collection)).length === PARTITIONS;
          await until("the second to own everything", all);
          const before = load.produced;
          await until("the load to go on", () => load.produced > before + 200);
        } finally {
          load.finish();
          records += await loaded;
        }
        const count = async () => (await resp.call("VCARD", collection)) === records;
        await until("the query node to have everything", count);
      },
      STORY_MS_MAX,
    );

    it("should find the load's records on the tail and, once committed, in the snapshot", async () => {
      await vexlake(["flush", collection, "--http-port", portOf(second), ...cli], env);
      const numbers = Array.from({ length: 50 }, (_, i) => i * 100);
      for (const scope of ["FRESH", "SNAPSHOT"]) {
        for (const number of numbers) {
          const found = async () => (await nearest(vectorOf(number, DIM), scope))[0] === keyOf(number);
          await until(`${keyOf(number)} in ${scope}`, found);
        }
      }
    });

    it("should run merges as jobs of BullMQ that another client of Redis sees done", async () => {
      const connection = new Redis(redis.url, { maxRetriesPerRequest: null });
      const queue = new Queue("vexlake-compaction", { connection, prefix: config.jobs?.prefix as string });
      const done = await until("a merge to be done", async () => {
        const jobs = await queue.getCompleted();
        return jobs.find(({ returnvalue }) => returnvalue?.status === "done");
      });
      expect(done.data.collection).toBe(`0/${collection}`);
      await queue.close();
      connection.disconnect();
      const listing = (await call(compactor, "GET", "/jobs/list.json")) as {
        runner: string;
        jobs: { kind: string }[];
      };
      expect(listing.runner).toBe("bullmq");
      expect(listing.jobs.map(({ kind }) => kind)).toContain("compaction");
      expect((await fetch(`${compactor.http}/jobs`)).status).toBe(200);
    });

    it("should have lost nothing and counted nothing twice", async () => {
      const reports = await vexlakeJson<Record<string, object>>(["verify", collection, ...cli], env);
      const whole = { ok: true, recounted: true, missing: 0, duplicated: 0, liveRows: records, problems: [] };
      expect(reports[`0/${collection}`]).toMatchObject(whole);
      const files = await copyFiles(s3, await liveFiles(collection, cli, env), join(folder.path, "copy"));
      const loaded = records - 2;
      const sql = `SELECT count(*) AS rows, count(DISTINCT (kafka_partition, kafka_offset)) AS offsets,
      (SELECT count(*) FROM (${files.duckdb})) AS live FROM ${readParquet(files.data)} WHERE id LIKE 'key-%'`;
      const [counted] = await duckdb(oracle, folder.path, sql);
      expect(counted).toEqual({ rows: loaded, offsets: loaded, live: records });
    });

    it("should be ready on every role and end with exit code 0", async () => {
      for (const node of [second, query, compactor]) {
        expect((await fetch(`${node.http}/readyz`)).status, node.role).toBe(200);
      }
      for (const node of [second, compactor, query]) expect(await node.stop(), node.role).toBe(0);
    });
  },
);

/** Partitions that an ingest owns, by its own metrics. */
async function assigned(node: Vexlake, collection: string): Promise<number[]> {
  const lines = (await metrics(node, "vexlake_ingest_lag_offsets", collection)).map(({ labels }) => labels);
  return lines.map((labels) => Number(/partition="(\d+)"/.exec(labels)?.[1]));
}

/** Entries that an ingest has committed, by its own metrics. */
async function committed(node: Vexlake, collection: string): Promise<number> {
  const [line] = await metrics(node, "vexlake_flush_entries_total", collection);
  return line?.value ?? 0;
}

async function metrics(
  node: Vexlake,
  name: string,
  collection: string,
): Promise<{ labels: string; value: number }[]> {
  const text = await (await fetch(`${node.http}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`));
  return lines
    .filter((line) => line.includes(`collection="${collection}"`))
    .map((line) => ({ labels: line, value: Number(line.slice(line.lastIndexOf(" "))) }));
}

function portOf(node: Vexlake): string {
  return new URL(node.http).port;
}
