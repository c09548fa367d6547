/**
 * Redis is killed under the BullMQ runner, with and without persistence: nothing needs a restart.
 */
import { afterEach, describe, expect, it } from "vitest";
import type { CompactionPayload, GcPayload } from "../../schemas/jobs.ts";
import { BullRunner } from "../../services/common/jobs/bullmq.ts";
import {
  compaction,
  freePort,
  gatedHandler,
  gc,
  type OwnRedis,
  recordingLogger,
  startOwnRedis,
  ulid,
  until,
} from "./jobs-fixtures.ts";

/** Longer than any reconnect step, shorter than a test: an answer within it did not wait for Redis. */
const AT_ONCE_MS = 3_000;
const RECOVERY_WAIT_MS = 40_000;

describe("BullMQ runner: redis away", () => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function given(context: { skip(note?: string): never }, options: { persist: boolean }) {
    const redis = await startOwnRedis(context, options);
    cleanups.push(() => redis.stop());
    const logger = recordingLogger();
    const runner = new BullRunner({
      url: redis.url,
      prefix: "outage",
      logger,
      backoffMs: 20,
      abortWaitMs: 1_000,
    });
    cleanups.push(() => runner.close(0));
    const merges = gatedHandler<CompactionPayload>();
    const sweeps = gatedHandler<GcPayload>();
    runner.handle("compaction", merges.handler);
    runner.handle("gc", sweeps.handler);
    return { redis, runner, logger, merges, sweeps };
  }
  const away = (runner: BullRunner) => until("noticed outage", () => !runner.connected);
  const back = async (redis: OwnRedis, runner: BullRunner) => {
    await redis.restart();
    await until("reconnect", () => runner.connected, RECOVERY_WAIT_MS);
  };

  it("should_go_on_without_restart_after_redis_lost_its_memory", async (context) => {
    const { redis, runner, logger, merges, sweeps } = await given(context, { persist: false });
    runner.schedule("gc", { id: "gc-all", everyMs: 3_600_000, payload: gc() });
    await runner.start();
    await until("scheduled sweep", () => sweeps.runs.length === 1);
    sweeps.runs[0]!.release();
    await runner.enqueue("compaction", compaction(1), ulid(1));
    await until("running merge", () => merges.runs.length === 1);

    await redis.kill();
    await away(runner);
    const askedMs = Date.now();
    await expect(runner.enqueue("compaction", compaction(2), ulid(2))).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    await expect(runner.stats()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(Date.now() - askedMs).toBeLessThan(AT_ONCE_MS);
    expect(merges.runs[0]!.run.signal.aborted).toBe(false);
    merges.runs[0]!.run.progress({ rowsDone: 1 });
    await back(redis, runner);
    merges.runs[0]!.release();

    const { id } = await until("accepted job", () => runner.enqueue("compaction", compaction(2), ulid(2)));
    await until("merge after the outage", () => merges.runs.length === 2, RECOVERY_WAIT_MS);
    merges.runs[1]!.release({ status: "done", version: 8 });
    const job = await until("its result", async () =>
      (await runner.list(["done"])).find((done) => done.id === id),
    );
    expect(job.result).toEqual({ status: "done", version: 8 });
    await until("schedule set up again", () => sweeps.runs.length === 2, RECOVERY_WAIT_MS);
    sweeps.runs[1]!.release();
    const warnings = logger.lines.filter((line) => line.message.startsWith("redis is away"));
    expect(warnings).toHaveLength(1);
    expect(logger.lines.filter((line) => line.message.startsWith("redis is back"))).toHaveLength(1);
  });

  it("should_record_the_result_of_a_job_that_ended_while_redis_was_away", async (context) => {
    const { redis, runner, merges } = await given(context, { persist: true });
    await runner.start();
    const { id } = await runner.enqueue("compaction", compaction(1), ulid(1));
    await until("running merge", () => merges.runs.length === 1);
    await redis.kill();
    await away(runner);

    merges.runs[0]!.release({ status: "superseded" });
    await back(redis, runner);

    const find = async () => (await runner.list(["done", "failed"])).find((job) => job.id === id);
    const job = await until("recorded result", find, RECOVERY_WAIT_MS);
    expect(job).toMatchObject({ state: "done", attempts: 1, result: { status: "superseded" } });
    expect(merges.runs).toHaveLength(1);
  });

  it("should_keep_waiting_jobs_through_a_restart_with_persistence", async (context) => {
    const { redis, runner, merges } = await given(context, { persist: true });
    await runner.start();
    await runner.enqueue("compaction", compaction(1), ulid(1));
    await runner.enqueue("compaction", compaction(2), ulid(2));
    await until("running merge", () => merges.runs.length === 1);

    await redis.kill();
    await away(runner);
    await back(redis, runner);
    merges.runs[0]!.release();

    await until("second merge", () => merges.runs.length === 2, RECOVERY_WAIT_MS);
    expect(merges.runs[1]!.payload).toEqual(compaction(2));
    merges.runs[1]!.release();
  });

  it("should_close_in_time_while_redis_is_away", async (context) => {
    const { redis, runner, merges } = await given(context, { persist: false });
    await runner.start();
    await runner.enqueue("compaction", compaction(1), ulid(1));
    await until("running merge", () => merges.runs.length === 1);
    await redis.kill();
    await away(runner);

    const startedMs = Date.now();
    await runner.close(1);

    expect(merges.runs[0]!.run.signal.aborted).toBe(true);
    expect(Date.now() - startedMs).toBeLessThan(8_000);
  });

  it("should_say_what_is_unreachable_at_the_start_without_the_password", async () => {
    const url = `redis://user:secret@127.0.0.1:${await freePort()}/0`;
    const runner = new BullRunner({ url, prefix: "outage", logger: recordingLogger(), startWaitMs: 200 });

    const error: Error = await runner.start().then(
      () => new Error("started"),
      (reason: Error) => reason,
    );

    expect(error).toMatchObject({ code: "UNREACHABLE", exitCode: 5 });
    expect(error.message).toMatch(
      /redis for jobs at redis:\/\/127\.0\.0\.1:\d+\/0 is unreachable: .*ECONNREFUSED/,
    );
    expect(error.message).not.toContain("secret");
  });
});
