/*
 * `vexlake up` from outside: a foreign Kafka producer writes every operation in every record format, Redis
 * and HTTP clients read, DuckDB counts the files, and the process is stopped, killed and started again.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { Message, Producer } from "kafkajs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { duckdb, liveFiles } from "../harness/oracles.ts";
import {
  type Configuration,
  startVexlake,
  type Vexlake,
  vexlake,
  vexlakeJson,
} from "../harness/processes.ts";
import {
  type Change,
  encode,
  type Format,
  floatBytes,
  randomVector,
  seeded,
  startProducer,
  tombstone,
} from "../harness/records.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";
import { collectionOf, type Expected, Model, redisOf } from "./client.ts";

const DIM = 8;
const FORMATS: Format[] = ["f32", "protobuf", "json"];

interface Report {
  ok: boolean;
  offsets: number;
  liveRows: number;
  missing: number;
  duplicated: number;
  recounted: boolean;
  ledger: { dead_lettered: string };
}

await suite(["kafka", "duckdb"], "vexlake up on Kafka and a directory", ({ kafka, duckdb: oracle }) => {
  const folder = temporaryFolder();
  const names = Object.fromEntries(FORMATS.map((format) => [format, unique(format)])) as Record<
    Format,
    string
  >;
  const mixed = unique("mixed");
  const models = new Map<string, Model>();
  const config: Configuration = {
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("up") },
    query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
    // Nothing is flushed unless a test asks: what is read before is the live tail.
    ingest: { seal_age_ms: 3_600_000 },
    collections: Object.fromEntries([
      ...FORMATS.map((format) => [names[format], { dim: DIM, metric: "cosine", partitions: 4, format }]),
      [mixed, { dim: DIM, metric: "l2", partitions: 4, format: "f32" }],
    ]),
  };
  const options = { dir: folder.path, config };
  let node: Vexlake;
  let producer: Producer;
  const cli = (...args: string[]) => [...args, "--data-dir", node.dataDir];

  /** Changes as (message, what it means), in the order of the log. */
  async function produce(name: string, changes: { message: Message; change: Change }[]): Promise<void> {
    const model = models.get(name) ?? new Model();
    models.set(name, model);
    for (const { change } of changes) model.apply(change);
    await producer.send({ topic: `vexlake.0.${name}`, messages: changes.map(({ message }) => message) });
  }

  beforeAll(async () => {
    producer = await startProducer(kafka.brokers);
    node = await startVexlake("up", options);
  });

  afterAll(async () => {
    await producer.disconnect();
    await node.stop();
    folder.remove();
  });

  it("should announce every address in its ready line", () => {
    expect(Object.keys(node.ready)).toEqual(["resp", "http", "log", "store", "version"]);
    expect(node.ready.log).toBe(`kafka:${kafka.brokers}`);
    expect(node.ready.store).toBe(join(node.dataDir, "lake"));
  });

  describe.each(FORMATS)("records in %s", (format) => {
    it("should apply all four operations, headers and null values in the order of the log", async () => {
      await produce(names[format], everyOperation(format));
      await models.get(names[format])?.served(node, names[format]);
    });

    it("should answer a Redis client from the live tail", async () => {
      const redis = redisOf(node);
      const model = models.get(names[format]) as Model;
      const [id, { vector, attrs }] = [...model.records].find(([, { attrs }]) => attrs !== null) as [
        string,
        Expected,
      ];
      expect(await redis.call("VCARD", names[format])).toBe(model.records.size);
      const bytes = floatBytes(Float32Array.from(vector));
      expect(await redis.call("VSIM", names[format], "FP32", bytes, "COUNT", "1")).toEqual([id]);
      expect(JSON.parse((await redis.call("VGETATTR", names[format], id)) as string)).toEqual(attrs);
      redis.disconnect();
    });
  });

  it("should obey a format header that differs from the collection's format, record by record", async () => {
    const random = seeded(7);
    const changes = FORMATS.flatMap((format) =>
      Array.from({ length: 20 }, (_, i): Change => {
        const attrs = `{"format":"${format}","i":${i}}`;
        return { id: `${format}-${i}`, vector: randomVector(DIM, random), attrs };
      }).map((change, i) => ({ change, message: encode(FORMATS[(i + 1) % 3] as Format, change, true) })),
    );
    await produce(mixed, changes);
    await models.get(mixed)?.served(node, mixed);
  });

  it("should commit what was read on a flush, and pass its own recount", async () => {
    for (const [name, model] of models) {
      expect((await collectionOf(node, name)).segments, name).toBe(0);
      const flushed = await vexlakeJson<{ commits: number }>(cli("flush", name));
      expect(flushed.commits, name).toBe(1);
      await model.served(node, name);
    }
    const reports = await vexlakeJson<Record<string, Report>>(cli("verify"));
    for (const [name, model] of models) {
      expect(reports[`0/${name}`], name).toMatchObject({
        ok: true,
        offsets: model.offsets,
        liveRows: model.records.size,
        missing: 0,
        duplicated: 0,
        recounted: true,
        ledger: { dead_lettered: "0" },
      });
    }
  });

  it("should leave files in which DuckDB finds exactly the live records", async () => {
    for (const [name, model] of models) await expectFiles(name, model);
  });

  it("should hide replaced and deleted records of older segments from DuckDB too", async () => {
    const name = names.f32;
    const [first, second, third] = [...(models.get(name) as Model).records.keys()] as [
      string,
      string,
      string,
    ];
    const vector = randomVector(DIM, seeded(11));
    await produce(name, [
      { change: { id: first, op: "delete" }, message: tombstone(first) },
      { change: { id: second, vector }, message: encode("f32", { id: second, vector }) },
      ...[{ id: third, op: "set-attrs" as const, attrs: '{"patched":"across segments"}' }].map((change) => ({
        change,
        message: encode("f32", change),
      })),
    ]);
    await (models.get(name) as Model).served(node, name);
    await vexlakeJson(cli("flush", name));
    await expectFiles(name, models.get(name) as Model);
  });

  it("should refuse a second process on the same data directory with exit code 4", async () => {
    const second = await vexlake(["up", "--config", node.configFile, "--data-dir", node.dataDir]);
    expect(second.code).toBe(4);
    expect(second.stderr).toContain(`is in use by process ${node.pid}`);
  });

  it("should exit 0 after SIGTERM and serve everything again after a restart", async () => {
    expect(await node.stop()).toBe(0);
    node = await startVexlake("up", options);
    for (const [name, model] of models) await model.served(node, name);
  });

  it("should lose nothing to a SIGKILL: what no commit covered is read from the log again", async () => {
    const change = {
      id: "after-restart",
      vector: randomVector(DIM, seeded(12)),
      attrs: '{"unflushed":true}',
    };
    await produce(names.json, [{ change, message: encode("json", change) }]);
    await models.get(names.json)?.served(node, names.json);
    await node.kill();
    node = await startVexlake("up", options);
    await models.get(names.json)?.served(node, names.json);
    await vexlakeJson(cli("flush", names.json));
    const reports = await vexlakeJson<Record<string, Report>>(cli("verify"));
    expect(Object.values(reports).every(({ ok }) => ok)).toBe(true);
  });

  it("should acknowledge a write of a Redis client only when it is visible, and keep it", async () => {
    const redis = redisOf(node);
    const vector = randomVector(DIM, seeded(13));
    const added = await redis.call(
      "VADD",
      names.f32,
      "FP32",
      floatBytes(vector),
      "by-redis",
      "SETATTR",
      '{"a":1}',
    );
    expect(added).toBe(1);
    const model = models.get(names.f32) as Model;
    model.apply({ id: "by-redis", vector, attrs: '{"a":1}' });
    await model.served(node, names.f32, 0);
    expect(await redis.call("VREM", names.f32, "by-redis")).toBe(1);
    model.apply({ id: "by-redis", op: "delete" });
    await model.served(node, names.f32, 0);
    redis.disconnect();
  });

  /** DuckDB's rows of `vexlake files` are the model's records, vectors to the bit. */
  async function expectFiles(name: string, model: Model): Promise<void> {
    const files = await liveFiles(name, cli());
    const rows = await duckdb<{ id: string; vector: number[]; attrs: string | null; ms: number | null }>(
      oracle,
      folder.path,
      `SELECT id, vector, attrs, epoch_ms(event_time) AS ms FROM (${files.duckdb})`,
    );
    const found = rows.map(({ id, vector, attrs }) => [id, { vector, attrs: attrs && JSON.parse(attrs) }]);
    expect(Object.fromEntries(found), name).toEqual(Object.fromEntries(model.records));
    expect(Object.fromEntries(rows.map(({ id, ms }) => [id, ms]))).toEqual(
      Object.fromEntries(model.eventTimes),
    );
    expect(rows).toHaveLength(model.records.size);
  }
});

