/**
 * The subcommands of `vexlake`: what each is called, says of itself, and takes.
 *
 * Every subcommand is a file under commands/ that exports `run(args): Promise<exit code>`; it is loaded
 * when it is asked for, so that `vexlake search` does not pay for Kafka's client. An option or a word that
 * a subcommand does not take is a usage error: nothing is accepted and ignored.
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
  /** Most words beside the options; where the first is an action, after it, those of each. */
  words: number | Readonly<Record<string, number>>;
  load: () => Promise<Command>;
}

/** What every subcommand takes: where the lake and the log lie, and how to answer. */
export const COMMON: readonly string[] = ["config", "data-dir", "s3", "log", "kafka", "json", "help"];

export const COMMANDS: readonly Entry[] = [
  {
    word: "up",
    help: "everything in one process",
    takes: ["redis", "port", "http-port"],
    words: 0,
    load: () => import("./commands/up.ts"),
  },
  {
    word: "ingest",
    help: "the ingest service alone",
    takes: [],
    words: 0,
    load: () => import("./commands/ingest.ts"),
  },
  {
    word: "query",
    help: "the query service alone",
    takes: ["port", "http-port"],
    words: 0,
    load: () => import("./commands/query.ts"),
  },
  {
    word: "compactor",
    help: "the compactor alone",
    takes: ["redis"],
    words: 0,
    load: () => import("./commands/compactor.ts"),
  },
  {
    word: "doctor",
    help: "this machine, this build, the configured store and log",
    takes: [],
    words: 0,
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
    words: { create: 1, list: 0, drop: 1 },
    load: () => import("./commands/collection.ts"),
  },
  {
    word: "source",
    help: "list [<collection>] | accept | switch",
    takes: { list: [], accept: ["db", "partition", "http-port"], switch: ["db", "topic", "from"] },
    words: { list: 1, accept: 1, switch: 1 },
    load: () => import("./commands/source.ts"),
  },
  {
    word: "search",
    help: "<collection> <text or [vector]>",
    takes: ["db", "count", "filter", "port"],
    words: 2,
    load: () => import("./commands/search.ts"),
  },
  {
    word: "explain",
    help: "<collection> <text or [vector]>: what that search takes",
    takes: ["db", "count", "filter", "ef", "truth", "port"],
    words: 2,
    load: () => import("./commands/explain.ts"),
  },
  {
    word: "files",
    help: "<collection> --format list|json|duckdb",
    takes: ["db", "format"],
    words: 1,
    load: () => import("./commands/files.ts"),
  },
  {
    word: "lsm",
    help: "<collection>: segments and commits",
    takes: ["db", "limit"],
    words: 1,
    load: () => import("./commands/lsm.ts"),
  },
  {
    word: "verify",
    help: "[<collection>…]: recount the ledger against the log",
    takes: ["db", "http-port"],
    words: Number.POSITIVE_INFINITY,
    load: () => import("./commands/verify.ts"),
  },
  {
    word: "flush",
    help: "<collection>: flush now (asks the running ingest)",
    takes: ["db", "http-port"],
    words: 1,
    load: () => import("./commands/flush.ts"),
  },
  {
    word: "compact",
    help: "<collection>: run the merges that are due",
    takes: ["db", "dry-run"],
    words: 1,
    load: () => import("./commands/compact.ts"),
  },
  {
    word: "gc",
    help: "[<collection>] [--grace-ms <n>] [--orphans] [--dry-run]",
    takes: ["db", "grace-ms", "orphans", "dry-run"],
    words: 1,
    load: () => import("./commands/gc.ts"),
  },
  {
    word: "replay",
    help: "start <collection> --from earliest|<time>|<p:offset,…> | list | retire",
    takes: { start: ["db", "from", "http-port", "without-epoch"], list: ["db"], retire: ["db"] },
    words: { start: 1, list: 1, retire: 2 },
    load: () => import("./commands/replay.ts"),
  },
  {
    word: "promote",
    help: "<collection> [<incarnation>] [--without-epoch <n,…>]",
    takes: ["db", "without-epoch"],
    words: 2,
    load: () => import("./commands/promote.ts"),
  },
  {
    word: "rollback",
    help: "<collection> [--without-epoch <n,…>]",
    takes: ["db", "without-epoch"],
    words: 1,
    load: () => import("./commands/rollback.ts"),
  },
  {
    word: "dlq",
    help: "list <collection> | replay <collection>",
    takes: { list: ["db", "limit"], replay: ["db", "limit"] },
    words: { list: 1, replay: 1 },
    load: () => import("./commands/dlq.ts"),
  },
  {
    word: "bench",
    help: "-n <requests> -c <clients>: drives a running server",
    takes: ["db", "clients", "requests", "count", "port"],
    words: 1,
    load: () => import("./commands/bench.ts"),
  },
];

/** Refuses an option or a word that the subcommand, or its action, does not take. */
export function checkArguments({ word, takes, words }: Entry, { flags, positionals }: Arguments): void {
  const [action = ""] = positionals;
  const byAction = typeof words !== "number";
  const taken = byAction ? (takes as Readonly<Record<string, readonly string[]>>)[action] : takes;
  const most = byAction ? words[action] : words;
  // An action that is missing or unknown is the subcommand's to explain.
  if (!Array.isArray(taken) || most === undefined) return;
  const what = byAction ? `${word} ${action}` : word;
  const refused = Object.keys(flags).find((flag) => !taken.includes(flag) && !COMMON.includes(flag));
  if (refused !== undefined) throw new ConfigError(`${what} does not take --${refused}`);
  const surplus = positionals[most + (byAction ? 1 : 0)];
  if (surplus === undefined) return;
  const allowed = most === 0 ? "no words" : most === 1 ? "one word" : `${most} words`;
  throw new ConfigError(
    `${what} takes ${allowed}, ${JSON.stringify(surplus)} is too many (text goes in quotes)`,
  );
}
