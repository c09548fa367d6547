/**
 * files: the live files of a collection, for scripts and other engines.
 *
 * `duckdb` prints a query that returns exactly the live records, each once: per key the newest position,
 * deletes left out. It rests on the Parquet columns alone, not on our shadow bitmaps.
 */
import { findCollection } from "../../common/catalog.ts";
import { ConfigError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, text, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { print, printJson } from "../output.ts";

interface Files {
  version: number;
  data: string[];
  deletes: string[];
  duckdb: string;
}

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const format = text(args, "format") ?? (args.flags.json === true ? "json" : "list");
  if (!["list", "json", "duckdb"].includes(format)) {
    throw new ConfigError(`--format is one of list, json, duckdb, not ${JSON.stringify(format)}`);
  }
  const context = await openContext(args, "cli");
  const { lake, close } = await openLake(context, "cli");
  try {
    const { live } = await findCollection(lake, whole(args, "db", 0, 15) ?? 0, name);
    const answer = await lake.describe({ what: "files", incarnation: live.incarnation });
    const files = JSON.parse(answer as string) as Files;
    if (format === "json") printJson(files);
    else if (format === "duckdb") print(files.duckdb);
    else for (const file of [...files.data, ...files.deletes]) print(file);
    return EXIT.ok;
  } finally {
    await close();
  }
}
