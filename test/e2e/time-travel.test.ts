/*
 * Reading the past: a version by its number, by a tag that survives garbage collection, by a time; and what
 * goes when the tag does. One `vexlake up` on the local log.
 */
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startVexlake, type Vexlake, vexlake } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/services.ts";
import { call, rawCall, redisOf } from "./client.ts";

const folder = temporaryFolder("vexlake-time-travel-");
let node: Vexlake;
let redis: Redis;

beforeAll(async () => {
  const config = { log: { kind: "local" }, query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" } };
  node = await startVexlake("up", { dir: folder.path, config });
  redis = redisOf(node);
});

afterAll(async () => {
  redis.disconnect();
  await node.stop();
  folder.remove();
});

async function flush(): Promise<number> {
  const { version } = (await call(node, "POST", "/api/v1/flush?collection=past")) as { version: number };
  return version;
}

async function nearest(key: string): Promise<string[]> {
  return (await redis.call("VSIM", key, "VALUES", "2", "1", "0", "COUNT", "10")) as string[];
}

describe("reading the past", () => {
  it("should answer a version, a tag and a time as they were, and lose only what no tag keeps", async () => {
    await redis.call("VADD", "past", "VALUES", "2", "1", "0", "a");
    const first = await flush();
    const then = new Date().toISOString();
    await call(node, "POST", "/api/v1/snapshots", { collection: "past", tag: "before" });
    await redis.call("VADD", "past", "VALUES", "2", "0", "1", "b");
    await redis.call("VREM", "past", "a");
    await flush();

    expect(await nearest("past")).toEqual(["b"]);
    expect(await nearest(`past@${first}`)).toEqual(["a"]);
    expect(await nearest("past@before")).toEqual(["a"]);
    expect(await nearest(`past@${then}`)).toEqual(["a"]);

    const gc = async (): Promise<void> => {
      const args = ["gc", "past", "--grace-ms", "0", "--data-dir", node.dataDir, "--json"];
      expect((await vexlake(args)).code).toBe(0);
    };
    await gc();
    expect(await nearest("past@before")).toEqual(["a"]);
    await call(node, "DELETE", "/api/v1/snapshots?collection=past&tag=before");
    await expect(nearest("past@before")).rejects.toThrow("no version or tag before");
    await gc();
    await expect(nearest(`past@${first}`)).rejects.toThrow(/expired/);
    expect(await nearest("past")).toEqual(["b"]);
  });

  it("should name the tag that is not one, and the version that is not there", async () => {
    const bad = await rawCall(node, "POST", "/api/v1/snapshots", { collection: "past", tag: "12" });
    expect(bad).toMatchObject({ status: 400 });
    expect(JSON.stringify(bad)).toContain("tag is");
    const late = { collection: "past", tag: "late", version: 999 };
    expect(await rawCall(node, "POST", "/api/v1/snapshots", late)).toMatchObject({ status: 400 });
    expect(await rawCall(node, "DELETE", "/api/v1/snapshots?collection=past&tag=none")).toMatchObject({
      status: 404,
    });
  });
});
