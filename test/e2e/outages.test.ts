/*
 * What VexLake stands on goes away and comes back: broker, jobs' Redis, object store, spool. Reads serve what
 * they have and say so, writes are refused instead of lost, and everything goes on without a restart. What
 * does not heal by itself (retention passed us, another topic under the name) is a named, visible state.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Admin, Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { s3Environment } from "../harness/oracles.ts";
import { startVexlake, until, type Vexlake, vexlake, vexlakeJson } from "../harness/processes.ts";
import { encode, floatBytes, kafkaClient, randomVector, seeded, startProducer } from "../harness/records.ts";
import { ownKafka, ownRedis, suite, temporaryFolder, unique } from "../harness/services.ts";
import { collectionOf, redisOf } from "./client.ts";

const DIM = 4;
const VECTOR = randomVector(DIM, seeded(1));
const BYTES = floatBytes(VECTOR);
const ports = { resp: "127.0.0.1:0", http: "127.0.0.1:0" };

/** A write as one client's; a fresh connection, so that nothing of an outage lingers in it. */
async function write(node: Vexlake, collection: string, id: string): Promise<string> {
  const redis = redisOf(node);
  const answer = redis
    .call("VADD", collection, "FP32", BYTES, id)
    .then(String, (error: Error) => error.message);
  return await answer.finally(() => redis.disconnect());
}

async function count(node: Vexlake, collection: string): Promise<number> {
  const redis = redisOf(node);
  return Number(await redis.call("VCARD", collection).finally(() => redis.disconnect()));
}

async function found(node: Vexlake, collection: string): Promise<string[]> {
  const redis = redisOf(node);
  const answer = redis.call("VSIM", collection, "FP32", BYTES).finally(() => redis.disconnect());
  return ((await answer) as string[]).toSorted();
}

/** Waits until /readyz answers 503 with this text in it, or 200 for null. */
async function readiness(node: Vexlake, reason: string | null): Promise<string> {
  return await until(`readiness: ${reason ?? "ready"}`, async () => {
    const response = await fetch(`${node.http}/readyz`);
    const body = await response.text();
    const met = reason === null ? response.status === 200 : response.status === 503 && body.includes(reason);
    return met ? body : null;
  });
}

async function expectVerified(node: Vexlake, collection: string, env = {}): Promise<void> {
  const cli = ["--config", node.configFile, "--data-dir", node.dataDir];
  await vexlakeJson(["flush", collection, ...cli], env);
  const { code, stdout } = await vexlake(["verify", collection, ...cli], env);
  expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("lost 0, duplicated 0") });
}

