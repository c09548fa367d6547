/*
 * Our nearest ten against two outsiders' exact nearest ten over the live files: DuckDB's array functions and
 * float64 arithmetic over what pyarrow reads. Ties are free: an id counts as right when the outsider's
 * distance to it is that of its rank, to 1e-5.
 *
 * The state is made unpleasant first: several segments, keys rewritten and deleted across them, one that
 * came back, then a merge.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { call, collectionOf, redisOf } from "../e2e/client.ts";
import { duckdb, type LiveFiles, liveFiles } from "../harness/oracles.ts";
import { startVexlake, until, type Vexlake, vexlakeJson } from "../harness/processes.ts";
import { floatBytes, randomVector, seeded } from "../harness/records.ts";
import { type OracleService, suite, temporaryFolder } from "../harness/services.ts";

const EXACT = fileURLToPath(new URL("./exact_topk.py", import.meta.url));
const METRICS = ["cosine", "l2", "ip"] as const;
type Metric = (typeof METRICS)[number];
const DIM = 24;
const RECORDS = 2_000;
/** Of the records, in each round after the first. */
const REWRITTEN = 300;
const DELETED = 100;
const ROUNDS = 4;
const QUERIES = 20;
const K = 10;
const TOLERANCE = 1e-5;

/** Distance and id, nearest first; an outsider's list goes beyond K where others are as near. */
type Neighbours = [number, string][];

const DUCKDB_DISTANCE: Record<Metric, string> = {
  cosine: "array_cosine_distance(v, q)",
  l2: "array_distance(v, q)",
  ip: "-array_inner_product(v, q)",
};

await suite(["duckdb", "pyarrow"], "exact search against outside oracles", (oracles) => {
  const folder = temporaryFolder();
  const queries = Array.from({ length: QUERIES }, (_, i) => randomVector(DIM, seeded(1_000_000 + i)));
  const live = new Map<Metric, Set<string>>();
  let node: Vexlake;

  beforeAll(async () => {
    node = await startVexlake("up", {
      dir: folder.path,
      config: {
        query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
        ingest: { seal_age_ms: 3_600_000 },
        collections: Object.fromEntries(
          METRICS.map((metric) => [metric, { dim: DIM, metric, partitions: 4 }]),
        ),
      },
    });
    // Merges happen when a test says so.
    await call(node, "POST", "/jobs/pause?kind=compaction");
    for (const metric of METRICS) live.set(metric, await fill(node, metric));
  });

  afterAll(async () => {
    await node.stop();
    folder.remove();
  });

  describe.each(METRICS)("%s over segments with replaced and deleted records", (metric) => {
    it("should be what DuckDB finds", async () => {
      expect((await collectionOf(node, metric)).segments).toBe(ROUNDS);
      await expectSame(metric, byDuckdb);
    });

    it("should be what float64 arithmetic finds over what pyarrow reads", async () => {
      await expectSame(metric, byPyarrow);
    });
  });

  describe("after a merge", () => {
    beforeAll(async () => {
      await call(node, "POST", "/jobs/resume?kind=compaction");
      await call(node, "POST", "/jobs/plan");
      const merged = async (metric: Metric) => (await collectionOf(node, metric)).segments === 1;
      await until("all to be merged", async () => (await Promise.all(METRICS.map(merged))).every(Boolean));
    });

    it.each(METRICS)("should be what both find: %s", async (metric) => {
      await expectSame(metric, byDuckdb);
      await expectSame(metric, byPyarrow);
    });
  });

  async function expectSame(
    metric: Metric,
    oracle: (metric: Metric, files: LiveFiles) => Promise<{ live: number; answers: Neighbours[] }>,
  ): Promise<void> {
    const files = await liveFiles(metric, ["--data-dir", node.dataDir]);
    const { live: count, answers } = await oracle(metric, files);
    expect(count).toBe(live.get(metric)?.size);
    for (const [i, query] of queries.entries()) {
      for (const scope of ["fresh", "snapshot"] as const) {
        const ours = await search(node, metric, query, scope);
        expect(difference(ours, answers[i] as Neighbours), `query ${i}, ${scope}`).toBeNull();
      }
    }
  }

  async function byDuckdb(
    metric: Metric,
    files: LiveFiles,
  ): Promise<{ live: number; answers: Neighbours[] }> {
    const values = queries.map((query, i) => `(${i}, [${query.join(", ")}]::DOUBLE[${DIM}])`).join(", ");
    const sql = `
      WITH live AS (SELECT id, vector::DOUBLE[${DIM}] AS v FROM (${files.duckdb})),
      queries(number, q) AS (VALUES ${values}),
      ranked AS (
        SELECT number, id, ${DUCKDB_DISTANCE[metric]} AS distance,
          row_number() OVER (PARTITION BY number ORDER BY distance) AS rank FROM live, queries
      )
      SELECT number, id, distance, (SELECT count(*) FROM live) AS live FROM ranked WHERE rank <= ${2 * K} ORDER BY number, distance`;
    type Row = { number: number; id: string; distance: number; live: number };
    const rows = await duckdb<Row>(oracles.duckdb, folder.path, sql);
    const answers = queries.map((_, i) =>
      rows.filter(({ number }) => number === i).map(({ distance, id }): [number, string] => [distance, id]),
    );
    return { live: rows[0]?.live ?? 0, answers };
  }

  async function byPyarrow(metric: Metric, { data, deletes }: LiveFiles) {
    // One source: its rank decides nothing.
    const request = {
      data,
      deletes,
      ranks: { 0: 0 },
      metric,
      k: K,
      queries: queries.map((query) => [...query]),
    };
    return JSON.parse(await runExact(oracles.pyarrow, JSON.stringify(request)));
  }
});

