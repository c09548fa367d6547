/*
 * Replay without fear: a second incarnation is filled from the log beside the live one, becomes live, is
 * rolled back, and the loser is retired; readers and writers never stop. And a lake started on another log
 * than its collections live on.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Producer } from "kafkajs";
import { afterAll, beforeAll, expect, it } from "vitest";
import {
  type CommandResult,
  startVexlake,
  until,
  type Vexlake,
  vexlake,
  vexlakeJson,
} from "../harness/processes.ts";
import {
  type Change,
  encode,
  floatBytes,
  randomVector,
  seeded,
  startProducer,
  tombstone,
} from "../harness/records.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";
import { collectionOf, Model, redisOf } from "./client.ts";

const DIM = 4;
const RECORDS = 400;

interface Listed {
  live: { incarnation: string; records: number };
  fed: {
    incarnation: string;
    records: number;
    partitions: { applied: string; checkpoint: { next: string } }[];
  }[];
}

await suite(["kafka"], "replay on Kafka", ({ kafka }) => {
  const folder = temporaryFolder();
  const name = unique("docs");
  const topic = `vexlake.0.${name}`;
  const config = {
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("replay") },
    query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
    ingest: { seal_age_ms: 300 },
    collections: { [name]: { dim: DIM, metric: "cosine", partitions: 2, format: "f32" } },
  };
  const random = seeded(1);
  const model = new Model();
  let producer: Producer;
  let node: Vexlake;
  let original: string;
  let replayed: string;
  const cli = (...args: string[]) => [...args, "--config", node.configFile, "--data-dir", node.dataDir];
  const list = () => vexlakeJson<Listed>(cli("replay", "list", name));

  async function produce(changes: Change[]): Promise<void> {
    for (const change of changes) model.apply(change);
    const messages = changes.map((change) =>
      change.op === "delete" ? tombstone(change.id) : encode("f32", change),
    );
    await producer.send({ topic, messages });
  }
  const upserts = (prefix: string, count: number): Change[] =>
    Array.from({ length: count }, (_, i) => ({
      id: `${prefix}-${i}`,
      vector: randomVector(DIM, random),
      attrs: `{"from":"${prefix}"}`,
    }));

  beforeAll(async () => {
    producer = await startProducer(kafka.brokers);
    node = await startVexlake("up", { dir: folder.path, config });
    await produce(upserts("first", RECORDS));
    await produce(Array.from({ length: 50 }, (_, i): Change => ({ id: `first-${i}`, op: "delete" })));
    await model.served(node, name);
    original = (await collectionOf(node, name)).incarnation;
  });

  afterAll(async () => {
    await producer.disconnect();
    await node.stop();
    folder.remove();
  });

  it("should refuse to promote a replay that is behind what is live", async () => {
    // Nothing feeds it while `up` is down.
    expect(await node.stop()).toBe(0);
    const begun = await vexlakeJson<{ incarnation: string }>(
      cli("replay", "start", name, "--from", "earliest"),
    );
    replayed = begun.incarnation;
    expect(replayed).not.toBe(original);
    const promoted = await vexlake(cli("promote", name));
    expect(promoted.code).not.toBe(0);
    expect(promoted.stderr).toMatch(/comes to 0 of .* partition \d, the live incarnation is at \d+/);
    const { live, fed } = await list();
    expect([live.incarnation, fed.map(({ incarnation }) => incarnation)]).toEqual([original, [replayed]]);
    node = await startVexlake("up", { dir: folder.path, config });
  });

  it("should fill the replay beside the live one, which goes on", async () => {
    await produce(upserts("second", 50));
    await model.served(node, name);
    expect((await collectionOf(node, name)).incarnation).toBe(original);
    await until(
      "the replay to have everything",
      async () => (await list()).fed[0]?.records === model.records.size,
    );
  });

  it("should serve the same records from the replay once it is promoted", async () => {
    await promoted("promote", replayed);
    await model.served(node, name);
    const { live, fed } = await list();
    expect([live.incarnation, fed[0]?.incarnation]).toEqual([replayed, original]);
  });

  it("should feed the predecessor, so that a rollback loses nothing written since", async () => {
    await produce(upserts("third", 50));
    const redis = redisOf(node);
    const vector = randomVector(DIM, random);
    expect(await redis.call("VADD", name, "FP32", floatBytes(vector), "by-redis")).toBe(1);
    model.apply({ id: "by-redis", vector });
    redis.disconnect();
    await model.served(node, name);
    await promoted("rollback", original);
    await model.served(node, name);
  });

  it("should refuse to retire what is live", async () => {
    const { code, stderr } = await vexlake(cli("replay", "retire", name, original));
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(original) });
  });

  it("should retire the other one, and collect its files", async () => {
    const files = join(node.dataDir, "lake", "c", replayed, "seg");
    expect(existsSync(files)).toBe(true);
    await vexlakeJson(cli("replay", "retire", name, replayed));
    expect((await list()).fed).toEqual([]);
    const { left } = await vexlakeJson<{ left: string[] }>(cli("gc", "--grace-ms", "0"));
    expect(left).toEqual([replayed]);
    expect(existsSync(files)).toBe(false);
    await model.served(node, name);
    expect((await vexlake(cli("verify", name))).code).toBe(0);
  });

  it("should begin a replay at given offsets or a time, and refuse what is no beginning", async () => {
    const { partitions } = (await list()).live as unknown as {
      partitions: { partition: number; applied: string }[];
    };
    const ends = partitions.map(({ partition, applied }) => `${partition}:${applied}`).join(",");
    const { incarnation } = await vexlakeJson<{ incarnation: string }>(
      cli("replay", "start", name, "--from", ends),
    );
    await vexlakeJson(cli("replay", "retire", name, incarnation));
    const late = await vexlakeJson<{ incarnation: string }>(
      cli("replay", "start", name, "--from", "2999-01-01"),
    );
    const starts = (await list()).fed.find((one) => one.incarnation === late.incarnation)?.partitions;
    expect(starts?.map(({ checkpoint }) => checkpoint.next)).toEqual(
      partitions.map(({ applied }) => applied),
    );
    const refused: [string, string][] = [
      ["soon", "soon"],
      ["0:999999999", "999999999"],
    ];
    for (const [from, named] of refused) {
      const { code, stderr } = await vexlake(cli("replay", "start", name, "--from", from));
      expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(named) });
    }
  });

  it("should exit 4 on a lake whose collections live on another log, and leave it readable", async () => {
    expect(await node.stop()).toBe(0);
    const dataDir = ["--data-dir", node.dataDir];
    const other = await vexlake(["up", "--log", "local", "--port", "0", "--http-port", "0", ...dataDir]);
    expect(other.code).toBe(4);
    expect(other.stderr).toContain(`topic ${topic} lies on kafka`);
    const listed: CommandResult = await vexlake(["collection", "list", "--json", ...dataDir]);
    expect(JSON.parse(listed.stdout)[0].live.committedRecords).toBe(model.records.size);
    node = await startVexlake("up", { dir: folder.path, config });
    await model.served(node, name);
  });

  /** promote or rollback, and until the node answers from there. */
  async function promoted(command: "promote" | "rollback", target: string): Promise<void> {
    await until(`${command} to be accepted`, async () => (await vexlake(cli(command, name))).code === 0);
    await until("the node to follow", async () => (await collectionOf(node, name)).incarnation === target);
  }
});
