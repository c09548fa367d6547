/*
 * Bad input over RESP and HTTP: every row of DESIGN §10 that clients can cause is answered by an error that
 * names the field, what it was and what it may be; nothing of it reaches the log, and the node goes on.
 */
import { connect } from "node:net";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Configuration, startVexlake, until, type Vexlake } from "../harness/processes.ts";
import { floatBytes } from "../harness/records.ts";
import { suite, temporaryFolder } from "../harness/services.ts";
import { call, collectionOf, rawCall, redisOf } from "./client.ts";

const LONG_ID = "x".repeat(1_025);
const LARGE_ATTRS = JSON.stringify({ x: "y".repeat(65_536) });
const f32 = (...values: number[]) => floatBytes(Float32Array.from(values));
const GOOD = f32(1, 2, 3);
const config: Configuration = {
  query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
  ingest: { seal_age_ms: 3_600_000 },
  collections: { docs: { dim: 3, metric: "l2", partitions: 2 } },
};

type Words = (string | Buffer)[];

/** What is wrong · the command · what the error must say. */
const COMMANDS: [string, Words, string[]][] = [
  [
    "a vector of another dimension",
    ["VADD", "docs", "FP32", f32(1, 2), "a"],
    ["dimension", "got 2", "has 3"],
  ],
  ["NaN in a vector", ["VADD", "docs", "FP32", f32(1, 2, Number.NaN), "a"], ["component 2", "NaN"]],
  ["infinity in a vector", ["VADD", "docs", "FP32", f32(Infinity, 2, 3), "a"], ["component 0", "inf"]],
  ["a number beyond float32", ["VADD", "docs", "VALUES", "3", "1", "2", "1e39", "a"], ["vector[2]", "1e39"]],
  ["an empty id", ["VADD", "docs", "FP32", GOOD, ""], ["id", "0 bytes", "1 to 1024"]],
  ["an id that is too long", ["VADD", "docs", "FP32", GOOD, LONG_ID], ["id", "1025 bytes", "1 to 1024"]],
  ["an id that is not UTF-8", ["VADD", "docs", "FP32", GOOD, Buffer.of(0xff)], ["id", "UTF-8"]],
  [
    "attributes that are no object",
    ["VADD", "docs", "FP32", GOOD, "a", "SETATTR", "[1]"],
    ["array", "object"],
  ],
  [
    "attributes that are no JSON",
    ["VADD", "docs", "FP32", GOOD, "a", "SETATTR", "{"],
    ["attributes", "JSON"],
  ],
  ["too many attributes", ["VADD", "docs", "FP32", GOOD, "a", "SETATTR", LARGE_ATTRS], ["65544", "65536"]],
  [
    "a collection of too many dimensions",
    ["VADD", "new", "FP32", Buffer.alloc(4 * 65_537), "a"],
    ["65537", "65536"],
  ],
  [
    "more results than a search may have",
    ["VSIM", "docs", "FP32", GOOD, "COUNT", "10001"],
    ["10001", "10000"],
  ],
  ["more effort than a search may take", ["VSIM", "docs", "FP32", GOOD, "EF", "1000001"], ["EF"]],
  ["a query of another dimension", ["VSIM", "docs", "FP32", f32(1), "COUNT", "1"], ["got 1", "has 3"]],
  [
    "a filter that ends early",
    ["VSIM", "docs", "FP32", GOOD, "FILTER", ".a >"],
    ["FILTER expression", "byte 4"],
  ],
  ["a version that does not exist", ["VSIM", "docs@99", "FP32", GOOD], ["version 99", "head is version"]],
  ["patching with an array", ["VSETATTR", "docs", "a", "[]"], ["array", "object"]],
];

