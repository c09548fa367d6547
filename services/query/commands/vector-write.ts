/**
 * Redis 8's vector-set commands that write: VADD VREM VSETATTR. Each becomes one record in the collection's
 * log and is answered when this node shows it.
 *
 * Options of Redis whose meaning holds because vectors are stored and searched exactly are accepted without
 * effect; options that would be a lie are refused with the note of the command table.
 */
import { checkAttributes } from "../attributes.ts";
import { ReplyError, wrongArity } from "../errors.ts";
import { recordFromValues } from "../vector-text.ts";
import type { Change, WriteAck } from "../writer.ts";
import type { Arguments } from "./arguments.ts";
import type { Call, Command, FirstWritePlan, Reply, WritePlan } from "./command.ts";
import { replyFalse } from "./command.ts";
import { performWrite } from "./execute.ts";
import { checkId, checkName, findCollection } from "./key.ts";
import { optionNote } from "./table.ts";
import { checkDimensions, invalid, type ReadVector, readVector } from "./vector-argument.ts";

/** Redis's bound on EF, which ours shares. */
export const EF_MAX = 1_000_000;
/** EF of a search that names none, as in Redis; the core scales what it looks at around it. */
export const EF_DEFAULT = 100;
/** What a collection made by VADD is, beside its dimension. */
export const MADE_BY_VADD = { metric: "cosine", partitions: 1, format: "f32" };

export const vectorWriteCommands: Record<string, Command> = {
  vadd: { kind: "write", plan: vadd },
  vrem: { kind: "write", plan: vrem },
  vsetattr: { kind: "plain", run: vsetattr },
};

async function vadd(call: Call): Promise<FirstWritePlan> {
  const { args } = call;
  if (args.word(2) === "REDUCE") throw refused("vadd", "REDUCE");
  const vector = readVector(args, 2);
  if (vector.next >= args.count) throw wrongArity("vadd");
  const id = checkId(args.bytes(vector.next));
  const attrs = readAddOptions(args, vector.next + 1);
  const change = addition(id, vector, attrs);
  const collection = await targetOf(call, checkName(args.bytes(1)), vector.dim);
  return { collection, change, check: vector.input, reply: (ack) => replyAdded(ack) };
}

/** The collection of a write; where there is none, the one that the first vector makes. */
export async function targetOf(
  { session, context }: Call,
  name: string,
  dim: number,
): Promise<FirstWritePlan["collection"]> {
  const view = await context.collections.find(session.db, name);
  if (view === undefined) return { db: session.db, name, dim, ...MADE_BY_VADD };
  checkDimensions(dim, view.dim);
  return view;
}

/** Options after the element; answers the attributes. */
function readAddOptions(args: Arguments, from: number): Buffer | undefined {
  let attrs: Buffer | undefined;
  for (let i = from; i < args.count; i += 1) {
    const option = args.word(i);
    if (option === "CAS" || option === "NOQUANT") continue;
    if (option === "Q8" || option === "BIN" || option === "M") throw refused("vadd", option);
    if (i + 1 >= args.count) throw new ReplyError("ERR", "invalid option after element");
    i += 1;
    if (option === "SETATTR") attrs = checkAttributes(args.bytes(i));
    else if (option === "EF") readEffort(args.integer(i));
    else throw new ReplyError("ERR", "invalid option after element");
  }
  return attrs;
}

export function readEffort(effort: number | undefined): number {
  if (effort === undefined || effort < 1 || effort > EF_MAX) throw new ReplyError("ERR", "invalid EF");
  return effort;
}

export function refused(command: string, option: string): ReplyError {
  return new ReplyError("ERR", `${option} is refused: ${optionNote(command, option)}`);
}

function addition(id: Buffer, { input }: ReadVector, attrs: Buffer | undefined): Change {
  // As in Redis: SETATTR replaces the attributes, empty text takes them away, without it they stay.
  const rest = attrs === undefined || attrs.length === 0 ? {} : { attrs };
  const op = attrs === undefined ? "put-vector" : "upsert";
  if (input.kind === "f32") return { id, op, format: "f32", value: input.bytes, ...rest };
  const value = recordFromValues(input.frame, input.spans);
  if (value === undefined) throw invalid();
  return { id, op, format: "json", value, ...rest };
}

async function vrem(call: Call): Promise<Reply | WritePlan> {
  const collection = await findCollection(call, call.args.bytes(1));
  if (collection === undefined) return replyFalse;
  const id = checkId(call.args.bytes(2));
  return { collection, change: { id, op: "delete" }, reply: (ack) => replyExisted(ack) };
}

/**
 * Alone, after everything before it in the pipeline: it looks first whether the element is there, because a
 * patch without a record would end in the dead-letter topic.
 */
async function vsetattr(call: Call): Promise<Reply> {
  const { args, context } = call;
  const collection = await findCollection(call, args.bytes(1));
  if (collection === undefined) return replyFalse;
  const id = checkId(args.bytes(2));
  const attrs = checkAttributes(args.bytes(3));
  const { present } = await context.core.get({
    incarnation: collection.incarnation,
    ids: [id],
    want: "exists",
    scope: "fresh",
  });
  if (present[0] === 0) return replyFalse;
  return await performWrite(context, {
    collection,
    change: { id, op: "set-attrs", attrs },
    // Refused here means: deleted between the look and the record.
    reply: (ack) => (out) => out.bool(ack.accepted),
  });
}

export function requireAccepted(ack: WriteAck): void {
  if (!ack.accepted) throw new ReplyError("ERR", ack.message ?? "the record was refused");
}

/** Redis: true when the element is new. */
function replyAdded(ack: WriteAck): Reply {
  requireAccepted(ack);
  return (out) => out.bool(!ack.existed);
}

function replyExisted(ack: WriteAck): Reply {
  requireAccepted(ack);
  return (out) => out.bool(ack.existed);
}