/** Rounds of records with a flush after each; answers the ids that are live at the end. */
async function fill(node: Vexlake, metric: Metric): Promise<Set<string>> {
  const random = seeded(METRICS.indexOf(metric) + 1);
  const ids = Array.from({ length: RECORDS }, (_, i) => `r${i}`);
  const live = new Set<string>();
  const redis = redisOf(node);
  const pick = (count: number) =>
    Array.from({ length: count }, () => ids[Math.floor(random() * RECORDS)] as string);
  for (let round = 0; round < ROUNDS; round += 1) {
    const pipeline = redis.pipeline();
    for (const id of round === 0 ? ids : pick(REWRITTEN)) {
      // Lengths differ, so that the metrics disagree about who is near.
      const vector = randomVector(DIM, random).map((value) => value * (0.2 + random()));
      pipeline.call("VADD", metric, "FP32", floatBytes(vector), id);
      live.add(id);
    }
    // The last delete comes after the last write of its key, or before it: both happen.
    for (const id of round === 0 ? [] : pick(DELETED)) {
      pipeline.call("VREM", metric, id);
      live.delete(id);
    }
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
    await vexlakeJson(["flush", metric, "--data-dir", node.dataDir]);
  }
  redis.disconnect();
  return live;
}

async function search(
  node: Vexlake,
  collection: string,
  query: Float32Array,
  scope: string,
): Promise<Neighbours> {
  const body = { collection, vector: [...query], k: K, scope };
  const { results } = (await call(node, "POST", "/api/v1/search", body)) as {
    results: { id: string; distance: number }[];
  };
  return results.map(({ id, distance }) => [distance, id]);
}

/** null when ours is a right answer: the distances of each rank agree, and so does each id's own. */
function difference(ours: Neighbours, theirs: Neighbours): string | null {
  if (ours.length !== K || new Set(ours.map(([, id]) => id)).size !== K)
    return `${ours.length} results, not ${K}`;
  const near = (a: number, b: number) => Math.abs(a - b) <= TOLERANCE * Math.max(1, Math.abs(b));
  const exact = new Map(theirs.map(([distance, id]) => [id, distance]));
  for (const [rank, [distance, id]] of ours.entries()) {
    const [wanted, wantedId] = theirs[rank] as [number, string];
    if (!near(distance, wanted))
      return `rank ${rank}: ${id} at ${distance}, exact is ${wantedId} at ${wanted}`;
    const own = exact.get(id);
    if (own === undefined || !near(distance, own))
      return `rank ${rank}: ${id} at ${distance}, exactly it is at ${own}`;
  }
  return null;
}

function runExact({ python }: OracleService, request: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(python, [EXACT], { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${join("test", "oracle", "exact_topk.py")}: ${stderr}`)) : resolve(stdout),
    );
    child.stdin?.end(request);
  });
}
