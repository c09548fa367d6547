/**
 * One gc job: sweeps one incarnation, or every collection and then the catalog.
 *
 * The core wins a mark before it deletes anything (DESIGN §4); this side only asks and adds up. One
 * collection that fails does not keep the others from being swept: the job goes through all, then
 * fails with the first error, and the retry finds the swept ones already clean.
 */
import type { GcPayload } from "../../schemas/jobs.ts";
import type { JobHandler, JobLogger, JobResult } from "../common/jobs/runner.ts";
import { VexError, vexErrorFrom } from "../common/process/error.ts";
import { type CoreLake, numberOf, parseGc, readCollections } from "./core.ts";
import type { CompactorMetrics } from "./metrics.ts";
import { JOB_VERDICT } from "./outcome.ts";

export interface GcJobDeps {
  lake: CoreLake;
  logger: JobLogger;
  metrics: CompactorMetrics;
}

export function gcHandler(deps: GcJobDeps): JobHandler<GcPayload> {
  return async (payload, run) => {
    const stopTimer = deps.metrics.jobSeconds.startTimer({ queue: "gc" });
    try {
      const result = await sweep(deps, payload, run.signal, (done, total) =>
        run.progress({ phase: `collection ${done} of ${total}` }),
      );
      deps.metrics.countSweep(result, payload.dryRun);
      deps.logger.info({ job: run.id, result }, `gc ${result.status}`);
      return result;
    } catch (error) {
      deps.metrics.jobsTotal.inc({ queue: "gc", outcome: "failed" });
      deps.logger.warn({ job: run.id, attempt: run.attempt, err: error }, "gc failed");
      throw error;
    } finally {
      stopTimer();
    }
  };
}

async function sweep(
  deps: GcJobDeps,
  payload: GcPayload,
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void,
): Promise<JobResult> {
  const targets: (string | null)[] =
    payload.incarnation === null
      ? [...(await readCollections(deps.lake)).map((entry) => entry.incarnation), null]
      : [payload.incarnation];
  const options = JSON.stringify({ graceMs: payload.graceMs, dryRun: payload.dryRun });
  const total = { deletedObjects: 0, bytes: 0, versions: 0 };
  let firstError: VexError | null = null;
  for (const [index, target] of targets.entries()) {
    if (signal.aborted) return { status: "cancelled", dryRun: payload.dryRun, swept: index, ...total };
    onProgress(index + 1, targets.length);
    try {
      const swept = parseGc(await deps.lake.gc(target, options));
      total.deletedObjects += numberOf(swept.deletedObjects);
      total.bytes += numberOf(swept.bytes);
      total.versions += numberOf(swept.versions);
    } catch (thrown) {
      const error = vexErrorFrom(thrown);
      const verdict = JOB_VERDICT[error.code as keyof typeof JOB_VERDICT] ?? "fail";
      if (verdict === "superseded") continue;
      deps.logger.warn({ incarnation: target ?? "catalog", err: thrown }, "gc of one target failed");
      firstError ??= new VexError(error.code, `gc of ${target ?? "the catalog"}: ${error.message}`, {
        retriable: verdict === "retry",
        cause: thrown,
      });
    }
  }
  if (firstError !== null) throw firstError;
  return { status: "done", dryRun: payload.dryRun, swept: targets.length, ...total };
}
