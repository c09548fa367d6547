/**
 * From the first word of a request to the command that runs it.
 *
 * schemas/resp-commands.json says which commands there are, how many arguments they take and what may be sent
 * when; the files of this folder say what they do. A test holds both to the same set of names.
 */
import { ReplyError, wrongArity } from "../errors.ts";
import type { Call, Command } from "./command.ts";
import { connectionCommands } from "./connection.ts";
import { explainCommands } from "./explain.ts";
import { keyspaceCommands } from "./keyspace.ts";
import { lakeCommands } from "./lake.ts";
import { seedCommands } from "./seed.ts";
import { serverCommands } from "./server.ts";
import { type CommandRow, commandTable } from "./table.ts";
import { vectorReadCommands } from "./vector-read.ts";
import { vectorWriteCommands } from "./vector-write.ts";
import { vsimCommands } from "./vsim.ts";

/** As much of an unknown command and of its arguments as Redis repeats in its error. */
const ECHO_CHARACTERS_MAX = 128;

export const implementations: ReadonlyMap<string, Command> = new Map(
  Object.entries({
    ...connectionCommands,
    ...serverCommands,
    ...keyspaceCommands,
    ...seedCommands,
    ...vectorWriteCommands,
    ...vectorReadCommands,
    ...vsimCommands,
    ...lakeCommands,
    ...explainCommands,
  }),
);

interface Entry {
  name: string;
  row: CommandRow;
  command: Command;
}

const ENTRIES = new Map<string, Entry>();
for (const row of commandTable) {
  const command = implementations.get(row.name);
  if (command !== undefined) ENTRIES.set(row.name, { name: row.name, row, command });
}

export type Resolved = { name: string; command: Command } | "not-redis";

/** The command of a request; a request that may not be run resolves to a command that answers why. */
export function resolve(call: Call): Resolved {
  const { args, session, context } = call;
  const word = args.bytes(0).toString("latin1").toLowerCase();
  const entry = ENTRIES.get(word);
  if (entry === undefined) {
    // A browser tricked into talking to this port: as Redis, end it before its body is taken for commands.
    if (word === "post" || word === "host:") return "not-redis";
    return refuse("unknown", session.authenticated ? unknownCommand(call) : noAuth());
  }
  const { name, row } = entry;
  if (row.arity >= 0 ? args.count !== row.arity : args.count < -row.arity)
    return refuse(name, wrongArity(name));
  if (!session.authenticated && !row.flags.includes("no_auth")) return refuse(name, noAuth());
  if (!context.collections.opened && !row.flags.includes("loading")) {
    return refuse(name, new ReplyError("LOADING", "VexLake is opening the lake"));
  }
  return entry;
}

function refuse(name: string, error: ReplyError): Resolved {
  return {
    name,
    command: {
      kind: "plain",
      run() {
        throw error;
      },
    },
  };
}

function noAuth(): ReplyError {
  return new ReplyError("NOAUTH", "Authentication required.");
}

function unknownCommand({ args }: Call): ReplyError {
  let rest = "";
  for (let i = 1; i < args.count && rest.length < ECHO_CHARACTERS_MAX; i += 1) {
    rest += `'${args.bytes(i).toString("latin1", 0, ECHO_CHARACTERS_MAX - rest.length)}' `;
  }
  const name = args.bytes(0).toString("latin1", 0, ECHO_CHARACTERS_MAX);
  return new ReplyError("ERR", `unknown command '${name}', with args beginning with: ${rest}`);
}
