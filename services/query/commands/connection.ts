/**
 * Commands about the connection itself. They work before the lake is open, some before a client has
 * authenticated.
 */
import { samePassword } from "../../common/process/admission.ts";
import { DATABASES } from "../collections.ts";
import { ReplyError, wrongArity } from "../errors.ts";
import type { Session } from "../resp/session.ts";
import type { Call, Command, Reply } from "./command.ts";
import { replyBulk, replyBulks, replyInteger, replyNil, replyOk } from "./command.ts";

/** Printable, without blanks: what Redis takes for names that CLIENT LIST shows. */
const NAME = /^[!-~]*$/;
/** What CLIENT LIST TYPE takes. */
const CLIENT_TYPES = ["NORMAL", "MASTER", "REPLICA", "SLAVE", "PUBSUB"];
const CLIENT_HELP = [
  "CLIENT <subcommand> [<arg> [value] ...]. Subcommands are:",
  "GETNAME | SETNAME <name> | SETINFO LIB-NAME|LIB-VER <value> | ID | INFO | LIST [TYPE NORMAL | ID <id> ...]",
  "NO-EVICT (ON|OFF) | NO-TOUCH (ON|OFF)",
];

export const connectionCommands: Record<string, Command> = {
  ping: { kind: "plain", run: ping },
  echo: { kind: "plain", run: ({ args }) => replyBulk(args.bytes(1)) },
  quit: { kind: "plain", run: quit },
  reset: { kind: "plain", run: reset },
  hello: { kind: "plain", run: hello },
  auth: { kind: "plain", run: auth },
  select: { kind: "plain", run: select },
  client: { kind: "plain", run: client },
};

function ping({ args }: Call): Reply {
  if (args.count > 2) throw wrongArity("ping");
  if (args.count === 2) return replyBulk(args.bytes(1));
  return (out) => out.simple("PONG");
}

function quit({ session }: Call): Reply {
  session.closing = true;
  return replyOk;
}

function reset({ session, context }: Call): Reply {
  session.db = 0;
  session.protocol = 2;
  session.name = "";
  session.noEvict = false;
  session.noTouch = false;
  session.authenticated = context.password === undefined;
  return (out) => out.simple("RESET");
}

function hello(call: Call): Reply {
  const { args, session, context } = call;
  let protocol = session.protocol;
  if (args.count > 1) {
    const version = args.integer(1);
    if (version === undefined) {
      throw new ReplyError("ERR", "Protocol version is not an integer or out of range");
    }
    if (version !== 2 && version !== 3) throw new ReplyError("NOPROTO", "unsupported protocol version");
    protocol = version;
  }
  let name: string | undefined;
  for (let i = 2; i < args.count; i += 1) {
    const option = args.word(i);
    if (option === "AUTH" && i + 2 < args.count) {
      authenticate(call, args.text(i + 1), args.bytes(i + 2));
      i += 2;
    } else if (option === "SETNAME" && i + 1 < args.count) {
      name = checkName(args.text(i + 1));
      i += 1;
    } else {
      throw new ReplyError("ERR", `Syntax error in HELLO option '${args.text(i)}'`);
    }
  }
  if (!session.authenticated) {
    throw new ReplyError(
      "NOAUTH",
      "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> " +
        "option can be used to authenticate the client and select the RESP protocol version at the same time",
    );
  }
  if (name !== undefined) session.name = name;
  session.protocol = protocol;
  return (out) => {
    out.map(7);
    out.bulk("server");
    out.bulk("vexlake");
    out.bulk("version");
    out.bulk(context.version);
    out.bulk("proto");
    out.integer(protocol);
    out.bulk("id");
    out.integer(session.id);
    out.bulk("mode");
    out.bulk("standalone");
    out.bulk("role");
    out.bulk("master");
    out.bulk("modules");
    out.array(0);
  };
}

function auth(call: Call): Reply {
  const { args, context } = call;
  if (args.count > 3) throw new ReplyError("ERR", "syntax error");
  if (args.count === 2 && context.password === undefined) {
    throw new ReplyError(
      "ERR",
      "AUTH <password> called without any password configured for the default user. " +
        "Are you sure your configuration is correct?",
    );
  }
  authenticate(call, args.count === 3 ? args.text(1) : "default", args.bytes(args.count - 1));
  return replyOk;
}

/** As a Redis with only its default user: without a password of its own it takes any. */
function authenticate({ session, context }: Call, user: string, password: Buffer): void {
  const right = context.password === undefined || samePassword(context.password, password);
  if (user !== "default" || !right) {
    throw new ReplyError("WRONGPASS", "invalid username-password pair or user is disabled.");
  }
  session.authenticated = true;
}

