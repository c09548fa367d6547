/*
 * Bad records in the log: for every reason that schemas/records.md lists, a record that earns it, among good
 * ones. With `dlq` each goes to the dead-letter topic as it came, with the header names of Kafka Connect, and
 * the stream goes on; `skip` only counts; `fail` stops that partition in a named, visible state.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { IHeaders, KafkaMessage, Message, Producer } from "kafkajs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import { startVexlake, until, type Vexlake, vexlake, vexlakeJson } from "../harness/processes.ts";
import { encode, floatBytes, kafkaClient, randomVector, seeded, startProducer } from "../harness/records.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";
import { recordsOf, redisOf } from "./client.ts";

const DIM = 4;
const PARTITIONS = 2;
const VECTOR = randomVector(DIM, seeded(1));
const VALUE = floatBytes(VECTOR);
const JSON_FORMAT: IHeaders = { "vexlake-format": "json" };

/** A record per reason; those of patches need a record before them and come separately. */
const BAD: Record<string, Message> = {
  "null-key": { key: null, value: VALUE },
  "bad-key": { key: Buffer.from([0xff, 0xfe]), value: VALUE },
  "empty-id": { key: Buffer.alloc(0), value: VALUE },
  "id-too-long": { key: "x".repeat(1_025), value: VALUE },
  "id-mismatch": { ...encode("json", { id: "other", vector: VECTOR }, true), key: "this" },
  "bad-format": { key: "k", value: VALUE, headers: { "vexlake-format": "xml" } },
  "bad-op": { key: "k", value: VALUE, headers: { "vexlake-op": "merge" } },
  "bad-event-time": { key: "k", value: VALUE, headers: { "vexlake-event-time": "yesterday" } },
  "field-mismatch": {
    ...encode("json", { id: "k", vector: VECTOR, eventTime: 2 }),
    headers: { ...JSON_FORMAT, "vexlake-event-time": "1" },
  },
  undecodable: { key: "k", value: '{"vector":', headers: JSON_FORMAT },
  "missing-vector": { key: "k", value: Buffer.alloc(0) },
  "unexpected-vector": {
    key: "k",
    value: VALUE,
    headers: { "vexlake-op": "set-attrs", "vexlake-attrs": "{}" },
  },
  "bad-dimension": { key: "k", value: floatBytes(Float32Array.of(1, 2, 3)) },
  "not-finite": { key: "k", value: floatBytes(Float32Array.of(1, 2, 3, Number.NaN)) },
  "missing-attrs": { key: "k", value: Buffer.alloc(0), headers: { "vexlake-op": "set-attrs" } },
  "unexpected-attrs": {
    key: "k",
    value: VALUE,
    headers: { "vexlake-op": "set-vector", "vexlake-attrs": "{}" },
  },
  "bad-attrs": { key: "k", value: VALUE, headers: { "vexlake-attrs": "[1]" } },
  "attrs-too-large": {
    key: "k",
    value: VALUE,
    headers: { "vexlake-attrs": `{"x":"${"y".repeat(65_536)}"}` },
  },
  "patch-without-record": encode("f32", { id: "nobody", op: "set-attrs", attrs: '{"late":true}' }),
};
const CROSSING = "patch-crosses-partitions";
/** Takes a topic of its own. */
const COMPACTED = "patch-on-compacted-topic";

/** What some messages must name: the field, what it was, what it should have been. */
const MESSAGES: Record<string, string[]> = {
  "id-too-long": ["1025", "1024"],
  "id-mismatch": ["other", "this"],
  "bad-format": ["xml"],
  "bad-op": ["merge"],
  "bad-event-time": ["yesterday"],
  "bad-dimension": ["3", "4"],
  "not-finite": ["NaN"],
  "attrs-too-large": ["65544", "65536"],
  "patch-without-record": ["nobody"],
  [CROSSING]: ["crossing", "partition 0", "partition 1"],
};

