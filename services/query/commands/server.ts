/** Commands about this server: INFO STATS COMMAND CONFIG DBSIZE TIME. */
import { ReplyError, wrongArity } from "../errors.ts";
import type { Encoder } from "../resp/encoder.ts";
import type { Call, Command, Reply } from "./command.ts";
import { replyBulks, replyInteger } from "./command.ts";
import { matchGlob } from "./glob.ts";
import { describeServer, tallies } from "./server-info.ts";
import { type CommandRow, commandRows, commandTable } from "./table.ts";

export const serverCommands: Record<string, Command> = {
  info: { kind: "plain", run: info },
  stats: { kind: "plain", run: stats },
  command: { kind: "plain", run: command },
  config: { kind: "plain", run: config },
  dbsize: {
    kind: "read",
    run: ({ session, context }) => replyInteger(context.collections.all(session.db).length),
  },
  time: { kind: "plain", run: time },
};

function info({ args, context }: Call): Reply {
  const wanted = new Set<string>();
  for (let i = 1; i < args.count; i += 1) wanted.add(args.text(i).toLowerCase());
  return (out) => out.verbatim(describeServer(context, wanted));
}

function stats({ context }: Call): Reply {
  const entries = tallies(context);
  return (out) => {
    out.map(entries.length);
    for (const [name, value] of entries) {
      out.bulk(name);
      out.integer(value);
    }
  };
}

function time({ context }: Call): Reply {
  const now = context.clock();
  const seconds = Math.floor(now / 1000);
  return replyBulks([String(seconds), String((now - seconds * 1000) * 1000)]);
}

/** Redis answers settings as a map; redis-benchmark asks for save and appendonly. */
function config({ args, context }: Call): Reply {
  const sub = args.word(1);
  if (sub !== "GET") {
    throw new ReplyError(
      "ERR",
      `CONFIG ${sub} is refused: settings come from vexlake.yaml, flags and the environment`,
    );
  }
  if (args.count < 3) throw wrongArity("config|get");
  const found = new Map<string, string>();
  for (let i = 2; i < args.count; i += 1) {
    const pattern = Buffer.from(args.text(i).toLowerCase());
    for (const [name, value] of context.settings) {
      if (matchGlob(pattern, Buffer.from(name))) found.set(name, value);
    }
  }
  return (out) => {
    out.map(found.size);
    for (const [name, value] of found) {
      out.bulk(name);
      out.bulk(value);
    }
  };
}

function command({ args }: Call): Reply {
  if (args.count === 1) return (out) => writeRows(out, commandTable);
  const sub = args.word(1);
  const names = Array.from({ length: args.count - 2 }, (_, i) => args.text(i + 2).toLowerCase());
  switch (sub) {
    case "COUNT":
      if (names.length > 0) throw wrongArity("command|count");
      return replyInteger(commandTable.length);
    case "LIST":
      if (names.length > 0) throw new ReplyError("ERR", "COMMAND LIST has no filters here");
      return replyBulks(commandTable.map((row) => row.name));
    case "INFO":
      return (out) =>
        writeRows(out, names.length === 0 ? commandTable : names.map((name) => commandRows.get(name)));
    case "DOCS": {
      const rows = names.length === 0 ? commandTable : names.flatMap((name) => commandRows.get(name) ?? []);
      return (out) => writeDocs(out, rows);
    }
    default:
      throw new ReplyError(
        "ERR",
        `unknown subcommand '${args.text(1)}'. Try COMMAND COUNT, LIST, INFO or DOCS.`,
      );
  }
}

/** Redis 7's ten fields; what it knows of key specifications and subcommands is left empty here. */
function writeRows(out: Encoder, rows: readonly (CommandRow | undefined)[]): void {
  out.array(rows.length);
  for (const row of rows) {
    if (row === undefined) {
      out.nilArray();
      continue;
    }
    out.array(10);
    out.bulk(row.name);
    out.integer(row.arity);
    out.set(row.flags.length);
    for (const flag of row.flags) out.simple(flag);
    for (const position of row.keys) out.integer(position);
    out.set(1);
    out.simple(`@${row.group}`);
    out.array(0);
    out.array(0);
    out.array(0);
  }
}

function writeDocs(out: Encoder, rows: readonly CommandRow[]): void {
  out.map(rows.length);
  for (const row of rows) {
    const notes = [
      ...row.options.map(({ token, status, note }) => `${token} (${status}): ${note}`),
      ...row.notes,
    ];
    out.bulk(row.name);
    out.map(notes.length === 0 ? 5 : 6);
    for (const field of ["summary", "since", "group", "complexity", "syntax"] as const) {
      out.bulk(field);
      out.bulk(row[field]);
    }
    if (notes.length === 0) continue;
    out.bulk("notes");
    out.array(notes.length);
    for (const note of notes) out.bulk(note);
  }
}
