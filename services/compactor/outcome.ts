/**
 * The job column of the one error table: what a code of the core means for a job.
 *
 * `superseded` is success: a fenced incarnation was dropped, cleared or replaced, so that the work
 * has no object any more. `retry` may pass by itself. `fail` needs a person or the next plan: an
 * input that is gone although no commit removed it is CORRUPT and must be seen, not hidden as superseded.
 */
import type { CoreCode } from "../common/process/error.ts";

export type JobVerdict = "superseded" | "retry" | "fail";

export const JOB_VERDICT: Record<CoreCode, JobVerdict> = {
  INVALID: "fail",
  NOT_FOUND: "fail",
  CONFLICT: "retry",
  FENCED: "superseded",
  UNAVAILABLE: "retry",
  CORRUPT: "fail",
  INTERNAL: "retry",
};
