/*
 * VADD without SETATTR keeps what an element has: in memory, in a segment, over several partitions, against a
 * client that removes it, and after the collection went on with another topic. One `vexlake up`, local log.
 */
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startVexlake, type Vexlake, vexlakeJson } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/services.ts";
import { call, redisOf } from "./client.ts";

const KEYS = Array.from({ length: 200 }, (_, i) => `key-${i}`);
const ROUNDS = 300;

const folder = temporaryFolder("vexlake-vadd-");
const config = { log: { kind: "local" }, query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" } };
let node: Vexlake;
let redis: Redis;

async function start(): Promise<void> {
  node = await startVexlake("up", { dir: folder.path, config });
  redis = redisOf(node);
}

beforeAll(async () => {
  await start();
  await call(node, "POST", "/api/v1/collections", { name: "docs", dim: 2, partitions: 4 });
});

afterAll(async () => {
  redis?.disconnect();
  await node?.stop();
  folder.remove();
});

/** One pipeline of a command per key; an error fails. */
async function all(command: (key: string, i: number) => (string | number)[]): Promise<unknown[]> {
  const pipeline = redis.pipeline();
  for (const [i, key] of KEYS.entries()) {
    const [name, ...args] = command(key, i);
    pipeline.call(name as string, ...args);
  }
  return ((await pipeline.exec()) ?? []).map(([error, reply]) => {
    if (error) throw error;
    return reply;
  });
}

const added = (round: number) => (key: string, i: number) => ["VADD", "docs", "VALUES", 2, round, i, key];

async function expectRound(round: number): Promise<void> {
  expect(await all((key) => ["VGETATTR", "docs", key])).toEqual(KEYS.map((key) => JSON.stringify({ key })));
  expect(await all((key) => ["VEMB", "docs", key])).toEqual(KEYS.map((_, i) => [`${round}`, `${i}`]));
}

async function verified(): Promise<Record<string, unknown>> {
  const reports = await vexlakeJson<Record<string, { ok: boolean; ledger: Record<string, unknown> }>>([
    "verify",
    "--data-dir",
    node.dataDir,
  ]);
  expect(reports["0/docs"]?.ok).toBe(true);
  return reports["0/docs"]?.ledger ?? {};
}

describe("VADD without SETATTR", () => {
  it("should keep attributes in memory and in segments, and dead-letter nothing", async () => {
    const first = await all((key, i) => [...added(1)(key, i), "SETATTR", JSON.stringify({ key })]);
    expect(first).toEqual(KEYS.map(() => 1));
    expect(await all(added(2))).toEqual(KEYS.map(() => 0));
    await expectRound(2);
    await call(node, "POST", "/api/v1/flush?collection=docs");
    expect(await all(added(3))).toEqual(KEYS.map(() => 0));
    await expectRound(3);
    await call(node, "POST", "/api/v1/flush?collection=docs");
    expect(await verified()).toMatchObject({ dead_lettered: "0" });
  });

  it("should be answered rightly while another client removes the element all the time", async () => {
    const other = redisOf(node);
    const adding = async (): Promise<number> => {
      let made = 0;
      for (let i = 0; i < ROUNDS; i += 1)
        made += Number(await redis.call("VADD", "docs", "VALUES", 2, 1, i, "fought"));
      return made;
    };
    const removing = async (): Promise<number> => {
      let removed = 0;
      for (let i = 0; i < ROUNDS; i += 1) removed += Number(await other.call("VREM", "docs", "fought"));
      return removed;
    };
    const [made, removed] = await Promise.all([adding(), removing()]);
    const left = Number(await redis.call("VISMEMBER", "docs", "fought"));
    other.disconnect();
    expect(made - removed).toBe(left);
    await redis.call("VREM", "docs", "fought");
  });

  it("should keep attributes of elements whose records lie in the topic before", async () => {
    await call(node, "POST", "/api/v1/flush?collection=docs");
    redis.disconnect();
    await node.stop();
    await vexlakeJson(["source", "switch", "docs", "--topic", "second", "--data-dir", node.dataDir]);
    await start();
    expect(await all(added(4))).toEqual(KEYS.map(() => 0));
    await expectRound(4);
    expect(await all(added(5))).toEqual(KEYS.map(() => 0));
    await expectRound(5);
    await call(node, "POST", "/api/v1/flush?collection=docs");
    await verified();
  });
});