await suite(["kafka"], "bad records", ({ kafka }) => {
  const folder = temporaryFolder();
  let producer: Producer;

  const configuration = (collection: string, badRecord: string) => ({
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("bad") },
    query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
    ingest: { seal_age_ms: 3_600_000, bad_record: badRecord },
    collections: { [collection]: { dim: DIM, metric: "l2", partitions: PARTITIONS, format: "f32" } },
  });
  const good = (id: string, partition: number): Message => ({ key: id, value: VALUE, partition });
  const bad = (reason: string, partition = 0): Message => ({ ...(BAD[reason] as Message), partition });

  async function visible(node: Vexlake, collection: string, id: string): Promise<void> {
    await until(`${id} to be visible`, async () => (await recordsOf(node, collection, [id])).has(id));
  }

  beforeAll(async () => {
    producer = await startProducer(kafka.brokers);
  });

  afterAll(async () => {
    await producer.disconnect();
    folder.remove();
  });

  describe("with bad_record: dlq", () => {
    const collection = unique("dlq");
    const topic = `vexlake.0.${collection}`;
    const reasons = [...Object.keys(BAD), CROSSING];
    let node: Vexlake;
    let letters: KafkaMessage[];
    const cli = (...args: string[]) => [...args, "--data-dir", node.dataDir];

    beforeAll(async () => {
      node = await startVexlake("up", {
        dir: folder.path,
        name: collection,
        config: configuration(collection, "dlq"),
      });
    });
    afterAll(async () => void (await node.stop()));

    it("should know a bad record for every reason of schemas/records.md", () => {
      const page = readFileSync(join(ROOT, "schemas", "records.md"), "utf8").split(
        "\n## Limits and reasons\n",
      )[1];
      const words = [...(page?.split("\n## ")[0] ?? "").matchAll(/^\| `([a-z-]+)` \|/gm)].map(
        ([, word]) => word,
      );
      expect(words.length).toBeGreaterThan(15);
      expect([...reasons, COMPACTED].toSorted()).toEqual(words.toSorted());
    });

    it("should go on behind every one of them", async () => {
      const messages = Object.keys(BAD).flatMap((reason) => [bad(reason), good(`after-${reason}`, 0)]);
      await producer.send({ topic, messages: [...messages, good("crossing", 0)] });
      await visible(node, collection, "crossing");
      const patch = encode("f32", { id: "crossing", op: "set-attrs", attrs: "{}" });
      await producer.send({ topic, messages: [{ ...patch, partition: 1 }, good("after-crossing", 1)] });
      await visible(node, collection, "after-crossing");
      const behind = Object.keys(BAD).map((reason) => `after-${reason}`);
      expect((await recordsOf(node, collection, behind)).size).toBe(behind.length);
      expect((await recordsOf(node, collection, ["k", "this", "nobody"])).size).toBe(0);
    });

    it("should dead-letter each once, as it came, under the header names of Kafka Connect", async () => {
      letters = await readTopic(kafka.brokers, `${topic}.dlq`, reasons.length);
      expect(letters.map(({ headers }) => String(headers?.["vexlake-reason"])).toSorted()).toEqual(
        reasons.toSorted(),
      );
      for (const [i, reason] of Object.keys(BAD).entries()) {
        const letter = letters.find(
          ({ headers }) => String(headers?.["vexlake-reason"]) === reason,
        ) as KafkaMessage;
        const { key, value, headers: sent = {} } = BAD[reason] as Message;
        expect(letter.key, reason).toEqual(key === null ? null : Buffer.from(key as string));
        expect(letter.value, reason).toEqual(Buffer.from(value as string));
        const headers = Object.fromEntries(
          Object.entries(letter.headers ?? {}).map(([name, text]) => [name, String(text)]),
        );
        expect(headers, reason).toMatchObject({
          ...sent,
          "__connect.errors.topic": topic,
          "__connect.errors.partition": "0",
          "__connect.errors.offset": String(2 * i),
          "__connect.errors.exception.class.name": `vexlake.BadRecord.${reason}`,
          "__connect.errors.connector.name": "vexlake",
        });
      }
    });

    it("should say in each what was wrong, with both values", () => {
      for (const { headers } of letters) {
        const message = String(headers?.["__connect.errors.exception.message"]);
        expect(message).not.toBe("");
        for (const part of MESSAGES[String(headers?.["vexlake-reason"])] ?? [])
          expect(message).toContain(part);
      }
    });

    it("should count them in the ledger, and pass verify", async () => {
      await vexlakeJson(cli("flush", collection));
      const reports = await vexlakeJson<Record<string, object>>(cli("verify", collection));
      const ledger = { dead_lettered: String(reasons.length) };
      expect(reports[`0/${collection}`]).toMatchObject({ ok: true, recounted: true, missing: 0, ledger });
    });

    it("should list them for people and scripts", async () => {
      const listed = await vexlakeJson<{ reason: string; offset: string }[]>(cli("dlq", "list", collection));
      expect(listed.map(({ reason }) => reason).toSorted()).toEqual(reasons.toSorted());
      expect(listed.find(({ reason }) => reason === "bad-format")?.offset).toBe("10");
      const { stdout } = await vexlake(cli("dlq", "list", collection, "--limit", "1"));
      expect(stdout.trim().split("\n")).toHaveLength(2);
    });

    it("should apply on dlq replay what has been mended meanwhile, and dead-letter the rest again", async () => {
      await producer.send({ topic, messages: [encode("f32", { id: "nobody", vector: VECTOR })] });
      await visible(node, collection, "nobody");
      const { code, stdout } = await vexlake(cli("dlq", "replay", collection));
      expect({ code, stdout }).toEqual({
        code: 0,
        stdout: expect.stringContaining(`${reasons.length} records`),
      });
      await until("the patch to be applied", async () => {
        const found = await recordsOf(node, collection, ["nobody"]);
        return JSON.stringify(found.get("nobody")?.attrs) === '{"late":true}';
      });
      const again = await readTopic(kafka.brokers, `${topic}.dlq`, 2 * reasons.length - 1);
      const mended = again.filter(
        ({ headers }) => String(headers?.["vexlake-reason"]) === "patch-without-record",
      );
      expect(mended).toHaveLength(1);
      await vexlakeJson(cli("flush", collection));
      expect((await vexlake(cli("verify", collection))).code).toBe(0);
    });
  });

  it("should dead-letter patches on a compacted topic and take everything else", async () => {
    const collection = unique("compacted");
    const topic = `vexlake.0.${collection}`;
    const admin = kafkaClient(kafka.brokers).admin();
    await admin.connect();
    const configEntries = [{ name: "cleanup.policy", value: "compact" }];
    await admin.createTopics({ topics: [{ topic, numPartitions: PARTITIONS, configEntries }] });
    await admin.disconnect();
    const options = { dir: folder.path, name: collection, config: configuration(collection, "dlq") };
    const node = await startVexlake("up", options);
    const patch = encode("f32", { id: "first", op: "set-attrs", attrs: "{}" });
    const messages = [good("first", 0), { ...patch, partition: 0 }, good("behind", 0)];
    await producer.send({ topic, messages });
    await visible(node, collection, "behind");
    const [letter] = await readTopic(kafka.brokers, `${topic}.dlq`, 1);
    expect(String(letter?.headers?.["vexlake-reason"])).toBe(COMPACTED);
    const redis = redisOf(node);
    const write = redis.call("VSETATTR", collection, "first", "{}");
    await expect(write).rejects.toThrow(/compacted topic/);
    redis.disconnect();
    const records = `${node.http}/api/v1/records`;
    const body = JSON.stringify({ collection, id: "first", attrs: {} });
    const answer = await fetch(records, { method: "PATCH", body });
    expect([answer.status, await answer.text()]).toEqual([400, expect.stringContaining("compacted topic")]);
    await vexlakeJson(["flush", collection, "--data-dir", node.dataDir]);
    expect((await vexlake(["verify", collection, "--data-dir", node.dataDir])).code).toBe(0);
    await node.stop();
  });

  it("should only count bad records with bad_record: skip", async () => {
    const collection = unique("skip");
    const topic = `vexlake.0.${collection}`;
    const options = { dir: folder.path, name: collection, config: configuration(collection, "skip") };
    const node = await startVexlake("up", options);
    await producer.send({ topic, messages: [bad("undecodable"), good("behind", 0)] });
    await visible(node, collection, "behind");
    const metrics = await (await fetch(`${node.http}/metrics`)).text();
    expect(metrics).toMatch(
      new RegExp(`vexlake_ingest_bad_records_total\\{collection="${collection}"[^}]*\\} 1\n`),
    );
    const cli = (command: string) => [command, collection, "--data-dir", node.dataDir];
    await vexlakeJson(cli("flush"));
    const reports = await vexlakeJson<Record<string, object>>(cli("verify"));
    expect(reports[`0/${collection}`]).toMatchObject({ ok: true, ledger: { kept: "1", dead_lettered: "1" } });
    expect(await topicsOf(kafka.brokers)).not.toContain(`${topic}.dlq`);
    await node.stop();
  });

  it("should stop that partition, visibly, with bad_record: fail, and go on under another mode", async () => {
    const collection = unique("fail");
    const topic = `vexlake.0.${collection}`;
    const config = configuration(collection, "fail");
    const options = { dir: folder.path, name: collection };
    let node = await startVexlake("up", { ...options, config });
    const messages = [good("before", 0), bad("undecodable"), good("behind", 0), good("beside", 1)];
    await producer.send({ topic, messages });
    const body = await until("the stop to be reported", async () => {
      const response = await fetch(`${node.http}/readyz`);
      return response.status === 503 && (await response.text());
    });
    expect(body).toContain("bad-record");
    expect(body).toContain(`${topic}/0 offset 1`);
    await visible(node, collection, "beside");
    const served = await recordsOf(node, collection, ["before", "behind"]);
    expect([...served.keys()]).toEqual(["before"]);
    const redis = redisOf(node);
    const write = redis.call("VADD", collection, "FP32", VALUE, "refused");
    await expect(write).rejects.toThrow(/^TRYAGAIN .*takes no writes now.*bad record/);
    redis.disconnect();
    expect(await node.stop()).toBe(0);

    node = await startVexlake("up", { ...options, config: { ...config, ingest: { bad_record: "dlq" } } });
    await visible(node, collection, "behind");
    const [letter] = await readTopic(kafka.brokers, `${topic}.dlq`, 1);
    expect(String(letter?.headers?.["vexlake-reason"])).toBe("undecodable");
    await vexlakeJson(["flush", collection, "--data-dir", node.dataDir]);
    expect((await vexlake(["verify", collection, "--data-dir", node.dataDir])).code).toBe(0);
    await node.stop();
  });
});

/** The first `count` messages of a topic of one partition; one more would have been there by then. */
async function readTopic(brokers: string, topic: string, count: number): Promise<KafkaMessage[]> {
  const admin = kafkaClient(brokers).admin();
  await admin.connect();
  const end = async () =>
    (await topicsOf(brokers)).includes(topic) && (await admin.fetchTopicOffsets(topic))[0]?.high;
  await until(`${count} messages on ${topic}`, async () => Number(await end()) >= count);
  expect(await end()).toBe(String(count));
  await admin.disconnect();
  const consumer = kafkaClient(brokers).consumer({ groupId: unique("reader"), maxWaitTimeInMs: 100 });
  const found: KafkaMessage[] = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => void found.push(message) });
  await until(`to read ${count} messages of ${topic}`, () => found.length >= count);
  await consumer.disconnect();
  return found;
}

async function topicsOf(brokers: string): Promise<string[]> {
  const admin = kafkaClient(brokers).admin();
  await admin.connect();
  const topics = await admin.listTopics();
  await admin.disconnect();
  return topics;
}
