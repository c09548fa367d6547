/** The compactor on BullMQ and a real Redis that is killed, with bull-board on its /jobs. */
import { Registry } from "prom-client";
import { afterEach, describe, expect, it } from "vitest";
import { HttpServer } from "../../services/common/process/http.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { startCompactor } from "../../services/compactor/main.ts";
import { FakeLake } from "../../services/compactor/testing/fake-lake.ts";
import { compaction, recordingLogger, startOwnRedis, ulid, until } from "./jobs-fixtures.ts";

const RECOVERY_WAIT_MS = 40_000;
const HOUR_MS = 3_600_000;

describe("compactor on BullMQ", () => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function given(context: { skip(note?: string): never }) {
    const redis = await startOwnRedis(context, { persist: false });
    cleanups.push(() => redis.stop());
    const lake = new FakeLake();
    const registry = new Registry();
    const config = {
      compactor: {
        http: "127.0.0.1:0",
        memory_bytes_max: 67_108_864,
        bytes_per_second_max: 10_000_000,
        delete_retention_ms: 604_800_000,
      },
      jobs: { redis: redis.url, prefix: "t" },
    };
    const tuning = { planIntervalMs: 50, gcIntervalMs: HOUR_MS, backoffMs: 10 };
    const compactor = await startCompactor(config, { lake, logger: recordingLogger(), registry, tuning });
    cleanups.push(() => compactor.close(0));
    const server = new HttpServer({ registry, logger: silentLogger() });
    server.mount("/jobs", compactor.jobsHandler);
    const { port } = await server.start({ host: "127.0.0.1", port: 0 }, true);
    cleanups.push(() => server.close());
    return { redis, lake, registry, compactor, url: `http://127.0.0.1:${port}` };
  }

  it("should_keep_planning_and_merging_through_the_loss_of_redis_and_all_its_jobs", async (context) => {
    const { redis, lake, registry, compactor } = await given(context);
    lake.add("a", ulid(1), [compaction(1, 1).spec, compaction(1, 2).spec]);
    const running = await until("running merge", () => lake.runs[0]);

    await redis.kill();
    await until("noticed outage", () => !compactor.status().connected);
    const beforeMs = compactor.status().plan?.endedMs ?? 0;
    await until("tick without redis", () => (compactor.status().plan?.endedMs ?? 0) > beforeMs);
    expect(compactor.status().plan?.error).toMatch(/redis for jobs is away/);
    expect(compactor.readyCheck()).toBe("redis for jobs is away");
    expect(await registry.metrics()).toMatch(/vexlake_compaction_jobs_connected(\{\})? 0/);
    running.finish();
    await redis.restart();

    const next = await until("merge after the outage", () => lake.runs[1], RECOVERY_WAIT_MS);
    next.finish();
    await until("second commit", () => lake.version === 2);
    expect(next.spec.id).toBe("spec-1-2");
    await until("readiness", () => compactor.readyCheck() === null);
  });

  it("should_serve_bull_board_with_readable_titles", async (context) => {
    const { lake, url } = await given(context);
    lake.add("docs", ulid(1), [compaction(1).spec]);
    const running = await until("running merge", () => lake.runs[0]);
    running.onProgress('{"rowsDone":5,"rowsTotal":20,"phase":"merge"}');

    const page = await fetch(`${url}/jobs`);
    const board = await until("listed job", async () => {
      const answer = await fetch(
        `${url}/jobs/api/queues?activeQueue=vexlake-compaction&status=active&page=1`,
      );
      const body = (await answer.json()) as {
        queues: { name: string; jobs: { name: string; progress: object }[] }[];
      };
      const queue = body.queues.find(({ name }) => name === "vexlake-compaction");
      return (
        queue !== undefined && queue.jobs.length > 0 && { names: body.queues.map(({ name }) => name), queue }
      );
    });
    const foreign = { method: "PUT", headers: { origin: "http://evil.example" } };

    expect(page.status).toBe(200);
    expect(await page.text()).toContain("VexLake jobs");
    expect(board.names).toEqual(["vexlake-compaction", "vexlake-gc"]);
    expect(board.queue.jobs[0]!.name).toBe("0/docs: merge 2 segments (size tier: spec 0)");
    expect(board.queue.jobs[0]!.progress).toEqual({
      progress: 25,
      rowsDone: 5,
      rowsTotal: 20,
      phase: "merge",
    });
    expect((await fetch(`${url}/jobs/api/queues/vexlake-compaction/pause`, foreign)).status).toBe(403);
    expect((await fetch(`${url}/jobs/list.json`)).status).toBe(200);
    running.finish();
  });
});
