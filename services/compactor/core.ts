/**
 * What the compactor uses of `@vexlake/core`, and how it reads the core's JSON.
 *
 * The core owns plans, limits and commits; this side checks shapes, because a field that went missing must fail
 * here by name and not as `undefined` in a board.
 */
import type { Lake } from "@vexlake/core";
import { z } from "zod";
import { type CompactionSpec, compactionSpec } from "../../schemas/jobs.ts";
import { readCatalog } from "../common/catalog.ts";
import { VexError } from "../common/process/error.ts";

export type CoreLake = Pick<Lake, "refresh" | "describe" | "plan" | "run" | "alter" | "gc">;

/** An incarnation to look after; `collection` is `db/name`, marked where it is fed beside the live one. */
export interface Target {
  collection: string;
  incarnation: string;
}

/** What a merge may use. */
export interface MergeCaps {
  memoryBytesMax: number;
  bytesPerSecondMax: number;
}

/** What a plan must fit, and which deletes it may let go. */
export interface PlanOptions {
  memoryBytesMax: number;
  deleteRetentionMs: number;
}

const specs = z.array(compactionSpec);

/** The statuses a merge can end with; all three are success of the job (DESIGN §8). */
export const runOutcome = z.looseObject({ status: z.enum(["done", "superseded", "cancelled"]) });
export type RunOutcome = z.infer<typeof runOutcome>;

/** Of one incarnation: what was deleted, or would be. */
const collected = z.looseObject({ slots: z.number(), objects: z.array(z.string()), bytes: z.number() });
export type Collected = z.infer<typeof collected>;
/** Of the lake: incarnations that were leaving and are gone now, and those found without a name. */
const finished = z.looseObject({
  left: z.array(z.string()),
  orphans: z.array(z.looseObject({ incarnation: z.string(), objects: z.number(), bytes: z.number() })),
});
export type Finished = z.infer<typeof finished>;

const progress = z.object({
  rowsDone: z.coerce.number().optional(),
  rowsTotal: z.coerce.number().optional(),
  bytesRead: z.coerce.number().optional(),
  phase: z.string().optional(),
});

/** Live incarnations and those fed beside them: a replay must not arrive as a heap of small segments. */
export async function readTargets(lake: CoreLake): Promise<Target[]> {
  return (await readCatalog(lake)).flatMap(({ db, name, live, fed }) => [
    { collection: `${db}/${name}`, incarnation: live.incarnation },
    ...fed.map(({ incarnation }) => ({ collection: `${db}/${name} (fed)`, incarnation })),
  ]);
}

export async function readPlan(
  lake: CoreLake,
  incarnation: string,
  options: PlanOptions,
): Promise<CompactionSpec[]> {
  return parseCore("plan", specs, await lake.plan(incarnation, JSON.stringify(options)));
}

export function parseOutcome(text: string): RunOutcome {
  return parseCore("run", runOutcome, text);
}

export function parseCollected(text: string): Collected {
  return parseCore("gc", collected, text);
}

export function parseFinished(text: string): Finished {
  return parseCore("gc of what is leaving", finished, text);
}

/** null for what cannot be read: progress is for eyes only and must not fail a merge. */
export function parseProgress(text: string): z.infer<typeof progress> | null {
  try {
    return progress.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** A number of the core's JSON, which writes u64 as decimal text; 0 where there is none. */
export function numberOf(value: unknown): number {
  const number = typeof value === "string" && value !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : 0;
}

function parseCore<T>(what: string, schema: z.ZodType<T>, text: string): T {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new VexError("INTERNAL", `the core's answer to ${what} is not json`, { cause });
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new VexError("INTERNAL", `the core's answer to ${what}: ${issue?.path.join(".")}: ${issue?.message}`);
}
