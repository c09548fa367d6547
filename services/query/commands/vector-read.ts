/**
 * Redis 8's vector-set commands that read one collection or one element: VCARD VDIM VEMB VINFO VGETATTR
 * VISMEMBER, and those that are not there yet.
 *
 * The numbers of a vector arrive as the text of a list and are cut at its commas: no float is read here.
 */
import { type CollectionView, type GetReply, type GetRequest, readCollection, slice } from "../core.ts";
import { notThereYet, ReplyError } from "../errors.ts";
import type { Encoder } from "../resp/encoder.ts";
import type { Call, Command, Reply } from "./command.ts";
import { replyBulk, replyFalse, replyInteger, replyNil } from "./command.ts";
import { findTarget, scopeOf, type Target } from "./key.ts";

const BLANK = 0x20;
const COMMA = 0x2c;
/** The digits of a ULID. */
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

export const vectorReadCommands: Record<string, Command> = {
  vcard: { kind: "read", run: vcard },
  vdim: { kind: "read", run: vdim },
  vemb: { kind: "read", run: vemb },
  vinfo: { kind: "read", run: vinfo },
  vgetattr: { kind: "read", run: vgetattr },
  vismember: { kind: "read", run: vismember },
  vlinks: {
    kind: "plain",
    run: () => missing("VLINKS: there is no graph, neighbours are what VSIM … ELE answers; it"),
  },
  vrandmember: { kind: "plain", run: () => missing("VRANDMEMBER") },
  vrange: { kind: "plain", run: () => missing("VRANGE") },
};

function missing(what: string): never {
  throw notThereYet(what);
}

/** Counts are the engine's as of now; asking for one incarnation costs no look at the store. */
async function vcard(call: Call): Promise<Reply> {
  const target = await findTarget(call, call.args.bytes(1));
  if (target === undefined) return replyInteger(0);
  refuseVersion(target, "VCARD");
  return replyInteger((await counted(call, target.view)).records);
}

async function counted({ context }: Call, view: CollectionView): Promise<CollectionView> {
  return await readCollection(context.core, view);
}

async function vdim(call: Call): Promise<Reply> {
  const target = await findTarget(call, call.args.bytes(1));
  if (target === undefined) throw new ReplyError("ERR", "key does not exist");
  return replyInteger(target.view.dim);
}

async function vemb(call: Call): Promise<Reply> {
  const { args } = call;
  for (let i = 3; i < args.count; i += 1) {
    if (args.word(i) !== "RAW") throw new ReplyError("ERR", "invalid option");
  }
  const raw = args.count > 3;
  const found = await getOne(call, raw ? "raw" : "values");
  if (found === undefined || found.present[0] === 0) return replyNil;
  const bytes = slice(found.bytes, found.ends, 0);
  return raw ? (out) => writeRaw(out, bytes) : (out) => writeNumbers(out, bytes);
}

/** Redis's RAW: how it is stored, the bytes, and the factor that gives the vector as it was added. */
function writeRaw(out: Encoder, bytes: Uint8Array): void {
  out.array(3);
  out.simple("f32");
  out.bulk(bytes);
  out.double(1);
}

/** `[0.1, 0.2]` as a list of doubles. */
function writeNumbers(out: Encoder, text: Uint8Array): void {
  let count = 1;
  for (const byte of text) if (byte === COMMA) count += 1;
  out.array(count);
  let from = 1;
  for (let at = 1; at < text.length; at += 1) {
    if (text[at] !== COMMA && at !== text.length - 1) continue;
    out.doubleText(text.subarray(from, at));
    from = text[at + 1] === BLANK ? at + 2 : at + 1;
  }
}

async function vinfo(call: Call): Promise<Reply> {
  const target = await findTarget(call, call.args.bytes(1));
  if (target === undefined) return (out) => out.nilArray();
  refuseVersion(target, "VINFO");
  const view = await counted(call, target.view);
  const fields: [name: string, value: string | number][] = [
    // attributes-count of Redis is left out: attributes are not counted, and a wrong number would be believed.
    ["quant-type", "f32"],
    ["hnsw-m", 0],
    ["vector-dim", view.dim],
    ["projection-input-dim", 0],
    ["size", view.records],
    ["max-level", 0],
    ["vset-uid", uidOf(view.incarnation)],
    ["hnsw-max-node-uid", 0],
    ["incarnation", view.incarnation],
    ["metric", view.metric],
    ["version", view.version],
    ["partitions", view.partitions],
    ["topic", view.source.topic],
  ];
  return (out) => {
    out.map(fields.length);
    for (const [name, value] of fields) {
      out.simple(name);
      if (typeof value === "number") out.integer(value);
      else if (name === "quant-type") out.simple(value);
      else out.bulk(value);
    }
  };
}

/**
 * A whole number that differs between incarnations, as Redis's differs between sets: the 48 bits of time of
 * the ULID (10 characters) and 5 of its random ones, which together a double holds exactly.
 */
function uidOf(ulid: string): number {
  let uid = 0;
  for (const character of ulid.slice(0, 11)) uid = uid * 32 + CROCKFORD.indexOf(character);
  return uid;
}

async function vgetattr(call: Call): Promise<Reply> {
  const found = await getOne(call, "attrs");
  if (found === undefined || found.present[0] === 0) return replyNil;
  const attrs = slice(found.bytes, found.ends, 0);
  return attrs.length === 0 ? replyNil : replyBulk(attrs);
}

async function vismember(call: Call): Promise<Reply> {
  const found = await getOne(call, "exists");
  return found === undefined ? replyFalse : (out) => out.bool(found.present[0] !== 0);
}

/** One element of the collection that the key names; undefined without that collection. */
async function getOne(call: Call, want: GetRequest["want"]): Promise<GetReply | undefined> {
  const target = await findTarget(call, call.args.bytes(1));
  if (target === undefined) return undefined;
  return await call.context.core.get({
    incarnation: target.view.incarnation,
    ids: [call.args.bytes(2)],
    want,
    ...scopeOf(target),
  });
}

function refuseVersion({ version }: Target, command: string): void {
  if (version !== undefined) throw notThereYet(`${command} of an earlier version (@${version})`);
}
