/**
 * The in-process JobRunner: a bounded queue in memory, for `vexlake up` without Redis.
 *
 * Per kind there is one lane: waiting (FIFO) → active (≤ concurrency) → finished, with delayed
 * jobs (retries, scheduled runs) waiting on a timer beside it. Dedup ids map to the one job that
 * holds them, which also carries the payload of its follow-up.
 *
 * Invariants: a dedup id is held by exactly one waiting, delayed or active job, and released when
 * that job ends; a follow-up exists only on an active or delayed holder; waiting + delayed jobs
 * stay ≤ QUEUE_JOBS_MAX (a follow-up replaces its holder, so it cannot overflow).
 *
 * Left out on purpose: durability. A restart plans anew.
 */
import { JOB_KINDS, type JobKind, type JobPayloads, reasonOf, titleOf } from "../../../schemas/jobs.ts";
import { VexError } from "../process/error.ts";
import { newJobId } from "./id.ts";
import {
  ATTEMPTS_MAX,
  BACKOFF_MS,
  backoffMsOf,
  CLOSE_GRACE_MS,
  checkPayload,
  type Enqueued,
  FINISHED_JOBS_MAX,
  isRetriable,
  JOB_STATES,
  type JobHandler,
  type JobLogger,
  type JobProgress,
  type JobResult,
  type JobRunner,
  type JobState,
  type JobStats,
  type JobView,
  messageOf,
  type QueueStats,
  type Schedule,
} from "./runner.ts";
import { RunningJobs } from "./running.ts";

/** Jobs that wait, per kind: one per collection is the rule, and a payload is ≤ ~30 KiB, so ≤ 30 MiB. */
export const QUEUE_JOBS_MAX = 1_024;

export interface InProcessOptions {
  logger: JobLogger;
  concurrency?: number;
  attemptsMax?: number;
  backoffMs?: number;
  queueJobsMax?: number;
  abortWaitMs?: number;
  nowMs?: () => number;
}

interface Job {
  id: string;
  kind: JobKind;
  payload: unknown;
  dedupId: string | null;
  state: JobState;
  attempts: number;
  progress: JobProgress | null;
  enqueuedMs: number;
  startedMs: number | null;
  endedMs: number | null;
  result: JobResult | null;
  error: string | null;
  /** Set while delayed. */
  timer: NodeJS.Timeout | null;
  followUp: { id: string; payload: unknown } | null;
  schedule: Schedule<JobKind> | null;
}

interface Lane {
  kind: JobKind;
  paused: boolean;
  handler: JobHandler<never> | null;
  waiting: Job[];
  delayed: Set<Job>;
  active: Set<Job>;
  done: Job[];
  failed: Job[];
  holders: Map<string, Job>;
  doneTotal: number;
  failedTotal: number;
}

export class InProcessRunner implements JobRunner {
  readonly kind = "in-process";
  readonly connected = true;
  readonly #lanes: Record<JobKind, Lane>;
  readonly #running: RunningJobs;
  readonly #logger: JobLogger;
  readonly #nowMs: () => number;
  readonly #concurrency: number;
  readonly #attemptsMax: number;
  readonly #backoffMs: number;
  readonly #queueJobsMax: number;
  readonly #scheduled: { kind: JobKind; schedule: Schedule<JobKind> }[] = [];
  #started = false;
  #closing: Promise<void> | null = null;

  constructor(options: InProcessOptions) {
    this.#logger = options.logger;
    this.#nowMs = options.nowMs ?? Date.now;
    this.#concurrency = options.concurrency ?? 1;
    this.#attemptsMax = options.attemptsMax ?? ATTEMPTS_MAX;
    this.#backoffMs = options.backoffMs ?? BACKOFF_MS;
    this.#queueJobsMax = options.queueJobsMax ?? QUEUE_JOBS_MAX;
    this.#running = new RunningJobs({ nowMs: this.#nowMs, abortWaitMs: options.abortWaitMs });
    this.#lanes = Object.fromEntries(JOB_KINDS.map((kind) => [kind, newLane(kind)])) as Record<JobKind, Lane>;
  }

  handle<K extends JobKind>(kind: K, handler: JobHandler<JobPayloads[K]>): void {
    this.#lanes[kind].handler = handler as JobHandler<never>;
  }

