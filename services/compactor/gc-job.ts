/**
 * One gc job: sweeps one incarnation, or all and then finishes what is leaving (dropped, retired, and if asked
 * for, orphans).
 *
 * The core wins a mark before it deletes anything (DESIGN §4); this side only asks and adds up. One
 * collection that fails does not keep the others from being swept: the job goes through all, then
 * fails with the first error, and the retry finds the swept ones already clean.
 */
import type { GcPayload } from "../../schemas/jobs.ts";
import type { JobHandler, JobLogger, JobResult } from "../common/jobs/runner.ts";
import { VexError, vexErrorFrom } from "../common/process/error.ts";
import { type CoreLake, parseCollected, parseFinished, readTargets } from "./core.ts";
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
  const whole = payload.incarnation === null;
  const targets = whole
    ? (await readTargets(deps.lake)).map((target) => target.incarnation)
    : [payload.incarnation as string];
  const { graceMs, dryRun, orphans } = payload;
  const options = JSON.stringify({ graceMs, dryRun });
  const total = { objects: 0, bytes: 0, slots: 0, left: 0, orphans: 0 };
  let firstError: VexError | null = null;
  for (const [index, target] of targets.entries()) {
    if (signal.aborted) return { status: "cancelled", dryRun: payload.dryRun, swept: index, ...total };
    onProgress(index + 1, targets.length);
    try {
      const swept = parseCollected(await deps.lake.gc(target, options));
      total.objects += swept.objects.length;
      total.bytes += swept.bytes;
      total.slots += swept.slots;
    } catch (thrown) {
      firstError ??= gcError(deps, target, thrown);
    }
  }
  // What is leaving has no dry run: finishing a drop is a commit that the drop itself promised.
  if (whole && (orphans || !dryRun)) {
    try {
      const finished = parseFinished(await deps.lake.gc(null, JSON.stringify({ graceMs, dryRun, orphans })));
      total.left = finished.left.length;
      total.orphans = finished.orphans.length;
      for (const { objects, bytes } of finished.orphans) {
        total.objects += objects;
        total.bytes += bytes;
      }
    } catch (thrown) {
      firstError ??= gcError(deps, "what is leaving", thrown);
    }
  }
  if (firstError !== null) throw firstError;
  return { status: "done", dryRun: payload.dryRun, swept: targets.length, ...total };
}

/** null where the incarnation was dropped meanwhile: nothing is left to sweep. */
function gcError(deps: GcJobDeps, target: string, thrown: unknown): VexError | null {
  const error = vexErrorFrom(thrown);
  const verdict = JOB_VERDICT[error.code as keyof typeof JOB_VERDICT] ?? "fail";
  if (verdict === "superseded") return null;
  deps.logger.warn({ target, err: thrown }, "gc of one target failed");
  return new VexError(error.code, `gc of ${target}: ${error.message}`, {
    retriable: verdict === "retry",
    cause: thrown,
  });
}
