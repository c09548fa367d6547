/*
 * A collection that grows past the number of rows from which lists pay: the planner has its centroids
 * trained and its segments rewritten, and searches go through lists and find what the exact scan finds.
 * One `vexlake up` on the local log.
 */
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startVexlake, type Vexlake, vexlakeJson } from "../harness/processes.ts";
import { floatBytes, seeded } from "../harness/records.ts";
import { temporaryFolder } from "../harness/services.ts";
import { call, redisOf } from "./client.ts";

/** Above TRAIN_ROWS_MIN of crates/lsm/src/compact/plan.rs. */
const ROWS = 21_000;
const DIM = 24;
const CLUSTERS = 150;
const QUERIES = 200;
const K = 10;
/** What `EF` left alone promises. */
const RECALL_MIN = 0.98;
/** A training, rewrites of what has no lists yet, and merges: what is due ends well before. */
const PLANS_MAX = 12;
const PIPELINE = 1_000;

const folder = temporaryFolder("vexlake-lists-");
let node: Vexlake;
let redis: Redis;

beforeAll(async () => {
  const query = { resp: "127.0.0.1:0", http: "127.0.0.1:0", recall_sample_ratio: 1 };
  const config = { log: { kind: "local" }, query };
  node = await startVexlake("up", { dir: folder.path, config });
  redis = redisOf(node);
});

afterAll(async () => {
  redis.disconnect();
  await node.stop();
  folder.remove();
});

interface Plan {
  specs: { kind: string; reason: string }[];
  outcomes: { status: string }[];
}

const random = seeded(17);
const centres = Array.from({ length: CLUSTERS }, () => Array.from({ length: DIM }, () => random() - 0.5));

function near(cluster: number): Float32Array {
  return Float32Array.from(centres[cluster % CLUSTERS] as number[], (x) => x + 0.3 * (random() - 0.5));
}

async function add(from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += PIPELINE) {
    const pipeline = redis.pipeline();
    for (let row = at; row < Math.min(to, at + PIPELINE); row++) {
      const attrs = JSON.stringify({ row, cluster: `c${row % CLUSTERS}`, tags: ["all", row % 10] });
      pipeline.call("VADD", "grown", "FP32", floatBytes(near(row)), `row-${row}`, "SETATTR", attrs);
    }
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
  }
}

async function nearest(query: Buffer, ...options: string[]): Promise<string[]> {
  return (await redis.call("VSIM", "grown", "FP32", query, "COUNT", String(K), ...options)) as string[];
}

async function recallOf(...options: string[]): Promise<number> {
  let found = 0;
  for (let i = 0; i < QUERIES; i++) {
    const query = floatBytes(near(i * 7));
    const truth = new Set(await nearest(query, "TRUTH"));
    found += (await nearest(query, ...options)).filter((id) => truth.has(id)).length;
  }
  return found / (QUERIES * K);
}

