/**
 * The options of every subcommand, parsed once. An unknown option is a usage error; so is one that the
 * subcommand at hand does not take (registry.ts).
 */
import { parseArgs } from "node:util";
import { ConfigError } from "../common/process/error.ts";

interface Option {
  flag: string;
  /** Absent: a switch. */
  value?: string;
  help: string;
  /** The configuration key that the flag sets. */
  key?: string;
}

export const OPTIONS: Option[] = [
  { flag: "config", value: "<file>", help: "vexlake.yaml" },
  { flag: "data-dir", value: "<path>", help: "where everything local lies (default ./.vexlake)" },
  { flag: "s3", value: "<url>", help: "the lake at s3://bucket/prefix", key: "store.url" },
  { flag: "log", value: "<kafka|local>", help: "which log", key: "log.kind" },
  { flag: "kafka", value: "<brokers>", help: "host:port,host:port; implies --log kafka", key: "log.brokers" },
  { flag: "redis", value: "<url>", help: "jobs on this Redis", key: "jobs.redis" },
  { flag: "port", value: "<n>", help: "RESP port" },
  { flag: "http-port", value: "<n>", help: "HTTP port" },
  { flag: "db", value: "<n>", help: "namespace of the collection (default 0)" },
  { flag: "json", help: "answer JSON" },
  { flag: "dim", value: "<n>", help: "collection create: components of a vector" },
  { flag: "metric", value: "<name>", help: "collection create: cosine, l2, ip, l1" },
  { flag: "partitions", value: "<n>", help: "collection create: partitions of its topic" },
  {
    flag: "format",
    value: "<name>",
    help: "collection create: f32, protobuf, json; files: list, json, duckdb",
  },
  { flag: "from", value: "<where>", help: "collection create, replay: earliest, latest, a time, p:offset,…" },
  { flag: "count", value: "<n>", help: "search, explain, bench: results" },
  { flag: "filter", value: "<expression>", help: "search, explain: what attributes must satisfy" },
  { flag: "ef", value: "<n>", help: "explain: effort (default 100)" },
  { flag: "truth", help: "explain: compare every row" },
  { flag: "topic", value: "<name>", help: "source switch: the topic to go on with" },
  {
    flag: "without-epoch",
    value: "<n,…>",
    help: "replay start, promote, rollback: give up what only these epochs of the live incarnation hold",
  },
  { flag: "partition", value: "<n>", help: "source accept: the partition" },
  {
    flag: "grace-ms",
    value: "<n>",
    help: "gc: how long a replaced version stays readable, and an orphan is left alone",
  },
  { flag: "orphans", help: "gc: also incarnations that no name leads to" },
  { flag: "dry-run", help: "gc, compact: say what would be done" },
  { flag: "limit", value: "<n>", help: "lsm, dlq: rows shown" },
  { flag: "clients", value: "<n>", help: "bench: connections (-c)" },
  { flag: "requests", value: "<n>", help: "bench: requests (-n)" },
  { flag: "help", help: "this text" },
];

export interface Arguments {
  positionals: string[];
  flags: Record<string, string | boolean | undefined>;
  /** Flags that set configuration keys, as loadConfig takes them. */
  config: Record<string, string>;
}

export function parseArguments(argv: string[]): Arguments {
  const options = Object.fromEntries(
    OPTIONS.map(({ flag, value }) => [flag, { type: value ? ("string" as const) : ("boolean" as const) }]),
  );
  const short = { c: "clients", n: "requests" };
  const long = argv.map((word) => (word in { "-c": 1, "-n": 1 } ? `--${short[word[1] as "c" | "n"]}` : word));
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({ args: long, options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new ConfigError((error as Error).message.split(". To specify")[0] as string);
  }
  const flags = parsed.values as Arguments["flags"];
  const config: Record<string, string> = {};
  for (const { flag, key } of OPTIONS) {
    if (key !== undefined && typeof flags[flag] === "string") config[key] = flags[flag];
  }
  if (flags.kafka !== undefined) {
    if (flags.log === "local") throw new ConfigError("--kafka and --log local contradict each other");
    config["log.kind"] = "kafka";
  }
  return { positionals: parsed.positionals as string[], flags, config };
}

/** A flag as text. */
export function text(args: Arguments, flag: string): string | undefined {
  const value = args.flags[flag];
  return typeof value === "string" ? value : undefined;
}

/** A flag as a whole number in a range. */
export function whole(args: Arguments, flag: string, min: number, max: number): number | undefined {
  const value = text(args, flag);
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < min || number > max) {
    throw new ConfigError(`--${flag} is a whole number from ${min} to ${max}, not ${JSON.stringify(value)}`);
  }
  return number;
}

/** A flag as a list of whole numbers; none = empty. */
export function numbers(args: Arguments, flag: string): number[] {
  const value = text(args, flag);
  if (value === undefined) return [];
  if (!/^\d+(,\d+)*$/.test(value)) {
    throw new ConfigError(`--${flag} is a list of whole numbers, not ${JSON.stringify(value)}`);
  }
  return value.split(",").map(Number);
}

/** The positional at `index`; a usage error names what is missing. */
export function positional(args: Arguments, index: number, name: string): string {
  const value = args.positionals[index];
  if (value === undefined) throw new ConfigError(`<${name}> is missing`);
  return value;
}
