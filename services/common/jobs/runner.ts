/**
 * JobRunner: the seam behind which background jobs run, on BullMQ or in this process.
 *
 * Semantics that both implementations keep, and that one contract suite checks:
 * 1. `enqueue` with a dedup id: while a job of that id waits (for its first attempt or a retry),
 *    another adds nothing; while one is active, the latest is kept and becomes exactly one
 *    follow-up when the active one ends, however it ends.
 * 2. A handler that throws is retried with exponential backoff up to `attemptsMax`, unless the
 *    error says `retriable: false`; then the job is failed and stays visible with its error.
 * 3. Whatever a handler returns is success; `status` in it says which kind (done, superseded,
 *    cancelled).
 * 4. `close` takes no new job, waits for the running ones up to a grace, then aborts them and
 *    waits for their handlers to return.
 * 5. A schedule runs once at the start and then at its interval, one pending run at a time.
 * 6. Finished jobs are kept to a bound, newest first.
 *
 * The queue is a hint, never a source of truth: losing all of it loses no work, because the next
 * planner tick derives the same plan from the commits (DESIGN §8). So nothing here is durable by
 * contract, and a job may run twice; its commit decides.
 */
import { type JobKind, type JobPayloads, parsePayload } from "../../../schemas/jobs.ts";
import { VexError } from "../process/error.ts";

/** Two retries: a third conflict or outage in a row is left to the next plan, which sees fresh facts. */
export const ATTEMPTS_MAX = 3;
/** First retry after this long, then twice that: 2 + 4 s, past one store deadline's worth of trouble. */
export const BACKOFF_MS = 2_000;
/** Finished jobs kept of each kind, done and failed apart: 200 × ~4 KiB stays below 1 MiB a list. */
export const FINISHED_JOBS_MAX = 200;
/**
 * Default of `close`: most merges are over by then, a long one need not be. With the abort and what a
 * queue needs to close (2 × 2 s), 8 + 5 + 4 = 17 s stay below the 20 s that a shutdown gives a part.
 */
export const CLOSE_GRACE_MS = 8_000;
/** After an abort, how long a handler may take to notice: a merge looks between slices of ≤ 1 MiB. */
export const ABORT_WAIT_MS = 5_000;

export type JobState = "waiting" | "active" | "delayed" | "done" | "failed";
export const JOB_STATES: JobState[] = ["active", "waiting", "delayed", "failed", "done"];

/** As the core reports it; rows and bytes are totals so far. */
export interface JobProgress {
  rowsDone?: number;
  rowsTotal?: number;
  bytesRead?: number;
  phase?: string;
}

/** `status` is shown as the result's word; the rest is the handler's to choose. JSON only. */
export interface JobResult {
  status: string;
  [field: string]: unknown;
}

/** One attempt of one job, as its handler sees it. */
export interface JobRun {
  readonly id: string;
  /** From 1; counts starts, so it also rises when a stalled job is picked up again. */
  readonly attempt: number;
  /** Aborted by `cancel` and by `close` after its grace; the reason is a short text. */
  readonly signal: AbortSignal;
  /** Never throws and never waits; the latest value wins. */
  progress(progress: JobProgress): void;
}

export type JobHandler<P> = (payload: P, run: JobRun) => Promise<JobResult>;

export interface JobView {
  id: string;
  kind: JobKind;
  title: string;
  reason: string;
  state: JobState;
  payload: unknown;
  dedupId: string | null;
  attempts: number;
  attemptsMax: number;
  progress: JobProgress | null;
  enqueuedMs: number;
  startedMs: number | null;
  tookMs: number | null;
  result: JobResult | null;
  error: string | null;
}

/**
 * `deduplicated`: a job of that dedup id waits, or is active and this one became its follow-up; `id` is the
 * job it met. `refused`: the bounded queue is full; the next plan proposes it again.
 */
export interface Enqueued {
  outcome: "added" | "deduplicated" | "refused";
  id: string;
}

export interface QueueStats {
  paused: boolean;
  counts: Record<JobState, number>;
  /** Since the queue exists (BullMQ) or the process started: finished jobs beyond the kept ones count too. */
  doneTotal: number;
  failedTotal: number;
}

export interface JobStats {
  runner: "bullmq" | "in-process";
  connected: boolean;
  queues: Record<JobKind, QueueStats>;
}

export interface Schedule<K extends JobKind> {
  id: string;
  everyMs: number;
  payload: JobPayloads[K];
}

export interface JobRunner {
  readonly kind: "bullmq" | "in-process";
  /** false while Redis is away; the in-process runner is always connected. */
  readonly connected: boolean;
  /** Before `start`: who runs jobs of a kind. A runner with no handler for a kind only enqueues it. */
  handle<K extends JobKind>(kind: K, handler: JobHandler<JobPayloads[K]>): void;
  /** Before or after `start`. */
  schedule<K extends JobKind>(kind: K, schedule: Schedule<K>): void;
  start(): Promise<void>;
  enqueue<K extends JobKind>(kind: K, payload: JobPayloads[K], dedupId: string): Promise<Enqueued>;
  /** Stops taking new jobs of the kind, in every process that shares the queue; running ones go on. */
  pause(kind: JobKind): Promise<void>;
  resume(kind: JobKind): Promise<void>;
  /** Aborts a job that runs here, or removes one that waits; false where neither holds. */
  cancel(id: string): Promise<boolean>;
  /** Newest first inside each state; at most `limit` of each state and kind. */
  list(states: JobState[], limit?: number): Promise<JobView[]>;
  stats(): Promise<JobStats>;
  close(graceMs?: number): Promise<void>;
}

/** What the runners ask of a logger; pino fits. */
export interface JobLogger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The payload, checked; what breaks its schema is never retried. */
export function checkPayload<K extends JobKind>(kind: K, payload: unknown): JobPayloads[K] {
  try {
    return parsePayload(kind, payload);
  } catch (error) {
    throw new VexError("INVALID", messageOf(error), { cause: error });
  }
}

/** Unmarked errors are retried: a bug fails all attempts and ends visible, an outage passes. */
export function isRetriable(error: unknown): boolean {
  return (error as { retriable?: unknown } | null)?.retriable !== false;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Exponential, as BullMQ computes it, so that both runners wait alike. */
export function backoffMsOf(firstMs: number, attempt: number): number {
  return firstMs * 2 ** (attempt - 1);
}
