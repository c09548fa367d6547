/**
 * The compactor: builds its graph and starts it.
 *
 * runner (BullMQ when `jobs.redis` is set, else in-process) ← handlers (merge, gc) ← core
 * planner → runner; /jobs → runner, planner.
 *
 * Started in this order, closed in reverse: the planner stops proposing, then the runner waits for
 * what runs (or aborts it), so that the lake may be closed after this by whoever opened it. The same
 * function serves the compactor's own process (serve.ts) and `vexlake up`, which mounts
 * `jobsHandler` on the query's HTTP server.
 */
import type { Registry } from "prom-client";
import type { GcPayload } from "../../schemas/jobs.ts";
import type { Config } from "../common/config/schema.ts";
import { BullRunner } from "../common/jobs/bullmq.ts";
import { InProcessRunner } from "../common/jobs/in-process.ts";
import type { JobLogger, JobRunner } from "../common/jobs/runner.ts";
import type { Handler } from "../common/process/http.ts";
import { compactionHandler } from "./compaction-job.ts";
import type { CoreLake } from "./core.ts";
import { gcHandler } from "./gc-job.ts";
import { createJobsHandler } from "./http.ts";
import { CompactorMetrics } from "./metrics.ts";
import { Planner, type PlanSummary } from "./planner.ts";

/** Garbage costs only space; six sweeps an hour keep it below a sixth of an hour's writes. */
export const GC_INTERVAL_MS = 600_000;
/**
 * A reader older than this follows the chain and reads again; an upload older than this that no commit names
 * is garbage: an hour is longer than any query, flush or merge (100 MiB/s × 1 h = 350 GiB).
 */
export const GC_GRACE_MS = 3_600_000;

export type CompactorConfig = Pick<Config, "compactor" | "jobs">;

export interface CompactorDeps {
  lake: CoreLake;
  logger: JobLogger;
  registry: Registry;
  /** Tests shorten these; deployments have no key for them. */
  tuning?: {
    planIntervalMs?: number;
    gcIntervalMs?: number;
    gcGraceMs?: number;
    backoffMs?: number;
    attemptsMax?: number;
  };
}

export interface CompactorStatus {
  runner: "bullmq" | "in-process";
  /** false while Redis is away. */
  connected: boolean;
  /** The last planner tick; null before the first has ended. */
  plan: PlanSummary | null;
}

export interface Compactor {
  /** Mount at "/jobs" of any node:http server. */
  jobsHandler: Handler;
  /** Plans now; resolves when that tick has ended. */
  requestPlan(): Promise<void>;
  status(): CompactorStatus;
  /** null when ready, else the reason: a check for /readyz. */
  readyCheck(): string | null;
  /** Waits for the running jobs up to `graceMs`, then aborts them. */
  close(graceMs?: number): Promise<void>;
}

export async function startCompactor(config: CompactorConfig, deps: CompactorDeps): Promise<Compactor> {
  const { lake, logger, registry, tuning = {} } = deps;
  const metrics = new CompactorMetrics(registry);
  const runner = createRunner(config, deps);
  const caps = {
    memoryBytesMax: config.compactor.memory_bytes_max,
    bytesPerSecondMax: config.compactor.bytes_per_second_max,
  };
  const options = {
    memoryBytesMax: caps.memoryBytesMax,
    deleteRetentionMs: config.compactor.delete_retention_ms,
  };
  const planner = new Planner({ lake, runner, logger, metrics, options, intervalMs: tuning.planIntervalMs });
  const gcPayload = (
    options: { incarnation: string | null; dryRun: boolean; orphans: boolean },
    reason = "requested",
  ): GcPayload => ({
    ...options,
    graceMs: tuning.gcGraceMs ?? GC_GRACE_MS,
    reason,
  });
  const onDone = (): void => void planner.request();
  runner.handle("compaction", compactionHandler({ lake, caps, logger, metrics, onDone }));
  runner.handle("gc", gcHandler({ lake, logger, metrics }));
  runner.schedule("gc", {
    id: "gc-all",
    everyMs: tuning.gcIntervalMs ?? GC_INTERVAL_MS,
    payload: gcPayload({ incarnation: null, dryRun: false, orphans: false }, "schedule"),
  });
  await runner.start();
  metrics.observeQueues(runner);
  const board = runner instanceof BullRunner ? (await import("./board.ts")).createBoard(runner) : null;
  planner.start();
  const { memoryBytesMax, bytesPerSecondMax } = caps;
  logger.info({ runner: runner.kind, memoryBytesMax, bytesPerSecondMax }, "compactor started");

  return {
    jobsHandler: createJobsHandler({ runner, planner, board, gcPayload }),
    requestPlan: () => planner.request(),
    status: () => ({ runner: runner.kind, connected: runner.connected, plan: planner.last }),
    readyCheck: () => notReadyReason(runner, planner),
    close: async (graceMs) => {
      await planner.close();
      await runner.close(graceMs);
    },
  };
}

function createRunner(config: CompactorConfig, { logger, tuning = {} }: CompactorDeps): JobRunner {
  const { attemptsMax, backoffMs } = tuning;
  const { redis, prefix } = config.jobs;
  return redis === undefined
    ? new InProcessRunner({ logger, attemptsMax, backoffMs })
    : new BullRunner({ url: redis, prefix, logger, attemptsMax, backoffMs });
}

function notReadyReason(runner: JobRunner, planner: Planner): string | null {
  if (!runner.connected) return "redis for jobs is away";
  if (planner.last === null) return "the first plan is being made";
  return planner.last.collections === 0 ? planner.last.error : null;
}
