/**
 * Which of a collection's planned jobs, merges and trainings, to propose now. Pure: a snapshot in, a value out.
 *
 * The queue holds one waiting job per collection and one follow-up, so a tick proposes at most one
 * spec per collection: the first of the core's plan, where rewrites of mostly shadowed segments come
 * before tiers, and small tiers before large ones. Passed over are
 * - specs that share an input with a job that waits or runs: they would end as superseded, after
 *   having read and written everything for nothing;
 * - specs whose very inputs failed for good a short while ago: a damaged segment must not be read
 *   again every tick. Kind and inputs are compared, so it does not matter how the core names a spec.
 */
import type { CompactionPayload, CompactionSpec } from "../../schemas/jobs.ts";
import { compactionPayload } from "../../schemas/jobs.ts";
import type { JobView } from "../common/jobs/runner.ts";

/** A failed merge is proposed again after this: 5 minutes × 3 attempts are ≤ 36 tries an hour. */
export const FAILED_PAUSE_MS = 300_000;

export interface Busy {
  /** Inputs of jobs that wait or run. */
  inputs: ReadonlySet<string>;
  /** Kind and inputs of jobs that failed within FAILED_PAUSE_MS, as `inputsKey` writes them. */
  failed: ReadonlySet<string>;
}

export function chooseSpec(specs: CompactionSpec[], busy: Busy): CompactionSpec | null {
  const free = (spec: CompactionSpec): boolean =>
    !busy.failed.has(inputsKey(spec)) && !spec.inputs.some((input) => busy.inputs.has(input));
  return specs.find(free) ?? null;
}

export function busyOf(pending: JobView[], failed: JobView[], nowMs: number): Busy {
  const endedMs = (job: JobView): number => (job.startedMs ?? job.enqueuedMs) + (job.tookMs ?? 0);
  const recent = failed.filter((job) => nowMs - endedMs(job) < FAILED_PAUSE_MS);
  return {
    inputs: new Set(pending.flatMap((job) => payloadOf(job)?.spec.inputs ?? [])),
    failed: new Set(recent.flatMap((job) => payloadOf(job)?.spec ?? []).map(inputsKey)),
  };
}

function inputsKey(spec: CompactionSpec): string {
  return [spec.kind, ...spec.inputs.toSorted()].join(" ");
}

function payloadOf(job: JobView): CompactionPayload | null {
  if (job.kind !== "compaction") return null;
  return compactionPayload.safeParse(job.payload).data ?? null;
}
