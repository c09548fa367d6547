/**
 * The contract of JobRunner, run against the in-process runner and BullMQ on a real Redis
 * from the harness, which may have to skip it.
 */
import { afterEach, describe, expect, it } from "vitest";
import type { CompactionPayload, GcPayload } from "../../schemas/jobs.ts";
import { BullRunner } from "../../services/common/jobs/bullmq.ts";
import { InProcessRunner } from "../../services/common/jobs/in-process.ts";
import type { JobRunner, JobView } from "../../services/common/jobs/runner.ts";
import { service, unique } from "../harness/services.ts";
import { compaction, gatedHandler, gc, recordingLogger, ulid, until } from "./jobs-fixtures.ts";

const TUNING = { attemptsMax: 3, backoffMs: 20, abortWaitMs: 5_000 };
const ALL = ["active", "waiting", "delayed", "failed", "done"] as const;
const redis = await service("redis");

const IMPLEMENTATIONS = [
  {
    name: "in-process",
    create: (): JobRunner => new InProcessRunner({ logger: recordingLogger(), ...TUNING }),
  },
  {
    name: "bullmq",
    create: (): JobRunner | null =>
      redis === undefined
        ? null
        : new BullRunner({ url: redis.url, prefix: unique("t"), logger: recordingLogger(), ...TUNING }),
  },
];