await suite(["kafka", "redis"], "a broker and a Redis that go away", () => {
  const folder = temporaryFolder();
  const collection = "docs";
  const topic = `vexlake.0.${collection}`;
  let kafka: Awaited<ReturnType<typeof ownKafka>>;
  let redis: Awaited<ReturnType<typeof ownRedis>>;
  let producer: Producer;
  let node: Vexlake;

  beforeAll(async () => {
    [kafka, redis] = await Promise.all([
      ownKafka(join(folder.path, "kafka")),
      ownRedis(join(folder.path, "redis")),
    ]);
    const config = {
      log: { kind: "kafka", brokers: [kafka.brokers] },
      jobs: { redis: redis.url },
      query: ports,
      ingest: { seal_age_ms: 3_600_000 },
      collections: { [collection]: { dim: DIM, partitions: 2 } },
    };
    [producer, node] = await Promise.all([
      startProducer(kafka.brokers),
      startVexlake("up", { dir: folder.path, config }),
    ]);
  });

  afterAll(async () => {
    // Also what a failed start has left undefined: a broker must not outlive its suite.
    await Promise.allSettled([producer?.disconnect(), node?.stop()]);
    await Promise.allSettled([kafka?.stop(), redis?.stop()]);
    folder.remove();
  });

  it("should serve reads and refuse writes while the broker is away, and say why", async () => {
    // A broker's first minute may cut a connection; whoever waits for /readyz does not see it.
    await readiness(node, null);
    expect(await write(node, collection, "before")).toBe("1");
    await producer.send({ topic, messages: [encode("f32", { id: "produced-before", vector: VECTOR })] });
    await until("both to be visible", async () => (await count(node, collection)) === 2);
    kafka.supervised.kill("SIGKILL");
    expect(await kafka.supervised.exited()).toMatchObject({ signal: "SIGKILL" });
    await readiness(node, "the log is away");
    expect(await write(node, collection, "refused")).toMatch(/^TRYAGAIN .*the log is away/);
    expect(await count(node, collection)).toBe(2);
  });

  it("should go on by itself once the broker is back, having lost and doubled nothing", async () => {
    kafka = await ownKafka(join(folder.path, "kafka"), kafka.port);
    await readiness(node, null);
    expect(await write(node, collection, "after")).toBe("1");
    await producer.send({ topic, messages: [encode("f32", { id: "produced-after", vector: VECTOR })] });
    await until("everything to be visible", async () => (await count(node, collection)) === 4);
    await expectVerified(node, collection);
  });

  it("should read, write and commit while Redis is away, and merge once it is back", async () => {
    await redis.stop();
    await readiness(node, "redis for jobs is away");
    for (let round = 0; round < 4; round += 1) {
      expect(await write(node, collection, `without-redis-${round}`)).toBe("1");
      await expectVerified(node, collection);
    }
    const { segments } = await collectionOf(node, collection);
    expect(segments).toBeGreaterThanOrEqual(4);
    redis = await ownRedis(join(folder.path, "redis"), redis.port);
    await readiness(node, null);
    await until("a merge", async () => (await collectionOf(node, collection)).segments < segments);
    await expectVerified(node, collection);
  });

  it("should fail a flush loudly when its spool is gone, keep the records, and commit them later", async () => {
    const spools = join(node.dataDir, "run", "spool");
    const own = (await readdir(spools)).find((name) => name.startsWith(`${node.pid}-`));
    const spool = join(spools, own as string);
    expect(await write(node, collection, "without-spool")).toBe("1");
    await rm(spool, { recursive: true });
    const flush = ["flush", collection, "--data-dir", node.dataDir];
    const { code, stderr } = await vexlake(flush);
    expect({ code, stderr }).toEqual({ code: 5, stderr: expect.stringContaining(spool) });
    const metrics = await (await fetch(`${node.http}/metrics`)).text();
    expect(metrics).toMatch(/vexlake_flush_failures_total\{collection="docs"[^}]*\} [1-9]/);
    const records = await count(node, collection);
    await mkdir(spool, { recursive: true });
    await expectVerified(node, collection);
    expect(await count(node, collection)).toBe(records);
  });
});

await suite(["kafka", "s3"], "an object store that goes away", ({ kafka, s3 }) => {
  const folder = temporaryFolder();
  const collection = unique("store");
  const env = s3Environment(s3);
  let road: Road;
  let node: Vexlake;

  beforeAll(async () => {
    road = await openRoad(s3.endpoint);
    const config = {
      store: { url: `s3://${s3.bucket}/${unique("lake")}`, endpoint: road.endpoint, path_style: true },
      log: { kind: "kafka", brokers: [kafka.brokers], group: unique("store") },
      query: ports,
      ingest: { seal_age_ms: 500 },
      collections: { [collection]: { dim: DIM, partitions: 2 } },
    };
    node = await startVexlake("up", { dir: folder.path, config, env });
  });

  afterAll(async () => {
    await node.stop();
    road.close();
    folder.remove();
  });

  it("should keep what it cannot commit and serve it, while the store is away", async () => {
    expect(await write(node, collection, "before")).toBe("1");
    await until("a commit", async () => (await collectionOf(node, collection)).segments === 1);
    expect(await found(node, collection)).toEqual(["before"]);
    road.close();
    expect(await write(node, collection, "meanwhile")).toBe("1");
    await until("a flush to fail", () => node.log().includes("flush failed, trying again"), 50_000);
    expect(await found(node, collection)).toEqual(["before", "meanwhile"]);
  });

  it("should commit it by itself once the store is back", async () => {
    await road.open();
    await until(
      "the commit that was owed",
      async () => (await collectionOf(node, collection)).segments === 2,
    );
    expect(await count(node, collection)).toBe(2);
    await expectVerified(node, collection, env);
  });
});

