/** lsm: the segments of a collection and its newest commits, read from the core's Arrow tables. */
import type { Lake } from "@vexlake/core";
import { tableFromIPC } from "apache-arrow";
import { findCollection } from "../../common/catalog.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { byteText, columns, print, printJson, timeText } from "../output.ts";

const COMMITS_SHOWN = 10;

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const limit = whole(args, "limit", 1, 1_000) ?? COMMITS_SHOWN;
  const context = await openContext(args, "cli");
  const { lake, close } = await openLake(context, "cli");
  try {
    const { live } = await findCollection(lake, whole(args, "db", 0, 15) ?? 0, name);
    const { incarnation } = live;
    const segments = await rowsOf(lake, { what: "segments", incarnation });
    const commits = await rowsOf(lake, { what: "commits", incarnation, limit });
    if (context.json) {
      printJson({ incarnation, version: live.version, segments, commits });
      return EXIT.ok;
    }
    print(
      `${name} is incarnation ${incarnation}, version ${live.version}, ${live.committedRecords} records\n`,
    );
    const segmentRows = segments.map((row) => [
      row.id as string,
      row.rows as bigint,
      row.deletes as bigint,
      row.shadowed as bigint,
      byteText(Number(row.bytes)),
      timeText(Number(row.created_ms)),
    ]);
    print(columns(["segment", "rows", "deletes", "shadowed", "bytes", "created"], segmentRows));
    print("");
    const commitRows = commits.map((row) => [
      row.version as bigint,
      timeText(Number(row.when_ms)),
      row.role as string,
      row.kind as string,
      row.summary as string,
    ]);
    print(columns(["version", "when", "role", "kind", "what"], commitRows));
    return EXIT.ok;
  } finally {
    await close();
  }
}

async function rowsOf(lake: Lake, what: Parameters<Lake["describe"]>[0]): Promise<Record<string, unknown>[]> {
  const bytes = await lake.describe(what);
  return tableFromIPC(bytes as Uint8Array)
    .toArray()
    .map((row) => row.toJSON() as Record<string, unknown>);
}
