import { Registry } from "prom-client";
import { describe, expect, it } from "vitest";
import { compaction, ulid, until } from "../../test/contract/jobs-fixtures.ts";
import { loadConfig } from "../common/config/load.ts";
import { silentLogger } from "../common/process/logger.ts";
import { Shutdown } from "../common/process/shutdown.ts";
import { serveCompactor } from "./serve.ts";
import { FakeLake } from "./testing/fake-lake.ts";

describe("compactor process", () => {
  it("should_serve_health_metrics_and_jobs_and_close_the_lake_last", async () => {
    const lake = new FakeLake();
    lake.add("docs", ulid(1), [compaction(1).spec]);
    const closed: string[] = [];
    const logger = silentLogger();
    const shutdown = new Shutdown(logger);
    const loaded = await loadConfig({ env: {}, flags: { "compactor.http": "127.0.0.1:0" } });
    const openLake = async () => {
      shutdown.add("lake", () => void closed.push(`lake after ${lake.version} commits`));
      return lake;
    };

    const { http } = await serveCompactor(loaded, { logger, registry: new Registry(), shutdown, openLake });
    const get = (path: string) => fetch(`http://127.0.0.1:${http.port}${path}`);
    await until("readiness", async () => (await get("/readyz")).status === 200);
    const running = await until("merge", () => lake.runs[0]);
    const answers = await Promise.all(["/livez", "/metrics", "/jobs", "/jobs/list.json"].map(get));
    const metrics = await answers[1]!.text();
    const exit = shutdown.run("test");
    running.finish();

    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(metrics).toContain("vexlake_compaction_job_duration_seconds");
    expect(await exit).toBe(0);
    expect(closed).toEqual(["lake after 1 commits"]);
  });

  it("should_load_the_deployment_example_with_every_key_known", async () => {
    const { config } = await loadConfig({
      env: {},
      file: new URL("../../deploy/vexlake.yaml", import.meta.url).pathname,
    });

    expect(config.jobs).toEqual({ redis: "redis://127.0.0.1:6379/0", prefix: "vexlake" });
    expect(config.compactor).toEqual({
      http: "127.0.0.1:8082",
      memory_bytes_max: 536_870_912,
      bytes_per_second_max: 104_857_600,
      delete_retention_ms: 604_800_000,
    });
  });
});
