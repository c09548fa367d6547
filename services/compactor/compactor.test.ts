/** The compactor's graph on the in-process runner and a fake core: ticks, merges, gc, /jobs. */
import { Registry } from "prom-client";
import { afterEach, describe, expect, it } from "vitest";
import { parsePayload } from "../../schemas/jobs.ts";
import { compaction, recordingLogger, ulid, until } from "../../test/contract/jobs-fixtures.ts";
import type { JobView } from "../common/jobs/runner.ts";
import { HttpServer } from "../common/process/http.ts";
import { silentLogger } from "../common/process/logger.ts";
import { startCompactor } from "./main.ts";
import { FakeLake } from "./testing/fake-lake.ts";

const CONFIG = {
  compactor: {
    http: "127.0.0.1:0",
    memory_bytes_max: 64 * 1_048_576,
    bytes_per_second_max: 10_000_000,
    delete_retention_ms: 86_400_000,
  },
  jobs: { prefix: "t" },
};
const HOUR_MS = 3_600_000;

describe("compactor", () => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function given(lake: FakeLake, tuning: { planIntervalMs?: number } = {}) {
    const registry = new Registry();
    const logger = recordingLogger();
    const compactor = await startCompactor(CONFIG, {
      lake,
      logger,
      registry,
      tuning: { planIntervalMs: HOUR_MS, gcIntervalMs: HOUR_MS, gcGraceMs: 1_000, backoffMs: 10, ...tuning },
    });
    cleanups.push(() => compactor.close(0));
    const server = new HttpServer({ registry, logger: silentLogger() });
    server.mount("/jobs", compactor.jobsHandler);
    server.addReadyCheck("compactor", compactor.readyCheck);
    const { port } = await server.start({ host: "127.0.0.1", port: 0 }, true);
    cleanups.push(() => server.close());
    const url = `http://127.0.0.1:${port}`;
    const listJobs = async () =>
      ((await (await fetch(`${url}/jobs/list.json`)).json()) as { jobs: JobView[] }).jobs;
    const merges = async () => (await listJobs()).filter((job) => job.kind === "compaction");
    return { compactor, registry, logger, url, listJobs, merges };
  }
  const run = (lake: FakeLake, n: number) => until(`run ${n}`, () => lake.runs[n - 1]);

  it("should_refresh_plan_and_merge_each_collection_with_the_caps_of_this_process", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    lake.add("b", ulid(2), [compaction(2).spec]);
    const { compactor, merges, registry } = await given(lake);

    const first = await run(lake, 1);
    first.onProgress('{"rowsDone":"9","rowsTotal":20,"bytesRead":512,"phase":"merge"}');
    const shown = await until("progress", async () => (await merges()).find((job) => job.progress !== null));
    first.finish();
    (await run(lake, 2)).finish();
    const done = await until("two done merges", async () => {
      const jobs = (await merges()).filter((job) => job.state === "done");
      return jobs.length === 2 && jobs;
    });

    expect(lake.refreshed.slice(0, 3)).toEqual([null, ulid(1), ulid(2)]);
    expect(first.spec).toEqual(compaction(1).spec);
    expect(lake.planned).toEqual({ memoryBytesMax: 67_108_864, deleteRetentionMs: 86_400_000 });
    expect(first.options).toEqual({ memoryBytesMax: 67_108_864, bytesPerSecondMax: 10_000_000 });
    expect(shown).toMatchObject({
      reason: "size tier: spec 0",
      title: "0/a: merge 2 segments",
      progress: { rowsDone: 9, rowsTotal: 20, bytesRead: 512, phase: "merge" },
    });
    expect(done.map((job) => job.result?.status)).toEqual(["done", "done"]);
    expect(compactor.status()).toMatchObject({ runner: "in-process", connected: true, plan: { failed: 0 } });
    const text = await registry.metrics();
    expect(text).toContain('vexlake_compaction_jobs_total{queue="compaction",outcome="done"} 2');
    expect(text).toContain("vexlake_compaction_read_bytes_total 4096");
    expect(text).toContain("vexlake_compaction_written_bytes_total 3000");
    expect(text).toContain('vexlake_compaction_queue_jobs{queue="compaction",state="done"} 2');
  });

  it("should_plan_the_next_merge_as_soon_as_one_has_committed", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1, 1).spec, compaction(1, 2).spec]);
    await given(lake);

    (await run(lake, 1)).finish();
    (await run(lake, 2)).finish();

    expect(lake.runs.map(({ spec }) => spec.id)).toEqual(["spec-1-1", "spec-1-2"]);
  });

  it("should_end_a_merge_whose_inputs_are_gone_as_superseded_which_is_success", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    const { merges, registry } = await given(lake);
    const started = await run(lake, 1);

    lake.remove(ulid(1), compaction(1).spec.inputs);
    started.finish();
    const job = await until("end", async () => (await merges()).find((merge) => merge.state !== "active"));

    expect(job).toMatchObject({ state: "done", attempts: 1, error: null, result: { status: "superseded" } });
    expect(await registry.metrics()).toContain('jobs_total{queue="compaction",outcome="superseded"} 1');
  });

  it("should_end_a_merge_of_a_dropped_incarnation_as_superseded", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    const { merges } = await given(lake);

    (await run(lake, 1)).fail("FENCED", "incarnation is retired");
    const job = await until("end", async () => (await merges()).find((merge) => merge.state !== "active"));

    expect(job).toMatchObject({
      state: "done",
      result: { status: "superseded", reason: "incarnation is retired" },
    });
  });

  it("should_retry_an_outage_of_the_store_under_a_new_job_name_of_the_core", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    const { merges } = await given(lake);
    (await run(lake, 1)).fail("UNAVAILABLE", "store is away");

    (await run(lake, 2)).finish();
    const job = await until("end", async () => (await merges()).find((merge) => merge.state === "done"));

    expect(lake.runs.map((attempt) => attempt.job)).toEqual([`${job.id}.1`, `${job.id}.2`]);
    expect(job.attempts).toBe(2);
  });

  it("should_fail_corrupt_inputs_at_once_and_not_propose_them_again_next_tick", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    const { compactor, merges } = await given(lake);
    (await run(lake, 1)).fail("CORRUPT", "checksum of page 3 differs");
    const job = await until("end", async () => (await merges()).find((merge) => merge.state === "failed"));

    await compactor.requestPlan();

    expect(job).toMatchObject({ attempts: 1, error: "checksum of page 3 differs" });
    expect(compactor.status().plan).toMatchObject({ added: 0, failed: 0 });
    expect(lake.runs).toHaveLength(1);
  });

  it("should_plan_the_other_collections_when_one_cannot_be_planned", async () => {
    const lake = new FakeLake();
    lake.add("bad", ulid(1), [compaction(1).spec]);
    lake.add("good", ulid(2), [compaction(2).spec]);
    lake.errors.set(ulid(1), { code: "CORRUPT", message: "commit 7 is damaged" });
    const { compactor, registry } = await given(lake);

    (await run(lake, 1)).finish();
    await compactor.requestPlan();

    expect(lake.runs[0]!.spec.incarnation).toBe(ulid(2));
    expect(compactor.status().plan).toMatchObject({ failed: 1, error: "0/bad: commit 7 is damaged" });
    expect(await registry.metrics()).toContain('plan_failures_total{collection="0/bad"}');
  });

  it("should_be_ready_only_after_a_tick_and_say_why_not", async () => {
    const lake = new FakeLake();
    lake.errors.set("describe", { code: "UNAVAILABLE", message: "store is away" });
    const { compactor, url } = await given(lake);
    await compactor.requestPlan();

    const away = await fetch(`${url}/readyz`);
    lake.errors.clear();
    await compactor.requestPlan();

    expect(away.status).toBe(503);
    expect(await away.json()).toMatchObject({ checks: { compactor: "store is away" } });
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
  });

  it("should_abort_the_merge_in_the_core_on_close_wait_for_its_end_and_plan_no_more", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    lake.cancelsRefused = 1;
    const { compactor } = await given(lake);
    const started = await run(lake, 1);

    await compactor.close(1);
    const refreshes = lake.refreshed.length;
    await compactor.requestPlan();

    expect(lake.cancelled).toEqual([started.job]);
    expect(lake.refreshed).toHaveLength(refreshes);
  });

  it("should_let_the_running_merge_finish_on_close_within_its_grace", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), [compaction(1).spec]);
    const { compactor } = await given(lake);
    const started = await run(lake, 1);

    const closing = compactor.close(60_000);
    started.finish();
    await closing;

    expect(lake.cancelled).toEqual([]);
    expect(lake.version).toBe(1);
  });

  it("should_sweep_every_incarnation_then_finish_what_is_leaving_and_show_the_sum", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), []);
    lake.add("b", ulid(2), []);
    const { url, listJobs } = await given(lake);
    const sweep = await until("scheduled sweep", async () =>
      (await listJobs()).find((job) => job.kind === "gc" && job.state === "done"),
    );
    expect(sweep).toMatchObject({
      reason: "schedule",
      result: { status: "done", swept: 2, objects: 4, bytes: 200, slots: 2, left: 1 },
    });
    expect(lake.sweeps.map(({ incarnation }) => incarnation)).toEqual([ulid(1), ulid(2), null]);
    expect(lake.sweeps[0]!.options).toEqual({ graceMs: 1_000, dryRun: false });

    await fetch(`${url}/jobs/gc?dryRun=1&incarnation=${ulid(2)}`, { method: "POST" });

    const requested = await until("requested sweep", () => lake.sweeps[3]);
    expect(requested).toEqual({ incarnation: ulid(2), options: { graceMs: 1_000, dryRun: true } });
  });

  it("should_look_for_orphans_only_when_asked_and_only_in_the_whole_lake", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), []);
    const { url, listJobs } = await given(lake);
    await until("scheduled sweep", () => lake.sweeps[1]);
    expect(lake.sweeps[1]).toEqual({
      incarnation: null,
      options: { graceMs: 1_000, dryRun: false, orphans: false },
    });

    await fetch(`${url}/jobs/gc?orphans=1&dryRun=1`, { method: "POST" });
    const dry = await until("dry run", async () =>
      (await listJobs()).find((job) => job.reason === "requested" && job.state === "done"),
    );
    expect(dry).toMatchObject({
      title: "all collections and orphans: gc (dry run)",
      result: { dryRun: true, left: 0, orphans: 1, objects: 3, bytes: 110 },
    });

    await fetch(`${url}/jobs/gc?orphans=1`, { method: "POST" });
    const asked = await until("sweep", () => lake.sweeps[5]);
    expect(asked.options).toEqual({ graceMs: 1_000, dryRun: false, orphans: true });

    const refused = await fetch(`${url}/jobs/gc?orphans=1&incarnation=${ulid(1)}`, { method: "POST" });
    expect(refused.status).toBe(400);
    const payload = { incarnation: ulid(1), graceMs: 0, dryRun: true, orphans: true, reason: "r" };
    expect(() => parsePayload("gc", payload)).toThrow("orphans");
  });

  it("should_sweep_the_others_when_one_sweep_fails_and_then_fail_visibly", async () => {
    const lake = new FakeLake();
    lake.add("a", ulid(1), []);
    lake.errors.set(`gc ${ulid(1)}`, { code: "CORRUPT", message: "base is damaged" });
    const { listJobs } = await given(lake);

    const sweep = await until("failed sweep", async () =>
      (await listJobs()).find((job) => job.state === "failed"),
    );

    expect(sweep.error).toBe(`gc of ${ulid(1)}: base is damaged`);
    expect(lake.sweeps.map(({ incarnation }) => incarnation)).toEqual([null]);
  });

  it("should_show_a_page_with_the_boards_columns_and_escape_names", async () => {
    const lake = new FakeLake();
    lake.add("<b>x", ulid(1), [compaction(1).spec]);
    const { url } = await given(lake);
    (await run(lake, 1)).onProgress('{"rowsDone":5,"rowsTotal":20,"phase":"merge"}');

    const answer = await fetch(`${url}/jobs`);
    const page = await answer.text();

    expect(answer.headers.get("content-type")).toBe("text/html; charset=utf-8");
    for (const column of ["id", "kind", "reason", "state", "progress", "started", "took", "result"])
      expect(page).toContain(`<th>${column}</th>`);
    expect(page).toContain("0/&#60;b&#62;x: merge 2 segments");
    expect(page).not.toContain("<b>x");
    expect(page).toContain("5 of 20 rows");
  });

  it("should_pause_resume_and_cancel_over_http_but_not_for_another_site", async () => {
    const lake = new FakeLake();
    const { url, compactor, merges } = await given(lake);
    const post = (path: string, headers: Record<string, string> = {}) =>
      fetch(`${url}/jobs/${path}`, { method: "POST", headers, redirect: "manual" });

    expect((await post("pause", { origin: "http://evil.example" })).status).toBe(403);
    expect((await post("pause", { "sec-fetch-site": "cross-site" })).status).toBe(403);
    expect((await post("pause?kind=compaction", { origin: url, accept: "text/html" })).status).toBe(303);
    lake.add("a", ulid(1), [compaction(1).spec]);
    expect(await (await post("plan")).json()).toMatchObject({ plan: { collections: 1, added: 1 } });
    expect((await merges())[0]).toMatchObject({ state: "waiting" });
    await post("resume");
    const started = await run(lake, 1);
    expect((await post(`cancel?id=${started.job.replace(/\.1$/, "")}`)).status).toBe(200);
    const job = await until("cancelled merge", async () =>
      (await merges()).find((merge) => merge.state === "done"),
    );

    expect(job.result).toEqual({ status: "cancelled" });
    const listed = async (query: string) => await fetch(`${url}/jobs/list.json${query}`);
    const waiting = async (query: string) =>
      ((await (await listed(query)).json()) as { jobs: JobView[] }).jobs.filter(
        ({ kind, state }) => kind === "gc" && state === "waiting",
      );
    await post("pause?kind=gc");
    for (const incarnation of [ulid(1), ulid(2), ulid(3)]) await post(`gc?incarnation=${incarnation}`);
    expect(await waiting("")).toHaveLength(3);
    expect(await waiting("?limit=2")).toHaveLength(2);
    expect((await listed("?limit=x")).status).toBe(400);
    expect((await post("cancel?id=nothing")).status).toBe(404);
    expect((await post("pause?kind=unknown")).status).toBe(400);
    expect((await post("constructor")).status).toBe(404);
    expect(compactor.status().plan?.error).toBeNull();
  });
});
