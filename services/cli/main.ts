/** The `vexlake` command: finds the subcommand, runs it, turns its end into an exit code. */
import { vexErrorFrom } from "../common/process/error.ts";
import { EXIT } from "../common/process/exit.ts";
import { OPTIONS, parseArguments } from "./args.ts";
import { COMMANDS, checkArguments } from "./registry.ts";

function usage(): string {
  const width = Math.max(...COMMANDS.map(({ word }) => word.length));
  const commands = COMMANDS.map(({ word, help }) => `  ${word.padEnd(width)}  ${help}`);
  const options = OPTIONS.map(
    ({ flag, value, help }) => `  ${`--${flag}${value ? ` ${value}` : ""}`.padEnd(26)}  ${help}`,
  );
  return ["usage: vexlake <command> [options]", "", ...commands, "", ...options, ""].join("\n");
}

async function main(argv: string[]): Promise<number> {
  const [word, ...rest] = argv;
  if (word === undefined || word === "help" || word === "--help") {
    process.stdout.write(usage());
    return word === undefined ? EXIT.usage : EXIT.ok;
  }
  const entry = COMMANDS.find((each) => each.word === word);
  if (!entry) {
    process.stderr.write(`vexlake: there is no command ${JSON.stringify(word)}\n\n${usage()}`);
    return EXIT.usage;
  }
  const args = parseArguments(rest);
  if (args.flags.help) {
    process.stdout.write(`vexlake ${entry.word}: ${entry.help}\n`);
    return EXIT.ok;
  }
  checkArguments(entry, args);
  return await (await entry.load()).run(args);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (thrown) {
  const error = vexErrorFrom(thrown);
  process.stderr.write(`vexlake: ${error.code}: ${error.message}\n`);
  if (error.code === "INTERNAL" && error.cause instanceof Error)
    process.stderr.write(`${error.cause.stack}\n`);
  process.exitCode = error.exitCode;
}
