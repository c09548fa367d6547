/**
 * One compaction job: hands the spec to the core, shows its progress, passes an abort on.
 *
 * 1. The caps (memory, bytes per second) are this process's, not the payload's: the process that runs
 *    a job knows its memory, the one that planned it does not.
 * 2. `run` merges, or trains centroids, and commits inside the core. Inputs that are gone end it as `superseded`, which
 *    is success: somebody else did the work or dropped the collection.
 * 3. An abort is `alter cancel`, said again every CANCEL_INTERVAL_MS until the run has ended: the
 *    first may arrive before the core has registered the job.
 *
 * Invariant: the handler returns only after the core's run has settled, so nothing is merged behind
 * the back of a closed runner.
 */
import type { CompactionPayload } from "../../schemas/jobs.ts";
import { type JobHandler, type JobLogger, type JobResult, messageOf } from "../common/jobs/runner.ts";
import { VexError, vexErrorFrom } from "../common/process/error.ts";
import { type CoreLake, type MergeCaps, parseOutcome, parseProgress } from "./core.ts";
import type { CompactorMetrics } from "./metrics.ts";
import { JOB_VERDICT } from "./outcome.ts";

export const CANCEL_INTERVAL_MS = 200;

export interface CompactionJobDeps {
  lake: CoreLake;
  caps: MergeCaps;
  logger: JobLogger;
  metrics: CompactorMetrics;
  /** Called after each job that committed: the lake has changed, so a fresh plan is worth making. */
  onDone(): void;
}

export function compactionHandler(deps: CompactionJobDeps): JobHandler<CompactionPayload> {
  return async (payload, run) => {
    const { spec, collection } = payload;
    // A stalled job may run a second time here; the attempt keeps the core's job names apart.
    const job = `${run.id}.${run.attempt}`;
    const fields = { job, collection, incarnation: spec.incarnation, spec: spec.id, reason: spec.reason };
    const onProgress = (text: string): void => {
      const progress = parseProgress(text);
      if (progress !== null) run.progress(progress);
    };
    const stopCancelling = cancelOnAbort(deps, run.signal, job);
    const stopTimer = deps.metrics.jobSeconds.startTimer({ queue: "compaction" });
    deps.logger.info(
      { ...fields, inputs: spec.inputs.length, bytesIn: spec.bytesIn },
      `${spec.kind} started`,
    );
    try {
      const result = run.signal.aborted
        ? { status: "cancelled" }
        : await runOnce(deps, JSON.stringify(spec), onProgress, job);
      deps.metrics.countJob(result);
      deps.logger.info({ ...fields, result }, `${spec.kind} ${result.status}`);
      // Not after `superseded`: a plan that keeps losing must wait for the interval, not spin.
      if (result.status === "done") deps.onDone();
      return result;
    } catch (error) {
      deps.metrics.jobsTotal.inc({ queue: "compaction", outcome: "failed" });
      deps.logger.warn({ ...fields, attempt: run.attempt, err: error }, `${spec.kind} failed`);
      throw error;
    } finally {
      stopTimer();
      stopCancelling();
    }
  };
}

async function runOnce(
  deps: CompactionJobDeps,
  spec: string,
  onProgress: (text: string) => void,
  job: string,
): Promise<JobResult> {
  let text: string;
  try {
    text = await deps.lake.run(spec, onProgress, job, JSON.stringify(deps.caps));
  } catch (thrown) {
    const error = vexErrorFrom(thrown);
    const verdict = JOB_VERDICT[error.code as keyof typeof JOB_VERDICT] ?? "fail";
    if (verdict === "superseded") return { status: "superseded", reason: error.message };
    throw new VexError(error.code, error.message, {
      retriable: verdict === "retry",
      cause: thrown,
      fields: error.fields,
    });
  }
  return parseOutcome(text);
}

/** Returns the function that stops it; to be called once the run has settled. */
function cancelOnAbort(deps: CompactionJobDeps, signal: AbortSignal, job: string): () => void {
  let timer: NodeJS.Timeout | undefined;
  const cancel = (): void => {
    deps.lake.alter({ op: "cancel", job }).catch((error: unknown) => {
      deps.logger.debug({ job, error: messageOf(error) }, "cancel not taken, asking again");
    });
  };
  const onAbort = (): void => {
    cancel();
    timer = setInterval(cancel, CANCEL_INTERVAL_MS);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  return () => {
    signal.removeEventListener("abort", onAbort);
    clearInterval(timer);
  };
}
