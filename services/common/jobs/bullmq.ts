/**
 * The BullMQ JobRunner: queues `vexlake-compaction` and `vexlake-gc` on Redis, shared by processes.
 *
 * 1. `enqueue` adds with BullMQ's deduplication {id, keepLastIfActive}: at most one job of an id
 *    waits, and adds made while one is active collapse into exactly one follow-up.
 * 2. One worker per handled kind runs jobs; their handlers live in RunningJobs, which owns abort
 *    and draining. BullMQ's lock renewal and stalled check give a dead process's job to another.
 * 3. Schedulers are upserted at the start, on every reconnect, and every minute: a Redis without
 *    persistence that restarts has forgotten them. An upsert of the same interval keeps its slot.
 * 4. Redis away: producer calls fail at once as UNAVAILABLE, running handlers go on, workers wait
 *    for Redis and finish their jobs then. If Redis lost its memory, finishing fails, is reported,
 *    and the worker takes the next job; the commit is what counted.
 *
 * Invariant: nothing waits for Redis without a deadline except a worker.
 */
import { type Job, Queue, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import { JOB_KINDS, JOB_QUEUES, type JobKind, type JobPayloads } from "../../../schemas/jobs.ts";
import { VexError } from "../process/error.ts";
import { statesOf, statsOf, viewOf } from "./bullmq-view.ts";
import { newJobId } from "./id.ts";
import {
  isOutage,
  openProducerConnection,
  openWorkerConnection,
  RedisWatch,
  redisAddress,
  waitUntilReady,
} from "./redis.ts";
import {
  ATTEMPTS_MAX,
  BACKOFF_MS,
  CLOSE_GRACE_MS,
  checkPayload,
  type Enqueued,
  FINISHED_JOBS_MAX,
  isRetriable,
  JOB_STATES,
  type JobHandler,
  type JobLogger,
  type JobResult,
  type JobRunner,
  type JobState,
  type JobStats,
  type JobView,
  messageOf,
  type QueueStats,
  type Schedule,
} from "./runner.ts";
import { RunningJobs, within } from "./running.ts";

/** Recipes: schedulers vanish with an unsaved Redis; within a minute they are back. */
export const SCHEDULE_UPSERT_INTERVAL_MS = 60_000;
/** Per-minute points of done and failed jobs: two weeks × 1,440 minutes × ~8 bytes = 160 KiB a queue. */
const METRICS_POINTS_MAX = 20_160;
/** BullMQ's wait between tries to finish a job while Redis is away; its default is 15 s. */
const RUN_RETRY_DELAY_MS = 1_000;
/** A worker's lock outlives this long a stall of its event loop; renewed at half of it. */
const LOCK_DURATION_MS = 30_000;
/** Stack lines kept of a failed attempt: enough to name the place, little to store. */
const STACK_LINES_MAX = 10;
/** A payload beyond this is refused by `add`: 1,024 inputs × 29 bytes, several times over. */
const PAYLOAD_BYTES_MAX = 131_072;
/** After the handlers have settled, what workers, and then queues, may still need to write and close. */
const QUEUE_CLOSE_WAIT_MS = 2_000;

export interface BullRunnerOptions {
  url: string;
  prefix: string;
  logger: JobLogger;
  concurrency?: number;
  attemptsMax?: number;
  backoffMs?: number;
  abortWaitMs?: number;
  startWaitMs?: number;
  scheduleUpsertIntervalMs?: number;
}

interface ScheduleEntry {
  kind: JobKind;
  schedule: Schedule<JobKind>;
}

export class BullRunner implements JobRunner {
  readonly kind = "bullmq";
  readonly #options: BullRunnerOptions;
  readonly #logger: JobLogger;
  readonly #handlers = new Map<JobKind, JobHandler<never>>();
  readonly #schedules: ScheduleEntry[] = [];
  readonly #running: RunningJobs;
  readonly #producer: Redis;
  readonly #watch: RedisWatch;
  readonly #workerConnections: Redis[] = [];
  readonly #workers: Worker[] = [];
  #queues: Record<JobKind, Queue> | null = null;
  #upsertTimer: NodeJS.Timeout | null = null;
  #closing: Promise<void> | null = null;

  constructor(options: BullRunnerOptions) {
    this.#options = options;
    this.#logger = options.logger;
    this.#running = new RunningJobs({ abortWaitMs: options.abortWaitMs });
    this.#producer = openProducerConnection(options.url);
    this.#watch = new RedisWatch(
      this.#producer,
      redisAddress(options.url),
      options.logger,
      () => void this.#upsertSchedules(),
    );
  }

  handle<K extends JobKind>(kind: K, handler: JobHandler<JobPayloads[K]>): void {
    this.#handlers.set(kind, handler as JobHandler<never>);
  }

  schedule<K extends JobKind>(kind: K, schedule: Schedule<K>): void {
    checkPayload(kind, schedule.payload);
    const entry = { kind, schedule: schedule as Schedule<JobKind> };
    this.#schedules.push(entry);
    if (this.#queues) void this.#upsertSchedules();
  }

  async start(): Promise<void> {
    try {
      await waitUntilReady(this.#producer, this.#options.url, this.#options.startWaitMs);
    } catch (error) {
      this.#watch.closing();
      this.#producer.disconnect();
      throw error;
    }
    this.#queues = Object.fromEntries(JOB_KINDS.map((kind) => [kind, this.#openQueue(kind)])) as Record<
      JobKind,
      Queue
    >;
    for (const [kind, handler] of this.#handlers) this.#workers.push(this.#openWorker(kind, handler));
    await this.#upsertSchedules();
    const everyMs = this.#options.scheduleUpsertIntervalMs ?? SCHEDULE_UPSERT_INTERVAL_MS;
    this.#upsertTimer = setInterval(() => void this.#upsertSchedules(), everyMs);
  }

  /** For the board; only after `start`. */
  queue(kind: JobKind): Queue {
    if (this.#queues === null) throw new VexError("INTERNAL", "the job runner has not started");
    return this.#queues[kind];
  }

  async enqueue<K extends JobKind>(kind: K, payload: JobPayloads[K], dedupId: string): Promise<Enqueued> {
    if (this.#closing) throw new VexError("UNAVAILABLE", "the job runner is closing");
    const checked = checkPayload(kind, payload);
    const id = newJobId(kind);
    const job = await this.#ask(() =>
      this.queue(kind).add(kind, checked, {
        jobId: id,
        deduplication: { id: dedupId, keepLastIfActive: true },
      }),
    );
    return job.id === id ? { outcome: "added", id } : { outcome: "deduplicated", id: job.id ?? id };
  }

  async pause(kind: JobKind): Promise<void> {
    await this.#ask(() => this.queue(kind).pause());
  }

  async resume(kind: JobKind): Promise<void> {
    await this.#ask(() => this.queue(kind).resume());
  }

  async cancel(id: string): Promise<boolean> {
    if (this.#running.cancel(id, "cancelled by request")) return true;
    for (const kind of JOB_KINDS) {
      const job: Job | undefined = await this.#ask(() => this.queue(kind).getJob(id));
      if (job === undefined) continue;
      const state = await this.#ask(() => job.getState());
      if (state !== "waiting" && state !== "delayed") return false;
      // A schedule's next run is the schedule's: BullMQ would throw.
      if (job.repeatJobKey !== undefined) return false;
      await this.#ask(() => job.remove());
      return true;
    }
    return false;
  }

  async list(states: JobState[], limit = FINISHED_JOBS_MAX): Promise<JobView[]> {
    const wanted = JOB_STATES.filter((state) => states.includes(state));
    const attemptsMax = this.#options.attemptsMax ?? ATTEMPTS_MAX;
    const lists = await Promise.all(
      wanted.flatMap((state) =>
        JOB_KINDS.map(async (kind) => {
          const jobs = await this.#ask(() => this.queue(kind).getJobs(statesOf(state), 0, limit - 1));
          // A job that is removed between the list and the read of its hash arrives as undefined.
          return jobs.filter((job) => job !== undefined).map((job) => viewOf(kind, state, job, attemptsMax));
        }),
      ),
    );
    return lists.flat();
  }

  async stats(): Promise<JobStats> {
    const entries = await Promise.all(
      JOB_KINDS.map(async (kind) => [kind, await this.#ask(() => statsOf(this.queue(kind)))] as const),
    );
    const queues = Object.fromEntries(entries) as Record<JobKind, QueueStats>;
    return { runner: this.kind, connected: this.connected, queues };
  }

  get connected(): boolean {
    return this.#watch.connected;
  }

  close(graceMs = CLOSE_GRACE_MS): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    this.#watch.closing();
    if (this.#upsertTimer !== null) clearInterval(this.#upsertTimer);
    // Stop fetching first, without waiting; the drain owns the waiting and the abort.
    await Promise.all(this.#workers.map((worker) => worker.pause(true)));
    const settled = await this.#running.drain(graceMs);
    if (!settled) this.#logger.warn({ running: this.#running.size }, "jobs still run after the abort");
    const force = !settled || !this.connected;
    const closeAll = (parts: Promise<void>[]) => within(Promise.all(parts), QUEUE_CLOSE_WAIT_MS, undefined);
    await closeAll(this.#workers.map((worker) => worker.close(force)));
    await closeAll(Object.values(this.#queues ?? {}).map((queue) => queue.close()));
    for (const connection of [...this.#workerConnections, this.#producer]) connection.disconnect();
  }

  #openQueue(kind: JobKind): Queue {
    const queue = new Queue(JOB_QUEUES[kind], {
      connection: this.#producer,
      prefix: this.#options.prefix,
      defaultJobOptions: {
        attempts: this.#options.attemptsMax ?? ATTEMPTS_MAX,
        backoff: { type: "exponential", delay: this.#options.backoffMs ?? BACKOFF_MS },
        removeOnComplete: { count: FINISHED_JOBS_MAX },
        removeOnFail: { count: FINISHED_JOBS_MAX },
        stackTraceLimit: STACK_LINES_MAX,
        sizeLimit: PAYLOAD_BYTES_MAX,
      },
    });
    queue.on("error", (error) => this.#watch.quietError(error));
    return queue;
  }

  #openWorker(kind: JobKind, handler: JobHandler<never>): Worker {
    const connection = openWorkerConnection(this.#options.url);
    connection.on("error", (error: Error) => this.#watch.quietError(error));
    this.#workerConnections.push(connection);
    const worker = new Worker(JOB_QUEUES[kind], (job: Job) => this.#attempt(kind, handler, job), {
      connection,
      prefix: this.#options.prefix,
      concurrency: this.#options.concurrency ?? 1,
      metrics: { maxDataPoints: METRICS_POINTS_MAX },
      lockDuration: LOCK_DURATION_MS,
      runRetryDelay: RUN_RETRY_DELAY_MS,
    });
    worker.on("error", (error) => this.#watch.quietError(error));
    return worker;
  }

  async #attempt(kind: JobKind, handler: JobHandler<never>, job: Job): Promise<JobResult> {
    const id = job.id ?? newJobId(kind);
    try {
      return await this.#running.run({
        id,
        attempt: job.attemptsStarted,
        payload: checkPayload(kind, job.data) as never,
        handler,
        // Through the producer: progress may fail, but must not wait for Redis.
        report: (progress) => this.queue(kind).updateJobProgress(id, progress),
      });
    } catch (error) {
      if (isRetriable(error)) throw error;
      throw Object.assign(new UnrecoverableError(messageOf(error)), { cause: error });
    }
  }

  async #upsertSchedules(): Promise<void> {
    if (this.#queues === null || this.#closing) return;
    for (const { kind, schedule } of this.#schedules) {
      try {
        const template = { name: kind, data: schedule.payload };
        await this.#ask(() =>
          this.queue(kind).upsertJobScheduler(schedule.id, { every: schedule.everyMs }, template),
        );
      } catch (error) {
        // The next minute or reconnect tries again; an outage has its own log line.
        const level = isOutage(error) || error instanceof VexError ? "debug" : "warn";
        this.#logger[level]({ err: error, kind, schedule: schedule.id }, "job schedule not upserted");
      }
    }
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    try {
      return await question();
    } catch (error) {
      if (!isOutage(error)) throw error;
      throw new VexError("UNAVAILABLE", `redis for jobs is away: ${messageOf(error)}`, { cause: error });
    }
  }
}