function select({ args, session }: Call): Reply {
  const db = args.integer(1);
  if (db === undefined) throw new ReplyError("ERR", "invalid DB index");
  if (db < 0 || db >= DATABASES) throw new ReplyError("ERR", "DB index is out of range");
  session.db = db;
  return replyOk;
}

function client({ args, session, context }: Call): Reply {
  const sub = args.word(1);
  switch (sub) {
    case "ID":
      return exactly(args.count, 2, sub, () => replyInteger(session.id));
    case "GETNAME":
      return exactly(args.count, 2, sub, () => (session.name === "" ? replyNil : replyBulk(session.name)));
    case "SETNAME":
      return exactly(args.count, 3, sub, () => {
        session.name = checkName(args.text(2));
        return replyOk;
      });
    case "SETINFO":
      return exactly(args.count, 4, sub, () => setInfo(session, args.word(2), args.text(2), args.text(3)));
    case "INFO":
      return exactly(args.count, 2, sub, () => {
        return replyText(describeSessions([session], context.clock()));
      });
    case "LIST":
      return replyText(describeSessions(listed(args, context.sessions), context.clock()));
    case "NO-EVICT":
      return exactly(args.count, 3, sub, () => {
        session.noEvict = onOff(args.word(2));
        return replyOk;
      });
    case "NO-TOUCH":
      return exactly(args.count, 3, sub, () => {
        session.noTouch = onOff(args.word(2));
        return replyOk;
      });
    case "HELP":
      return replyBulks(CLIENT_HELP);
    default:
      throw new ReplyError("ERR", `unknown subcommand '${args.text(1)}'. Try CLIENT HELP.`);
  }
}

/** The sessions that CLIENT LIST is asked for. */
function listed(args: Call["args"], sessions: ReadonlyMap<number, Session>): Session[] {
  const all = [...sessions.values()];
  if (args.count === 2) return all;
  const filter = args.word(2);
  if (filter === "TYPE" && args.count === 4) {
    const type = args.word(3);
    if (!CLIENT_TYPES.includes(type)) throw new ReplyError("ERR", `Unknown client type '${args.text(3)}'`);
    // There are no replicas and no subscribers here.
    return type === "NORMAL" ? all : [];
  }
  if (filter !== "ID" || args.count < 4) throw new ReplyError("ERR", "syntax error");
  const ids = new Set<number>();
  for (let i = 3; i < args.count; i += 1) {
    const id = args.integer(i);
    if (id === undefined || id < 1) throw new ReplyError("ERR", "Invalid client ID");
    ids.add(id);
  }
  return all.filter(({ id }) => ids.has(id));
}

/** As Redis: plain text where the protocol can say so. */
function replyText(text: string): Reply {
  return (out) => out.verbatim(text);
}

function describeSessions(sessions: readonly Session[], now: number): string {
  return sessions.map((session) => `${describeSession(session, now)}\n`).join("");
}

function exactly(count: number, expected: number, sub: string, run: () => Reply): Reply {
  if (count !== expected) throw wrongArity(`client|${sub.toLowerCase()}`);
  return run();
}

function setInfo(session: Session, word: string, attribute: string, value: string): Reply {
  if (word !== "LIB-NAME" && word !== "LIB-VER") {
    throw new ReplyError("ERR", `Unrecognized option '${attribute}'`);
  }
  if (!NAME.test(value)) {
    throw new ReplyError(
      "ERR",
      `${word.toLowerCase()} cannot contain spaces, newlines or special characters.`,
    );
  }
  if (word === "LIB-NAME") session.libraryName = value;
  else session.libraryVersion = value;
  return replyOk;
}

function checkName(name: string): string {
  if (NAME.test(name)) return name;
  throw new ReplyError("ERR", "Client names cannot contain spaces, newlines or special characters.");
}

function onOff(word: string): boolean {
  if (word !== "ON" && word !== "OFF") throw new ReplyError("ERR", "syntax error");
  return word === "ON";
}

function describeSession(session: Session, now: number): string {
  const seconds = (since: number): number => Math.max(0, Math.floor((now - since) / 1000));
  return [
    `id=${session.id}`,
    `addr=${session.address}`,
    `laddr=${session.localAddress}`,
    `name=${session.name}`,
    `age=${seconds(session.createdMs)}`,
    `idle=${seconds(session.lastMs)}`,
    `flags=${session.noEvict ? "e" : "N"}`,
    `db=${session.db}`,
    `omem=${session.outputBytes()}`,
    `cmd=${session.lastCommand}`,
    "user=default",
    `resp=${session.protocol}`,
    `lib-name=${session.libraryName}`,
    `lib-ver=${session.libraryVersion}`,
  ].join(" ");
}