/** What is wrong · method · path · body · status · what the message must say. */
const REQUESTS: [string, string, string, unknown, number, string[]][] = [
  [
    "a vector of another dimension",
    "PUT",
    "records",
    { collection: "docs", id: "a", vector: [1] },
    400,
    ["got 1", "has 3"],
  ],
  [
    "an id that is too long",
    "PUT",
    "records",
    { collection: "docs", id: LONG_ID, vector: [1, 2, 3] },
    400,
    ["1025", "1024"],
  ],
  [
    "a number beyond float32",
    "PUT",
    "records",
    '{"collection":"docs","id":"a","vector":[1,2,1e39]}',
    400,
    ["vector[2]", "1e39"],
  ],
  [
    "attributes that are no object",
    "PUT",
    "records",
    { collection: "docs", id: "a", vector: [1, 2, 3], attrs: [1] },
    400,
    ["array"],
  ],
  [
    "a field that is not known",
    "PUT",
    "records",
    { collection: "docs", id: "a", vektor: [] },
    400,
    ["vektor", "vector"],
  ],
  [
    "a collection that is not there",
    "PUT",
    "records",
    { collection: "nope", id: "a", vector: [1] },
    404,
    ["nope"],
  ],
  [
    "patching a record that is not there",
    "PATCH",
    "records",
    { collection: "docs", id: "no", attrs: {} },
    404,
    ["no"],
  ],
  [
    "more results than a search may have",
    "POST",
    "search",
    { collection: "docs", vector: [1, 2, 3], k: 10_001 },
    400,
    ["10001", "10000"],
  ],
  [
    "a scope that is not known",
    "POST",
    "search",
    { collection: "docs", vector: [1, 2, 3], scope: "stale" },
    400,
    ["stale", "fresh"],
  ],
  ["a body that is not JSON", "POST", "search", '{"collection"', 400, ["malformed"]],
  ["too many dimensions", "POST", "collections", { name: "big", dim: 65_537 }, 400, ["65537", "65536"]],
  [
    "a metric that is not known",
    "POST",
    "collections",
    { name: "big", dim: 3, metric: "hamming" },
    400,
    ["hamming", "cosine"],
  ],
  ["a name that is taken", "POST", "collections", { name: "docs", dim: 3 }, 409, ["docs"]],
  ["a database that is not there", "POST", "flush?collection=docs&db=x", undefined, 400, ["db", '"x"', "15"]],
  [
    "a beginning that is none",
    "POST",
    "replay?collection=docs&from=soon",
    undefined,
    400,
    ["soon", "earliest"],
  ],
  ["an offset beyond the log", "POST", "replay?collection=docs&from=0:99", undefined, 400, ["99", "0 to"]],
];

await suite([], "bad input of clients", () => {
  const folder = temporaryFolder();
  let node: Vexlake;
  let redis: Redis;

  beforeAll(async () => {
    node = await startVexlake("up", { dir: folder.path, config });
    redis = redisOf(node);
    expect(await redis.call("VADD", "docs", "FP32", GOOD, "kept")).toBe(1);
  });

  afterAll(async () => {
    redis.disconnect();
    await node.stop();
    folder.remove();
  });

  describe("over RESP", () => {
    it.each(COMMANDS)("should refuse %s, and say why", async (_, [name, ...words], parts) => {
      const failed = redis.call(name as string, ...words).then(() => "no error", String);
      for (const part of parts) expect(await failed).toContain(part);
    });

    it("should refuse 65,537 values before it looks at them", async () => {
      const values = Array.from({ length: 65_537 }, () => "0");
      expect(await speak(node, frame(["VADD", "new", "VALUES", "65537", ...values, "a"]))).toMatch(
        /65537.*65536/,
      );
    });

    it("should close a connection that breaks the protocol, and no other", async () => {
      expect(await speak(node, "*1\r\n$-5\r\n")).toMatch(/^-ERR Protocol error/);
      expect(await speak(node, `*1\r\n$${1024 ** 3}\r\n`)).toMatch(
        /^-ERR Protocol error: invalid bulk length/,
      );
      expect(await redis.call("VCARD", "docs")).toBe(1);
    });
  });

  describe("over HTTP", () => {
    it.each(REQUESTS)("should refuse %s, and say why", async (_, method, path, body, status, parts) => {
      const answer = await rawCall(node, method, `/api/v1/${path}`, body);
      expect(answer.status).toBe(status);
      for (const part of parts) expect(answer.body.message).toContain(part);
    });
  });

  it("should have let nothing of it into the log, nor made a collection of it", async () => {
    expect((await collectionOf(node, "docs")).records).toBe(1);
    const { collections } = (await call(node, "GET", "/api/v1/collections")) as {
      collections: { name: string }[];
    };
    expect(collections.map(({ name }) => name)).toEqual(["docs"]);
    await call(node, "POST", "/api/v1/flush?collection=docs");
    const reports = await call(node, "POST", "/api/v1/verify?collection=docs");
    expect(reports).toMatchObject({
      "0/docs": { ok: true, offsets: 1, ledger: { kept: "1", dead_lettered: "0" } },
    });
  });
});

function frame(words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
}

/** Sends bytes on a connection of its own; answers the first line of the reply. */
async function speak({ resp }: Vexlake, bytes: string): Promise<string> {
  const socket = connect(resp.port, resp.host);
  let answer = "";
  socket.on("data", (part) => {
    answer += part;
  });
  socket.write(bytes);
  await until("an answer", () => answer.includes("\r\n"));
  socket.destroy();
  return answer;
}