describe("a collection that has grown", () => {
  it("should be trained by the plan, and then be searched through lists with the recall promised", async () => {
    await add(0, ROWS);
    await call(node, "POST", "/api/v1/flush?collection=grown");
    const done: Plan["specs"] = [];
    for (let round = 0; round < PLANS_MAX; round++) {
      const { specs, outcomes } = await vexlakeJson<Plan>([
        "compact",
        "grown",
        "--data-dir",
        node.dataDir,
        "--json",
      ]);
      // The node's own compactor works on the same plan: whoever is second is superseded.
      for (const { status } of outcomes) expect(["done", "superseded"]).toContain(status);
      done.push(...specs);
      if (specs.length === 0 && round > 0) break;
    }
    const lsm = await vexlakeJson<Record<string, unknown>>([
      "lsm",
      "grown",
      "--data-dir",
      node.dataDir,
      "--json",
    ]);
    expect(JSON.stringify(lsm)).toContain('"centroids"');

    expect(await recallOf()).toBeGreaterThanOrEqual(RECALL_MIN);
    // More effort than there are lists looks at all of them; what is lost then is lost to the bounds of
    // codes, which hold for two standard deviations.
    expect(await recallOf("EF", "100000")).toBeGreaterThanOrEqual(0.99);
    expect(await recallOf("EF", "1")).toBeLessThan(1);
  });

  it("should keep the recall under a filter, however few rows it lets pass", async () => {
    const passing: [filter: string, passes: (row: number) => boolean][] = [
      [".row % 2 == 0", (row) => row % 2 === 0],
      ["7 in .tags and .row < 20000", (row) => row % 10 === 7 && row < 20_000],
      [".cluster in ['c3', \"c4\"]", (row) => row % CLUSTERS === 3 || row % CLUSTERS === 4],
      [".row == 5 or .row == 20999", (row) => row === 5 || row === 20_999],
    ];
    for (const [filter, passes] of passing) {
      const expected = Math.min(K, Array.from({ length: ROWS }, (_, row) => row).filter(passes).length);
      let found = 0;
      for (let i = 0; i < QUERIES / 4; i++) {
        const query = floatBytes(near(i * 7));
        const truth = await nearest(query, "TRUTH", "FILTER", filter);
        const likely = await nearest(query, "FILTER", filter);
        expect([truth.length, likely.length]).toEqual([expected, expected]);
        for (const id of [...truth, ...likely]) expect(passes(Number(id.slice(4)))).toBe(true);
        found += likely.filter((id) => truth.includes(id)).length;
      }
      expect(found / ((QUERIES / 4) * expected), filter).toBeGreaterThanOrEqual(RECALL_MIN);
    }
    const words = ["VSIM", "grown", "FP32", floatBytes(near(1)), "FILTER", ".row >= 20000"] as const;
    const explained = (await redis.call("LAKE.EXPLAIN", ...words)) as (string | number)[];
    expect(explained[explained.indexOf("rows-passed") + 1]).toBe(1000);
    const search = { collection: "grown", vector: [...near(1)], filter: ".row == 77" };
    const answer = (await call(node, "POST", "/api/v1/search", search)) as { results: { id: string }[] };
    expect(answer.results.map(({ id }) => id)).toEqual(["row-77"]);
    expect(await nearest(floatBytes(near(1)), "FILTER", ".nothing == 1")).toEqual([]);
    await expect(nearest(floatBytes(near(1)), "FILTER", ".row >")).rejects.toThrow("FILTER expression");
  });

  it("should measure its own recall while it is searched, and warm what is new", async () => {
    const measured = async (name: string): Promise<number> => {
      const lines = (await (await fetch(`${node.http}/metrics`)).text()).split("\n");
      const line = lines.find((found) => found.startsWith(`vexlake_${name}`));
      return Number(line?.slice(line.lastIndexOf(" ")));
    };
    // The searches above: one is compared at a time, and the others are dropped.
    await expect.poll(() => measured("query_recall_ratio_count"), { timeout: 20_000 }).toBeGreaterThan(0);
    const [sum, count] = [
      await measured("query_recall_ratio_sum"),
      await measured("query_recall_ratio_count"),
    ];
    expect(sum / count).toBeGreaterThan(0.5);
    expect(sum / count).toBeLessThanOrEqual(1);
    expect(await measured('query_recall_samples_total{outcome="dropped"')).toBeGreaterThan(0);
    expect(await measured('query_recall_samples_total{outcome="failed"')).toBe(0);
    // What flushes, rewrites and merges brought was read ahead of these searches.
    expect(await measured("warmed_segments")).toBeGreaterThan(0);
    expect(await measured("warmed_bytes")).toBeGreaterThan(0);
  });

  it("should find at once what is written, and nothing that is deleted, beside the lists", async () => {
    const query = floatBytes(near(3));
    const [first, second] = await nearest(query, "TRUTH");
    await redis.call("VREM", "grown", first as string);
    expect(await nearest(query)).not.toContain(first);
    // Which is the nearest now is asked of the truth: one of fifty may be lost through lists.
    expect((await nearest(query, "TRUTH"))[0]).toBe(second);
    await redis.call("VADD", "grown", "FP32", query, "fresh");
    expect((await nearest(query))[0]).toBe("fresh");
    await call(node, "POST", "/api/v1/flush?collection=grown");
    expect((await nearest(query))[0]).toBe("fresh");
    expect((await nearest(query, "TRUTH")).slice(0, 2)).toEqual(["fresh", second]);
  });
});