  schedule<K extends JobKind>(kind: K, schedule: Schedule<K>): void {
    const entry = { kind, schedule: schedule as Schedule<JobKind> };
    this.#scheduled.push(entry);
    if (this.#started) this.#delay(this.#newScheduledJob(entry.kind, entry.schedule), 0);
  }

  async start(): Promise<void> {
    this.#started = true;
    for (const { kind, schedule } of this.#scheduled) this.#delay(this.#newScheduledJob(kind, schedule), 0);
    for (const kind of JOB_KINDS) this.#pump(this.#lanes[kind]);
  }

  async enqueue<K extends JobKind>(kind: K, payload: JobPayloads[K], dedupId: string): Promise<Enqueued> {
    if (this.#closing) throw new VexError("UNAVAILABLE", "the job runner is closing");
    const checked = checkPayload(kind, payload);
    const lane = this.#lanes[kind];
    const holder = lane.holders.get(dedupId);
    if (holder !== undefined) {
      if (holder.state === "active") holder.followUp = { id: newJobId(kind), payload: checked };
      return { outcome: "deduplicated", id: holder.id };
    }
    const job = this.#newJob(kind, newJobId(kind), checked, dedupId);
    if (lane.waiting.length + lane.delayed.size >= this.#queueJobsMax)
      return { outcome: "refused", id: job.id };
    lane.holders.set(dedupId, job);
    lane.waiting.push(job);
    this.#pump(lane);
    return { outcome: "added", id: job.id };
  }

  async pause(kind: JobKind): Promise<void> {
    this.#lanes[kind].paused = true;
  }

  async resume(kind: JobKind): Promise<void> {
    this.#lanes[kind].paused = false;
    this.#pump(this.#lanes[kind]);
  }

  async cancel(id: string): Promise<boolean> {
    if (this.#running.cancel(id, "cancelled by request")) return true;
    for (const lane of Object.values(this.#lanes)) {
      const job = [...lane.waiting, ...lane.delayed].find(
        (candidate) => candidate.id === id && !candidate.schedule,
      );
      if (job === undefined) continue;
      lane.waiting = lane.waiting.filter((waiting) => waiting !== job);
      this.#undelay(lane, job);
      this.#release(lane, job);
      return true;
    }
    return false;
  }

  async list(states: JobState[], limit = FINISHED_JOBS_MAX): Promise<JobView[]> {
    return JOB_STATES.filter((state) => states.includes(state)).flatMap((state) =>
      JOB_KINDS.flatMap((kind) =>
        jobsOf(this.#lanes[kind], state)
          .sort((a, b) => b.enqueuedMs - a.enqueuedMs)
          .slice(0, limit)
          .map((job) => this.#viewOf(job)),
      ),
    );
  }

  async stats(): Promise<JobStats> {
    const queues = Object.fromEntries(JOB_KINDS.map((kind) => [kind, statsOf(this.#lanes[kind])]));
    return { runner: this.kind, connected: true, queues: queues as Record<JobKind, QueueStats> };
  }

  close(graceMs = CLOSE_GRACE_MS): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    for (const lane of Object.values(this.#lanes)) {
      for (const job of lane.delayed) this.#undelay(lane, job);
    }
    const settled = await this.#running.drain(graceMs);
    if (!settled) this.#logger.warn({ running: this.#running.size }, "jobs still run after the abort");
  }

  #pump(lane: Lane): void {
    while (
      this.#started &&
      !this.#closing &&
      !lane.paused &&
      lane.handler &&
      lane.active.size < this.#concurrency
    ) {
      const job = lane.waiting.shift();
      if (job === undefined) return;
      void this.#attempt(lane, job, lane.handler);
    }
  }

  async #attempt(lane: Lane, job: Job, handler: JobHandler<never>): Promise<void> {
    job.state = "active";
    job.attempts += 1;
    job.startedMs = this.#nowMs();
    lane.active.add(job);
    if (job.schedule && job.attempts === 1) {
      this.#delay(this.#newScheduledJob(job.kind, job.schedule), job.schedule.everyMs);
    }
    try {
      job.result = await this.#running.run({
        id: job.id,
        attempt: job.attempts,
        payload: checkPayload(job.kind, job.payload) as never,
        handler,
        report: (progress) => {
          job.progress = progress;
        },
      });
      job.error = null;
      this.#finish(lane, job, "done");
    } catch (error) {
      job.error = messageOf(error);
      if (isRetriable(error) && job.attempts < this.#attemptsMax && !this.#closing) {
        lane.active.delete(job);
        this.#delay(job, backoffMsOf(this.#backoffMs, job.attempts));
      } else this.#finish(lane, job, "failed");
    }
    this.#pump(lane);
  }

  #finish(lane: Lane, job: Job, state: "done" | "failed"): void {
    lane.active.delete(job);
    job.state = state;
    job.endedMs = this.#nowMs();
    if (state === "done") lane.doneTotal += 1;
    else lane.failedTotal += 1;
    lane[state].unshift(job);
    lane[state].length = Math.min(lane[state].length, FINISHED_JOBS_MAX);
    const followUp = job.followUp;
    job.followUp = null;
    this.#release(lane, job);
    if (followUp === null || this.#closing) return;
    const next = this.#newJob(job.kind, followUp.id, followUp.payload, job.dedupId);
    if (next.dedupId !== null) lane.holders.set(next.dedupId, next);
    lane.waiting.push(next);
  }

  #delay(job: Job, delayMs: number): void {
    if (this.#closing) return;
    const lane = this.#lanes[job.kind];
    job.state = "delayed";
    lane.delayed.add(job);
    job.timer = setTimeout(() => {
      this.#undelay(lane, job);
      job.state = "waiting";
      lane.waiting.push(job);
      this.#pump(lane);
    }, delayMs);
  }

  #undelay(lane: Lane, job: Job): void {
    if (job.timer !== null) clearTimeout(job.timer);
    job.timer = null;
    lane.delayed.delete(job);
  }

  #release(lane: Lane, job: Job): void {
    if (job.dedupId !== null && lane.holders.get(job.dedupId) === job) lane.holders.delete(job.dedupId);
  }

  #newScheduledJob(kind: JobKind, schedule: Schedule<JobKind>): Job {
    const job = this.#newJob(kind, newJobId(kind), checkPayload(kind, schedule.payload), null);
    job.schedule = schedule;
    return job;
  }

  #newJob(kind: JobKind, id: string, payload: unknown, dedupId: string | null): Job {
    return {
      id,
      kind,
      payload,
      dedupId,
      state: "waiting",
      attempts: 0,
      progress: null,
      enqueuedMs: this.#nowMs(),
      startedMs: null,
      endedMs: null,
      result: null,
      error: null,
      timer: null,
      followUp: null,
      schedule: null,
    };
  }

  #viewOf(job: Job): JobView {
    const endMs = job.endedMs ?? (job.state === "active" ? this.#nowMs() : null);
    return {
      id: job.id,
      kind: job.kind,
      title: titleOf(job.kind, job.payload),
      reason: reasonOf(job.kind, job.payload),
      state: job.state,
      payload: job.payload,
      dedupId: job.dedupId,
      attempts: job.attempts,
      attemptsMax: this.#attemptsMax,
      progress: job.progress,
      enqueuedMs: job.enqueuedMs,
      startedMs: job.startedMs,
      tookMs: job.startedMs !== null && endMs !== null ? endMs - job.startedMs : null,
      result: job.result,
      error: job.error,
    };
  }
}

function newLane(kind: JobKind): Lane {
  return {
    kind,
    paused: false,
    handler: null,
    waiting: [],
    delayed: new Set(),
    active: new Set(),
    done: [],
    failed: [],
    holders: new Map(),
    doneTotal: 0,
    failedTotal: 0,
  };
}

function jobsOf(lane: Lane, state: JobState): Job[] {
  return [...lane[state]];
}

function statsOf(lane: Lane): QueueStats {
  const counts = Object.fromEntries(JOB_STATES.map((state) => [state, jobsOf(lane, state).length]));
  return {
    paused: lane.paused,
    counts: counts as Record<JobState, number>,
    doneTotal: lane.doneTotal,
    failedTotal: lane.failedTotal,
  };
}
