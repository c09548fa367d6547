/**
 * The subcommands of `vexlake`: what each is called, says of itself, and takes.
 *
 * Every subcommand is a file under commands/ that exports `run(args): Promise<exit code>`; it is loaded
 * when it is asked for, so that `vexlake search` does not pay for Kafka's client. An option that a
 * subcommand does not take is a usage error: nothing is accepted and ignored.
 */
import { ConfigError } from "../common/process/error.ts";
import type { Arguments } from "./args.ts";

export interface Command {
  run(args: Arguments): Promise<number>;
}

export interface Entry {
  word: string;
  help: string;
  /** Options beside the common ones; where the first positional is an action, those of each. */
  takes: readonly string[] | Readonly<Record<string, readonly string[]>>;
  load: () => Promise<Command>;
}

/** What every subcommand takes: where the lake and the log lie, and how to answer. */
export const COMMON: readonly string[] = ["config", "data-dir", "s3", "log", "kafka", "json", "help"];

export const COMMANDS: readonly Entry[] = [
  {
    word: "up",
    help: "everything in one process",
    takes: ["redis", "port", "http-port"],
    load: () => import("./commands/up.ts"),
  },
  {
    word: "ingest",
    help: "the ingest service alone",
    takes: [],
    load: () => import("./commands/ingest.ts"),
  },
  {
    word: "query",
    help: "the query service alone",
    takes: ["port", "http-port"],
    load: () => import("./commands/query.ts"),
  },
  {
    word: "compactor",
    help: "the compactor alone",
    takes: ["redis"],
    load: () => import("./commands/compactor.ts"),
  },
  {
    word: "doctor",
    help: "this machine, this build, the configured store and log",
    takes: [],
    load: () => import("./commands/doctor.ts"),
  },
  {
    word: "collection",
    help: "create <name> --dim <n> | list | drop <name>",
    takes: {
      create: ["db", "dim", "metric", "partitions", "format", "from", "http-port"],
      list: [],
      drop: ["db"],
    },
    load: () => import("./commands/collection.ts"),
  },
  {
    word: "source",
    help: "list [<collection>] | accept | switch",
    takes: { list: [], accept: ["db", "partition", "http-port"], switch: ["db", "topic", "from"] },
    load: () => import("./commands/source.ts"),
  },
  {
    word: "search",
    help: "<collection> <text or [vector]>",
    takes: ["db", "count", "port", "http-port"],
    load: () => import("./commands/search.ts"),
  },
  {
    word: "files",
    help: "<collection> --format list|json|duckdb",
    takes: ["db", "format"],
    load: () => import("./commands/files.ts"),
  },
  {
    word: "lsm",
    help: "<collection>: segments and commits",
    takes: ["db", "limit"],
    load: () => import("./commands/lsm.ts"),
  },
  {
    word: "verify",
    help: "[<collection>…]: recount the ledger against the log",
    takes: ["db", "http-port"],
    load: () => import("./commands/verify.ts"),
  },
  {
    word: "flush",
    help: "<collection>: flush now (asks the running ingest)",
    takes: ["db", "http-port"],
    load: () => import("./commands/flush.ts"),
  },
  {
    word: "compact",
    help: "<collection>: run the merges that are due",
    takes: ["db", "dry-run"],
    load: () => import("./commands/compact.ts"),
  },
  {
    word: "gc",
    help: "[<collection>] [--grace-ms <n>] [--dry-run]",
    takes: ["db", "grace-ms", "dry-run"],
    load: () => import("./commands/gc.ts"),
  },
  {
    word: "replay",
    help: "start <collection> --from earliest|<time>|<p:offset,…> | list | retire",
    takes: { start: ["db", "from", "http-port", "without-epoch"], list: ["db"], retire: ["db"] },
    load: () => import("./commands/replay.ts"),
  },
  {
    word: "promote",
    help: "<collection> [<incarnation>] [--without-epoch <n,…>]",
    takes: ["db", "without-epoch"],
    load: () => import("./commands/promote.ts"),
  },
  {
    word: "rollback",
    help: "<collection> [--without-epoch <n,…>]",
    takes: ["db", "without-epoch"],
    load: () => import("./commands/rollback.ts"),
  },
  {
    word: "dlq",
    help: "list <collection> | replay <collection>",
    takes: { list: ["db", "limit"], replay: ["db", "limit"] },
    load: () => import("./commands/dlq.ts"),
  },
  {
    word: "bench",
    help: "-n <requests> -c <clients>: drives a running server",
    takes: ["db", "clients", "requests", "count", "port", "http-port"],
    load: () => import("./commands/bench.ts"),
  },
];

/** Refuses an option that the subcommand, or its action, does not take. */
export function checkOptions({ word, takes }: Entry, { flags, positionals }: Arguments): void {
  const [action = ""] = positionals;
  const byAction = !Array.isArray(takes);
  const taken = byAction
    ? (takes as Record<string, readonly string[]>)[action]
    : (takes as readonly string[]);
  // An action that is missing or unknown is the subcommand's to explain.
  if (taken === undefined) return;
  const refused = Object.keys(flags).find((flag) => !taken.includes(flag) && !COMMON.includes(flag));
  if (refused === undefined) return;
  throw new ConfigError(`${byAction ? `${word} ${action}` : word} does not take --${refused}`);
}