await suite([], "vexlake up that cannot start", () => {
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  afterAll(() => folder.remove());

  it("should exit 2 on a key that vexlake.yaml does not have, and name it", async () => {
    const file = join(folder.path, "unknown.yaml");
    const { writeFile } = await import("node:fs/promises");
    await writeFile(file, "query: {resq: 127.0.0.1:6380}\n");
    const { code, stderr } = await vexlake(["up", "--config", file, "--data-dir", dataDir]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining("query.resq") });
  });

  it("should exit 2 on an environment variable of a section without such a key", async () => {
    const { code, stderr } = await vexlake(["up", "--data-dir", dataDir], { VEXLAKE_INGEST_SEAL_BITES: "1" });
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining("ingest.seal_bites") });
  });

  it("should take the log level from the environment, which is no key of the file", async () => {
    const { code, stderr } = await vexlake(["collection", "list", "--data-dir", dataDir], {
      VEXLAKE_LOGGING: "error",
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("should exit 5 when no broker answers, and say which", async () => {
    const args = ["up", "--data-dir", dataDir, "--kafka", "127.0.0.1:1", "--port", "0", "--http-port", "0"];
    const { code, stdout, stderr } = await vexlake(args);
    expect({ code, stdout }).toEqual({ code: 5, stdout: "" });
    expect(stderr).toContain("127.0.0.1:1");
  });

  it("should exit 4 when a given port is taken", async () => {
    const { createServer } = await import("node:net");
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as { port: number };
    const args = ["up", "--data-dir", dataDir, "--log", "local", "--port", String(port), "--http-port", "0"];
    const { code, stderr } = await vexlake(args);
    taken.close();
    expect({ code, stderr }).toEqual({ code: 4, stderr: expect.stringContaining(String(port)) });
  });

  it("should release the data directory when a start fails, so that the next one works", async () => {
    const config = { query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" } };
    const node = await startVexlake("up", { dir: folder.path, name: "data", config });
    expect(node.ready.log).toBe("local");
    expect(await node.stop()).toBe(0);
  });
});

/** Upserts with and without attributes and event time, patches, deletes, tombstones, a return. */
function everyOperation(format: Format): { message: Message; change: Change }[] {
  const random = seeded(format.length);
  const vector = () => randomVector(DIM, random);
  const prefix = randomUUID();
  const id = (i: number) => `${prefix}/${i}`;
  const changes: Change[] = [];
  for (let i = 0; i < 60; i += 1) {
    const attrs =
      i % 2 === 0 ? { attrs: `{"i":${i},"text":"ünïcode ${i}","deep":{"list":[1,null,"x"]}}` } : {};
    const eventTime = i % 3 === 0 ? { eventTime: 1_767_225_600_000 + i } : {};
    changes.push({
      id: id(i),
      ...(i < 30 ? { op: "upsert" } : {}),
      vector: vector(),
      ...attrs,
      ...eventTime,
    });
  }
  for (let i = 0; i < 10; i += 1) changes.push({ id: id(i), op: "set-vector", vector: vector() });
  for (let i = 10; i < 20; i += 1) changes.push({ id: id(i), op: "set-attrs", attrs: `{"patched":${i}}` });
  for (let i = 20; i < 25; i += 1) changes.push({ id: id(i), op: "delete" });
  const encoded = changes.map((change) => ({ change, message: encode(format, change) }));
  for (let i = 25; i < 30; i += 1) {
    // A null value deletes, whatever the header says.
    const headers = i % 2 === 0 ? { "vexlake-op": "upsert" } : {};
    encoded.push({ change: { id: id(i), op: "delete" }, message: tombstone(id(i), headers) });
  }
  for (let i = 20; i < 22; i += 1) {
    const change = { id: id(i), vector: vector() };
    encoded.push({ change, message: encode(format, change) });
  }
  return encoded;
}
