import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { f32, type QueryNode, startQueryNode } from "./node.ts";

let node: QueryNode;
let redis: Redis;

beforeAll(async () => {
  node = await startQueryNode();
  redis = new Redis({ host: node.host, port: node.port, maxRetriesPerRequest: 1 });
});

afterAll(async () => {
  redis?.disconnect();
  await node?.close();
});

describe("ioredis", () => {
  it("should run the seed commands", async () => {
    expect(await redis.call("VSET", "vec:1", "[0.1, 0.2, 0.3]")).toBe("OK");
    expect(await redis.call("VSET", "vec:2", "[-0.3, 0.1, 0]")).toBe("OK");
    expect(await redis.call("VGET", "vec:1")).toBe("[0.100000, 0.200000, 0.300000]");
    expect(await redis.call("VGET", "vec:9")).toBeNull();
    expect(await redis.call("VSEARCH", "[0.1, 0.2, 0.3]", "10")).toEqual(["vec:1", "vec:2"]);
    expect(await redis.call("VDEL", "vec:2")).toBe(1);
    expect(await redis.call("VDEL", "vec:2")).toBe(0);
    expect(await redis.call("CLEAR")).toBe("OK");
    expect(await redis.call("VCARD", "default")).toBe(0);
  });

  it("should read its own writes through a pipeline, in order", async () => {
    const pipeline = redis.pipeline();
    for (let i = 0; i < 200; i += 1) pipeline.call("VADD", "piped", "FP32", f32(1, i / 100), `e${i}`);
    pipeline.call("VSIM", "piped", "FP32", f32(1, 0), "COUNT", "2");
    pipeline.call("VSIM", "piped", "ELE", "e199", "COUNT", "1");
    pipeline.call("VREM", "piped", "e0");
    pipeline.call("VSIM", "piped", "FP32", f32(1, 0), "COUNT", "1");
    pipeline.call("VCARD", "piped");
    const replies = (await pipeline.exec()) ?? [];
    expect(replies.map(([error]) => error).filter((error) => error !== null)).toEqual([]);
    expect(replies.slice(0, 200).map(([, reply]) => reply)).toEqual(Array.from({ length: 200 }, () => 1));
    expect(replies.slice(200).map(([, reply]) => reply)).toEqual([["e0", "e1"], ["e199"], 1, ["e1"], 199]);
  });

  it("should see names, databases and errors as Redis gives them", async () => {
    await redis.call("VADD", "named", "VALUES", "2", "1", "2", "a");
    expect(await redis.type("named")).toBe("vectorset");
    expect(await redis.exists("named", "nope")).toBe(1);
    const [cursor, names] = await redis.scan(0, "MATCH", "nam*");
    expect([cursor, names]).toEqual(["0", ["named"]]);
    const other = redis.duplicate({ db: 3 });
    expect(await other.dbsize()).toBe(0);
    other.disconnect();
    await expect(redis.call("VADD", "named", "VALUES", "3", "1", "2", "3", "b")).rejects.toThrow(
      "ERR Vector dimension mismatch - got 3 but set has 2",
    );
    await expect(redis.call("GET", "named")).rejects.toThrow("ERR unknown command");
    expect(await redis.del("named")).toBe(1);
    expect(await redis.exists("named")).toBe(0);
  });

  it("should refuse a vector that is not finite before it reaches the log", async () => {
    await redis.call("VADD", "finite", "VALUES", "2", "1", "2", "a");
    for (const bad of [f32(1, Number.NaN), f32(Number.POSITIVE_INFINITY, 1)]) {
      await expect(redis.call("VADD", "finite", "FP32", bad, "b")).rejects.toThrow("ERR");
    }
    await expect(redis.call("VADD", "finite", "VALUES", "2", "1e999", "1", "b")).rejects.toThrow("ERR");
    expect(await redis.call("VISMEMBER", "finite", "b")).toBe(0);
    expect(await redis.call("LAKE.TOKEN", "finite")).toMatch(/:0=1$/);
  });
});