await suite(["kafka"], "a topic that is not what it was", ({ kafka }) => {
  const folder = temporaryFolder();
  const configOf = (collection: string) => ({
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("topic") },
    query: ports,
    collections: { [collection]: { dim: DIM, partitions: 1 } },
  });
  let admin: Admin;
  let producer: Producer;

  beforeAll(async () => {
    admin = kafkaClient(kafka.brokers).admin();
    await admin.connect();
    producer = await startProducer(kafka.brokers);
  });

  afterAll(async () => {
    await Promise.all([admin.disconnect(), producer.disconnect()]);
    folder.remove();
  });

  /** Commits three records, stops, lets `happen` change the topic, and starts again. */
  async function around(collection: string, happen: (topic: string) => Promise<unknown>): Promise<Vexlake> {
    const topic = `vexlake.0.${collection}`;
    const options = { dir: folder.path, name: collection, config: configOf(collection) };
    const node = await startVexlake("up", options);
    await producer.send({ topic, messages: messages("kept", 3) });
    await until("the records to be visible", async () => (await count(node, collection)) === 3);
    expect(await node.stop()).toBe(0);
    await happen(topic);
    return await startVexlake("up", options);
  }

  const messages = (prefix: string, length: number) =>
    Array.from({ length }, (_, i) => encode("f32", { id: `${prefix}-${i}`, vector: VECTOR }));

  /** The state is named; the snapshot is served; nothing may be written. */
  async function expectStopped(
    node: Vexlake,
    collection: string,
    reason: string,
    says: string,
  ): Promise<void> {
    expect(await readiness(node, reason)).toContain(says);
    expect(await count(node, collection)).toBe(3);
    expect(await write(node, collection, "refused")).toMatch(/^TRYAGAIN .*takes no writes now/);
    expect(await node.stop()).toBe(0);
  }

  it("should stop by name where retention has passed it, and tell the lost range", async () => {
    const collection = unique("retention");
    const node = await around(collection, async (topic) => {
      await producer.send({ topic, messages: messages("lost", 5) });
      // deleteTopicRecords needs the topic's metadata and does not load it.
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "6" }] });
    });
    await expectStopped(node, collection, "retention-passed", "next is 3, the log starts at 6");
  });

  it("should go on once a person has accepted the loss, and count it as lost", async () => {
    const collection = unique("accepted");
    const node = await around(collection, async (topic) => {
      await producer.send({ topic, messages: messages("lost", 5) });
      await admin.fetchTopicOffsets(topic);
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "6" }] });
    });
    await readiness(node, "retention-passed");
    const cli = ["--config", node.configFile, "--data-dir", node.dataDir];
    await vexlakeJson(["source", "accept", collection, ...cli]);
    await readiness(node, null);
    expect(await write(node, collection, "after")).toBe("1");
    // Three from before, the two that retention has left, and the new one.
    await until("what is left to be read", async () => (await count(node, collection)) === 6);
    await vexlakeJson(["flush", collection, ...cli]);
    const reports = await vexlakeJson<Record<string, object>>(["verify", collection, ...cli]);
    expect(reports[`0/${collection}`]).toMatchObject({ ok: true, ledger: { lost: "3" } });
    expect(await node.stop()).toBe(0);
  });

  it("should stop by name at a topic that was deleted and made again", async () => {
    const collection = unique("recreated");
    const node = await around(collection, async (topic) => {
      await recreate(topic);
      await producer.send({ topic, messages: messages("other", 10) });
    });
    await expectStopped(node, collection, "topic-recreated", "is not the record that was consumed");
  });

  it("should stop by name at a topic that ends before what it has read", async () => {
    const collection = unique("shorter");
    const node = await around(collection, recreate);
    await expectStopped(node, collection, "beyond-end", "ends at 0, before the next offset 3");
  });

  async function recreate(topic: string): Promise<void> {
    await admin.deleteTopics({ topics: [topic] });
    await until("the topic to be gone", async () => !(await admin.listTopics()).includes(topic));
    const made = () => admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true });
    await until("the topic to be there again", () => made().catch(() => false));
  }
});

/** A way to a server that can be closed: connections are cut, new ones refused. */
interface Road {
  endpoint: string;
  open(): Promise<void>;
  close(): void;
}

async function openRoad(to: string): Promise<Road> {
  const { hostname, port } = new URL(to);
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  let own = 0;
  const open = () => new Promise<void>((resolve) => server.listen(own, "127.0.0.1", resolve));
  await open();
  own = (server.address() as AddressInfo).port;
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { endpoint: `http://127.0.0.1:${own}`, open, close };
}
