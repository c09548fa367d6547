/** The newest commits of an incarnation, read from the Arrow table that the core answers. */
import { VexError } from "../common/process/error.ts";
import type { QueryCore } from "./core.ts";

export interface CommitRow {
  version: string;
  whenMs: number;
  role: string;
  instance: string;
  kind: string;
  summary: string;
}

/** Most commits of one answer: two base intervals and more. */
export const COMMITS_MAX = 200;

export async function readCommits(
  core: Pick<QueryCore, "describe">,
  incarnation: string,
  limit: number,
): Promise<CommitRow[]> {
  const bytes = await core.describe({ what: "commits", incarnation, limit });
  if (typeof bytes === "string") throw new VexError("INTERNAL", "the core described commits as text");
  // Loaded with the first question: Arrow costs a start of the service some 100 ms otherwise.
  const { tableFromIPC } = await import("apache-arrow");
  const table = tableFromIPC(bytes);
  return table.toArray().map((row) => ({
    version: String(row.version),
    whenMs: Number(row.when_ms),
    role: String(row.role),
    instance: String(row.instance),
    kind: String(row.kind),
    summary: String(row.summary),
  }));
}
