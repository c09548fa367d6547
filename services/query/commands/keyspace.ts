/**
 * Commands on collections as keys: EXISTS TYPE KEYS SCAN DEL. A key is a collection; nothing else is stored.
 */
import type { CollectionView } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Arguments } from "./arguments.ts";
import type { Call, Command, Reply } from "./command.ts";
import { replyBulks, replyInteger } from "./command.ts";
import { matchGlob } from "./glob.ts";
import { findCollection } from "./key.ts";

export const keyspaceCommands: Record<string, Command> = {
  exists: { kind: "read", run: exists },
  type: { kind: "read", run: type },
  keys: { kind: "read", run: keys },
  scan: { kind: "read", run: scan },
  del: { kind: "plain", run: del },
};

async function exists(call: Call): Promise<Reply> {
  let found = 0;
  for (let i = 1; i < call.args.count; i += 1) {
    if ((await findCollection(call, call.args.bytes(i))) !== undefined) found += 1;
  }
  return replyInteger(found);
}

async function type(call: Call): Promise<Reply> {
  const view = await findCollection(call, call.args.bytes(1));
  return (out) => out.simple(view === undefined ? "none" : "vectorset");
}

function keys({ args, session, context }: Call): Reply {
  return replyBulks(names(context.collections.all(session.db), args.bytes(1)));
}

/**
 * One call answers every name: collections are counted in hundreds, and a cursor would need a fixed order.
 */
function scan({ args, session, context }: Call): Reply {
  if (args.integer(1) === undefined) throw new ReplyError("ERR", "invalid cursor");
  let pattern: Buffer | undefined;
  let wanted = true;
  for (let i = 2; i < args.count; i += 2) {
    const option = args.word(i);
    if (i + 1 >= args.count) throw new ReplyError("ERR", "syntax error");
    if (option === "MATCH") pattern = args.bytes(i + 1);
    else if (option === "TYPE") wanted = args.word(i + 1) === "VECTORSET";
    else if (option === "COUNT") checkCount(args, i + 1);
    else throw new ReplyError("ERR", "syntax error");
  }
  // Any other cursor than 0 continues a scan that has already answered everything.
  const first = args.integer(1) === 0;
  const found = wanted && first ? names(context.collections.all(session.db), pattern) : [];
  return (out) => {
    out.array(2);
    out.bulk("0");
    replyBulks(found)(out);
  };
}

function checkCount(args: Arguments, index: number): void {
  const count = args.integer(index);
  if (count === undefined) throw new ReplyError("ERR", "value is not an integer or out of range");
  if (count < 1) throw new ReplyError("ERR", "syntax error");
}

async function del(call: Call): Promise<Reply> {
  let dropped = 0;
  for (let i = 1; i < call.args.count; i += 1) {
    const view = await findCollection(call, call.args.bytes(i));
    if (view === undefined) continue;
    await call.context.collections.drop(view);
    dropped += 1;
  }
  return replyInteger(dropped);
}

function names(views: CollectionView[], pattern: Buffer | undefined): string[] {
  const all = views.map((view) => view.name).sort();
  return pattern === undefined ? all : all.filter((name) => matchGlob(pattern, Buffer.from(name)));
}
