/**
 * BullMQ's words turned into ours: states, counts, and the view of one job.
 *
 * `waiting` includes prioritized jobs, `delayed` both retries and the next run of a schedule, as in
 * the in-process runner. Totals come from the workers' metrics, because counts only see kept jobs.
 */
import type { Job, JobType, Queue } from "bullmq";
import { type JobKind, reasonOf, titleOf } from "../../../schemas/jobs.ts";
import type { JobProgress, JobResult, JobState, JobView, QueueStats } from "./runner.ts";

const BULL_STATES: Record<JobState, JobType[]> = {
  active: ["active"],
  waiting: ["waiting", "prioritized"],
  delayed: ["delayed"],
  done: ["completed"],
  failed: ["failed"],
};

export function statesOf(state: JobState): JobType[] {
  return BULL_STATES[state];
}

export async function statsOf(queue: Queue): Promise<QueueStats> {
  const [paused, counts, done, failed] = await Promise.all([
    queue.isPaused(),
    queue.getJobCounts("active", "waiting", "prioritized", "delayed", "completed", "failed"),
    queue.getMetrics("completed", 0, 0),
    queue.getMetrics("failed", 0, 0),
  ]);
  const count = (state: string): number => counts[state] ?? 0;
  return {
    paused,
    counts: {
      active: count("active"),
      waiting: count("waiting") + count("prioritized"),
      delayed: count("delayed"),
      done: count("completed"),
      failed: count("failed"),
    },
    doneTotal: Number(done.meta.count),
    failedTotal: Number(failed.meta.count),
  };
}

export function viewOf(kind: JobKind, state: JobState, job: Job, attemptsMax: number): JobView {
  const startedMs = job.processedOn ?? null;
  const endMs = job.finishedOn ?? (state === "active" ? Date.now() : null);
  return {
    id: job.id ?? "",
    kind,
    title: titleOf(kind, job.data),
    reason: reasonOf(kind, job.data),
    state,
    payload: job.data,
    dedupId: job.deduplicationId ?? null,
    attempts: Math.max(job.attemptsStarted, job.attemptsMade),
    attemptsMax: job.opts.attempts ?? attemptsMax,
    progress: progressOf(job.progress),
    enqueuedMs: job.timestamp,
    startedMs,
    tookMs: startedMs !== null && endMs !== null ? endMs - startedMs : null,
    result: (job.returnvalue as JobResult | null | undefined) ?? null,
    error: job.failedReason ? job.failedReason : null,
  };
}

/** BullMQ starts every job with progress 0; a board can write any JSON. */
function progressOf(progress: unknown): JobProgress | null {
  return typeof progress === "object" && progress !== null ? (progress as JobProgress) : null;
}
