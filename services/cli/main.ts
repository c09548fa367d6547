/**
 * The `vexlake` command: finds the subcommand, runs it, turns its end into an exit code.
 *
 * Every subcommand is a file under commands/ that exports `run(args): Promise<exit code>`; it is loaded
 * when it is asked for, so that `vexlake search` does not pay for Kafka's client.
 */
import { vexErrorFrom } from "../common/process/error.ts";
import { EXIT } from "../common/process/exit.ts";
import { type Arguments, OPTIONS, parseArguments } from "./args.ts";

interface Command {
  run(args: Arguments): Promise<number>;
}

interface Entry {
  words: string;
  help: string;
  load: () => Promise<Command>;
}

const COMMANDS: Entry[] = [
  { words: "up", help: "everything in one process", load: () => import("./commands/up.ts") },
  { words: "ingest", help: "the ingest service alone", load: () => import("./commands/ingest.ts") },
  { words: "query", help: "the query service alone", load: () => import("./commands/query.ts") },
  { words: "compactor", help: "the compactor alone", load: () => import("./commands/compactor.ts") },
  { words: "doctor", help: "this machine, this build, the configured store and log", load: () => import("./commands/doctor.ts") },
  { words: "collection", help: "create <name> --dim <n> | list | drop <name>", load: () => import("./commands/collection.ts") },
  { words: "source", help: "list [<collection>] | accept | switch", load: () => import("./commands/source.ts") },
  { words: "search", help: "<collection> <text or [vector]>", load: () => import("./commands/search.ts") },
  { words: "files", help: "<collection> --format list|json|duckdb", load: () => import("./commands/files.ts") },
  { words: "lsm", help: "<collection>: segments and commits", load: () => import("./commands/lsm.ts") },
  { words: "verify", help: "[<collection>…]: recount the ledger against the log", load: () => import("./commands/verify.ts") },
  { words: "flush", help: "<collection>: flush now (asks the running ingest)", load: () => import("./commands/flush.ts") },
  { words: "compact", help: "<collection>: run the merges that are due", load: () => import("./commands/compact.ts") },
  { words: "gc", help: "[<collection>] [--grace-ms <n>] [--dry-run]", load: () => import("./commands/gc.ts") },
  { words: "replay", help: "start <collection> --from earliest|<time>|<p:offset,…> | list | retire", load: () => import("./commands/replay.ts") },
  { words: "promote", help: "<collection> [<incarnation>]", load: () => import("./commands/promote.ts") },
  { words: "rollback", help: "<collection>", load: () => import("./commands/rollback.ts") },
  { words: "dlq", help: "list <collection> | replay <collection>", load: () => import("./commands/dlq.ts") },
  { words: "bench", help: "-n <requests> -c <clients>: drives a running server", load: () => import("./commands/bench.ts") },
];

function usage(): string {
  const width = Math.max(...COMMANDS.map(({ words }) => words.length));
  const commands = COMMANDS.map(({ words, help }) => `  ${words.padEnd(width)}  ${help}`);
  const options = OPTIONS.map(({ flag, value, help }) => `  ${`--${flag}${value ? ` ${value}` : ""}`.padEnd(26)}  ${help}`);
  return ["usage: vexlake <command> [options]", "", ...commands, "", ...options, ""].join("\n");
}

async function main(argv: string[]): Promise<number> {
  const [word, ...rest] = argv;
  if (word === undefined || word === "help" || word === "--help") {
    process.stdout.write(usage());
    return word === undefined ? EXIT.usage : EXIT.ok;
  }
  const entry = COMMANDS.find(({ words }) => words === word);
  if (!entry) {
    process.stderr.write(`vexlake: there is no command ${JSON.stringify(word)}\n\n${usage()}`);
    return EXIT.usage;
  }
  const args = parseArguments(rest);
  if (args.flags.help) {
    process.stdout.write(`vexlake ${entry.words}: ${entry.help}\n`);
    return EXIT.ok;
  }
  return await (await entry.load()).run(args);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (thrown) {
  const error = vexErrorFrom(thrown);
  process.stderr.write(`vexlake: ${error.code}: ${error.message}\n`);
  if (error.code === "INTERNAL" && error.cause instanceof Error) process.stderr.write(`${error.cause.stack}\n`);
  process.exitCode = error.exitCode;
}
