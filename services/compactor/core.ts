/**
 * What the compactor uses of `@vexlake/core`, and how it reads the core's JSON.
 *
 * Structural on purpose: the real `Lake` fits it, and so does the fake of the tests. The core owns
 * plans, limits and commits; this side checks shapes, because a field that went missing must fail
 * here by name and not as `undefined` in a board.
 */
import { z } from "zod";
import { type CompactionSpec, compactionSpec } from "../../schemas/jobs.ts";
import { VexError } from "../common/process/error.ts";

export interface CoreLake {
  refresh(incarnation: string | null): Promise<string>;
  describe(request: { what: "collections" }): Promise<string | Uint8Array>;
  plan(incarnation: string): Promise<string>;
  run(spec: string, onProgress: (progress: string) => void, job: string): Promise<string>;
  alter(command: { op: "cancel"; job: string }): Promise<string>;
  gc(incarnation: string | null, options: string): Promise<string>;
}

export interface CollectionEntry {
  db: string;
  name: string;
  incarnation: string;
}

const collections = z.array(
  z.looseObject({ db: z.union([z.string(), z.number()]), name: z.string(), incarnation: z.string() }),
);
const specs = z.array(compactionSpec);

/** The statuses a merge can end with; all three are success of the job (DESIGN §8). */
export const runOutcome = z.looseObject({ status: z.enum(["done", "superseded", "cancelled"]) });
export type RunOutcome = z.infer<typeof runOutcome>;

const gcOutcome = z.looseObject({});
export type GcOutcome = z.infer<typeof gcOutcome>;

const progress = z.object({
  rowsDone: z.coerce.number().optional(),
  rowsTotal: z.coerce.number().optional(),
  bytesWritten: z.coerce.number().optional(),
  phase: z.string().optional(),
});

export async function readCollections(lake: CoreLake): Promise<CollectionEntry[]> {
  const text = await lake.describe({ what: "collections" });
  if (typeof text !== "string") throw new VexError("INTERNAL", "the core described its collections as bytes");
  return parseCore("describe collections", collections, text).map((entry) => ({
    ...entry,
    db: String(entry.db),
  }));
}

export async function readPlan(lake: CoreLake, incarnation: string): Promise<CompactionSpec[]> {
  return parseCore("plan", specs, await lake.plan(incarnation));
}

export function parseOutcome(text: string): RunOutcome {
  return parseCore("run", runOutcome, text);
}

export function parseGc(text: string): GcOutcome {
  return parseCore("gc", gcOutcome, text);
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