describe.each(IMPLEMENTATIONS)("job runner: $name", ({ create }) => {
  const open: JobRunner[] = [];
  afterEach(async () => {
    for (const runner of open.splice(0)) await runner.close(0);
  });

  /** A started runner with gated handlers of both kinds. */
  async function given(context: { skip(note?: string): never }) {
    const runner = create() ?? context.skip("no redis");
    open.push(runner);
    const merges = gatedHandler<CompactionPayload>();
    const sweeps = gatedHandler<GcPayload>();
    runner.handle("compaction", merges.handler);
    runner.handle("gc", sweeps.handler);
    return { runner, merges, sweeps };
  }
  const run = (runs: unknown[], n: number) => until(`run ${n}`, () => runs.length >= n);
  const finished = (runner: JobRunner, id: string): Promise<JobView> =>
    until(`end of ${id}`, async () => (await runner.list(["done", "failed"])).find((job) => job.id === id));

  it("should_run_a_job_and_show_its_result_reason_and_times", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();

    const { outcome, id } = await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);
    const active = await until("active job", async () => (await runner.list(["active"]))[0]);
    merges.runs[0]!.release({ status: "done", version: 7 });
    const job = await finished(runner, id);

    expect(outcome).toBe("added");
    expect(active).toMatchObject({ id, state: "active", attempts: 1, result: null });
    expect(merges.runs[0]!.payload).toEqual(compaction(1));
    expect(job).toMatchObject({
      kind: "compaction",
      state: "done",
      title: "db/c1: merge 2 segments",
      reason: "size tier: spec 0",
      dedupId: ulid(1),
      result: { status: "done", version: 7 },
      error: null,
    });
    expect(job.startedMs).toBeGreaterThanOrEqual(job.enqueuedMs);
    expect(job.tookMs).toBeGreaterThanOrEqual(0);
  });

  it("should_keep_exactly_one_follow_up_with_the_latest_payload_while_a_job_is_active", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const first = await runner.enqueue("compaction", compaction(1, 1), ulid(1));
    await run(merges.runs, 1);

    for (const spec of [2, 3, 4]) {
      const again = await runner.enqueue("compaction", compaction(1, spec), ulid(1));
      expect(again).toEqual({ outcome: "deduplicated", id: first.id });
    }
    merges.runs[0]!.release();
    await run(merges.runs, 2);
    merges.runs[1]!.release();
    // A job of another collection runs last: once it has run, no second follow-up can be ahead of it.
    await runner.enqueue("compaction", compaction(9), ulid(9));
    await run(merges.runs, 3);
    merges.runs[2]!.release();

    const specs = merges.runs.map(({ payload }) => payload.spec.id);
    expect(specs).toEqual(["spec-1-1", "spec-1-4", "spec-9-0"]);
    await until(
      "empty queue",
      async () => (await runner.list(["active", "waiting", "delayed"])).length === 0,
    );
  });

  it("should_run_the_follow_up_after_a_job_that_failed", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    await runner.enqueue("compaction", compaction(1, 1), ulid(1));
    await run(merges.runs, 1);
    await runner.enqueue("compaction", compaction(1, 2), ulid(1));

    merges.runs[0]!.fail(Object.assign(new Error("no such input"), { retriable: false }));

    await run(merges.runs, 2);
    expect(merges.runs[1]!.payload.spec.id).toBe("spec-1-2");
    merges.runs[1]!.release();
  });

  it("should_add_nothing_while_a_job_of_the_same_dedup_id_waits", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    await runner.pause("compaction");
    const first = await runner.enqueue("compaction", compaction(1, 1), ulid(1));

    const second = await runner.enqueue("compaction", compaction(1, 2), ulid(1));
    const other = await runner.enqueue("compaction", compaction(2, 3), ulid(2));

    expect(second).toEqual({ outcome: "deduplicated", id: first.id });
    expect(other.outcome).toBe("added");
    expect((await runner.list(["waiting"])).map((job) => job.id).sort()).toEqual([first.id, other.id].sort());
    expect(merges.runs).toHaveLength(0);
  });

  it("should_run_one_job_of_a_kind_at_a_time_and_kinds_side_by_side", async (context) => {
    const { runner, merges, sweeps } = await given(context);
    await runner.start();
    for (const n of [1, 2, 3]) await runner.enqueue("compaction", compaction(n), ulid(n));
    await runner.enqueue("gc", gc(), "gc-now");

    await run(merges.runs, 1);
    await run(sweeps.runs, 1);
    const { queues } = await runner.stats();

    expect(queues.compaction.counts).toMatchObject({ active: 1, waiting: 2 });
    expect(queues.gc.counts).toMatchObject({ active: 1, waiting: 0 });
    for (const n of [1, 2, 3]) {
      await run(merges.runs, n);
      merges.runs[n - 1]!.release();
    }
    sweeps.runs[0]!.release();
    const after = await until("four done jobs", async () => {
      const { queues } = await runner.stats();
      return queues.compaction.doneTotal === 3 && queues.gc.doneTotal === 1 && queues;
    });
    expect(after.compaction.counts.done).toBe(3);
  });

  it("should_retry_a_failing_job_and_then_leave_it_visible_as_failed", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const { id } = await runner.enqueue("compaction", compaction(1), ulid(1));

    for (const attempt of [1, 2, 3]) {
      await run(merges.runs, attempt);
      expect(merges.runs[attempt - 1]!.run).toMatchObject({ id, attempt });
      merges.runs[attempt - 1]!.fail(new Error(`store away, attempt ${attempt}`));
    }
    const job = await finished(runner, id);

    expect(job).toMatchObject({
      state: "failed",
      attempts: 3,
      attemptsMax: 3,
      error: "store away, attempt 3",
    });
    expect(merges.runs).toHaveLength(3);
    await until("failed total", async () => (await runner.stats()).queues.compaction.failedTotal === 1);
    // The dedup id is free again: the next plan may propose the same work.
    expect((await runner.enqueue("compaction", compaction(1), ulid(1))).outcome).toBe("added");
    await run(merges.runs, 4);
    merges.runs[3]!.release();
  });

  it("should_succeed_on_a_later_attempt_and_show_no_error_result", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const { id } = await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);
    merges.runs[0]!.fail(new Error("lost a race"));
    await run(merges.runs, 2);
    merges.runs[1]!.release({ status: "done" });

    const job = await finished(runner, id);

    expect(job).toMatchObject({ state: "done", attempts: 2, result: { status: "done" } });
  });

  it("should_not_retry_an_error_that_says_it_is_not_retriable", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const { id } = await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);

    merges.runs[0]!.fail(Object.assign(new Error("segment is corrupt"), { retriable: false }));
    const job = await finished(runner, id);

    expect(job).toMatchObject({ state: "failed", attempts: 1, error: "segment is corrupt" });
  });

  it("should_show_the_latest_progress_also_of_a_finished_job", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const { id } = await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);

    merges.runs[0]!.run.progress({ rowsDone: 1, rowsTotal: 20, bytesRead: 100, phase: "merge" });
    const seen = await until(
      "progress",
      async () => (await runner.list(["active"]))[0]?.progress ?? undefined,
    );
    for (let rowsDone = 2; rowsDone <= 20; rowsDone++)
      merges.runs[0]!.run.progress({ rowsDone, rowsTotal: 20 });
    merges.runs[0]!.release();

    expect(seen).toEqual({ rowsDone: 1, rowsTotal: 20, bytesRead: 100, phase: "merge" });
    expect((await finished(runner, id)).progress).toEqual({ rowsDone: 20, rowsTotal: 20 });
  });

  it("should_hold_jobs_while_paused_and_run_them_after_resume", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    await runner.pause("compaction");
    await runner.enqueue("compaction", compaction(1), ulid(1));
    expect((await runner.stats()).queues.compaction).toMatchObject({ paused: true });
    expect((await runner.list(["waiting"])).length).toBe(1);
    expect(merges.runs).toHaveLength(0);

    await runner.resume("compaction");

    await run(merges.runs, 1);
    merges.runs[0]!.release();
    expect((await runner.stats()).queues.compaction.paused).toBe(false);
  });

  it("should_abort_the_running_job_and_remove_a_waiting_one_on_cancel", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    const active = await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);
    const waiting = await runner.enqueue("compaction", compaction(2), ulid(2));

    expect(await runner.cancel(waiting.id)).toBe(true);
    expect(await runner.cancel(active.id)).toBe(true);
    expect(await runner.cancel("compaction-unknown")).toBe(false);

    expect(await finished(runner, active.id)).toMatchObject({
      state: "done",
      result: { status: "cancelled" },
    });
    expect((await runner.list([...ALL])).map((job) => job.id)).toEqual([active.id]);
    expect((await runner.enqueue("compaction", compaction(2), ulid(2))).outcome).toBe("added");
    await run(merges.runs, 2);
    merges.runs[1]!.release();
  });

  it("should_wait_for_the_running_job_on_close_and_take_no_other", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);

    await runner.enqueue("compaction", compaction(3), ulid(3));

    let closed = false;
    const closing = runner.close(60_000).then(() => {
      closed = true;
    });
    // A refused enqueue shows that the close has begun; nothing new is taken.
    await expect(runner.enqueue("compaction", compaction(2), ulid(2))).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    expect({ closed, aborted: merges.runs[0]!.run.signal.aborted }).toEqual({
      closed: false,
      aborted: false,
    });
    merges.runs[0]!.release();
    await closing;

    expect(merges.runs).toHaveLength(1);
  });

  it("should_abort_the_running_job_when_the_grace_of_close_is_over", async (context) => {
    const { runner, merges } = await given(context);
    await runner.start();
    await runner.enqueue("compaction", compaction(1), ulid(1));
    await run(merges.runs, 1);

    await runner.close(1);

    expect(merges.runs[0]!.run.signal.aborted).toBe(true);
    expect(merges.runs[0]!.run.signal.reason).toBe("the process is shutting down");
  });

  it("should_run_a_schedule_at_once_and_again_with_one_pending_run_shown", async (context) => {
    const { runner, sweeps } = await given(context);
    runner.schedule("gc", { id: "gc-all", everyMs: 200, payload: gc("schedule") });
    await runner.start();

    for (const n of [1, 2]) {
      await run(sweeps.runs, n);
      expect((await runner.list(["delayed", "waiting"])).length).toBe(1);
      sweeps.runs[n - 1]!.release();
    }

    expect(sweeps.runs[1]!.payload).toEqual(gc("schedule"));
  });

  it("should_refuse_a_payload_that_breaks_its_schema_and_name_the_field", async (context) => {
    const { runner } = await given(context);
    await runner.start();
    const broken = compaction(1);
    broken.spec.inputs = ["not-a-ulid"];

    await expect(runner.enqueue("compaction", broken, ulid(1))).rejects.toThrow(/spec\.inputs\.0/);
  });
});

describe("job runner: in-process bounds", () => {
  it("should_refuse_a_job_when_the_queue_is_full", async () => {
    const runner = new InProcessRunner({ logger: recordingLogger(), queueJobsMax: 2 });
    await runner.start();

    const outcomes = [];
    for (const n of [1, 2, 3])
      outcomes.push((await runner.enqueue("compaction", compaction(n), ulid(n))).outcome);
    await runner.close(0);

    expect(outcomes).toEqual(["added", "added", "refused"]);
  });
});
