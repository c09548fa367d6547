/**
 * Job ids: `<kind>-<12 hex digits>`, minted by us rather than by the queue.
 *
 * BullMQ's own ids are a counter that starts again at 1 when Redis loses its memory, which would
 * give a running job's id to another one. 48 random bits over the ≤ 1,000 jobs that a queue keeps
 * collide with a chance of about 2·10⁻⁹. BullMQ refuses `:` and digits-only ids; this has neither.
 */
import { randomBytes } from "node:crypto";
import type { JobKind } from "../../../schemas/jobs.ts";

export function newJobId(kind: JobKind): string {
  return `${kind}-${randomBytes(6).toString("hex")}`;
}
