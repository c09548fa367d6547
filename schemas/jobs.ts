/**
 * Job payloads: what travels through the job queues, and nothing else does.
 *
 * A payload holds ids and one plan, never vectors, attributes or credentials, so that a queue may
 * be lost, read by an operator or edited in a board without harm: the commit decides what happens
 * (DESIGN §8), the payload only proposes. Both runners check a payload against these schemas
 * before a job is enqueued and again before it runs, as a board can write to the queue as well.
 *
 * A compaction spec is the core's. Only the fields that TypeScript reads are named here; unknown
 * ones pass through untouched, so that the core can add a field without a change on this side.
 */
import { z } from "zod";

/** Queue names are fixed (DESIGN §11): boards, alerts and other processes name them. */
export const JOB_QUEUES = { compaction: "vexlake-compaction", gc: "vexlake-gc" } as const;
export type JobKind = keyof typeof JOB_QUEUES;
export const JOB_KINDS = Object.keys(JOB_QUEUES) as JobKind[];

/** A merge reads at most this many segments; 1,024 ULIDs are 27 KiB of payload. */
export const SPEC_INPUTS_MAX = 1_024;
/** Longest reason kept, in characters: one line of a board. */
export const REASON_CHARACTERS_MAX = 400;

const ulid = z.string().regex(/^[0-9A-HJKMNP-TV-Z]{26}$/, "expected a ULID of 26 characters");
/** A byte or row count: a safe integer, or decimal text where the core writes u64 as strings. */
const count = z.union([z.number().int().nonnegative(), z.string().regex(/^\d{1,20}$/)]);

export const compactionSpec = z.looseObject({
  id: z.string().min(1).max(128),
  incarnation: ulid,
  /** `merge` rewrites its inputs as one segment, `train` samples them for centroids. */
  kind: z.enum(["merge", "train", "split"]),
  inputs: z.array(ulid).min(1).max(SPEC_INPUTS_MAX),
  reason: z.string().max(REASON_CHARACTERS_MAX),
  bytesIn: count,
  predictedBytes: count,
  entriesIn: count,
});
export type CompactionSpec = z.infer<typeof compactionSpec>;

/** `collection` is the name at planning time, `db/name`; it is shown, never looked up. */
export const compactionPayload = z.strictObject({ collection: z.string().max(512), spec: compactionSpec });
export type CompactionPayload = z.infer<typeof compactionPayload>;

/**
 * `incarnation: null` sweeps every incarnation, then finishes what is leaving; with `orphans`, incarnations
 * without a name leave first.
 */
export const gcPayload = z
  .strictObject({
    incarnation: ulid.nullable(),
    graceMs: z.number().int().nonnegative(),
    dryRun: z.boolean(),
    orphans: z.boolean().default(false),
    reason: z.string().max(REASON_CHARACTERS_MAX),
  })
  .refine(({ incarnation, orphans }) => incarnation === null || !orphans, {
    path: ["orphans"],
    message: "orphans are the lake's, not an incarnation's",
  });
export type GcPayload = z.infer<typeof gcPayload>;

export interface JobPayloads {
  compaction: CompactionPayload;
  gc: GcPayload;
}

const SCHEMAS: { [K in JobKind]: z.ZodType<JobPayloads[K]> } = {
  compaction: compactionPayload,
  gc: gcPayload,
};

/** The payload, checked; an error's message names the field. */
export function parsePayload<K extends JobKind>(kind: K, payload: unknown): JobPayloads[K] {
  const parsed = SCHEMAS[kind].safeParse(payload);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new Error(`payload of a ${kind} job: ${issue?.path.join(".") || "(whole)"}: ${issue?.message}`);
}

/** One line for boards and logs: what the job would do, to which collection. */
export function titleOf(kind: JobKind, payload: unknown): string {
  const parsed = SCHEMAS[kind].safeParse(payload);
  if (!parsed.success) return `${kind}: payload not readable`;
  if (kind === "compaction") {
    const { collection, spec } = parsed.data as CompactionPayload;
    return `${collection}: ${spec.kind} ${spec.inputs.length} segments`;
  }
  const gc = parsed.data as GcPayload;
  const where = gc.incarnation ?? (gc.orphans ? "all collections and orphans" : "all collections");
  return `${where}: gc${gc.dryRun ? " (dry run)" : ""}`;
}

/** Why the job exists, in the words of whoever asked for it. */
export function reasonOf(kind: JobKind, payload: unknown): string {
  const parsed = SCHEMAS[kind].safeParse(payload);
  if (!parsed.success) return "";
  return kind === "compaction"
    ? (parsed.data as CompactionPayload).spec.reason
    : (parsed.data as GcPayload).reason;
}
