/**
 * The seed commands: VSET VGET VSEARCH VDEL CLEAR on the collection `default` (cosine), vectors as JSON text.
 * The first VSET creates the collection with the dimension of its vector.
 */
import { slice } from "../core.ts";
import { ReplyError } from "../errors.ts";
import { countNumbers, recordFromText } from "../vector-text.ts";
import type { Call, Command, FirstWritePlan, Reply, SearchPlan, WritePlan } from "./command.ts";
import { replyBulk, replyEmptyArray, replyInteger, replyNil, replyOk } from "./command.ts";
import { checkId, findCollection } from "./key.ts";
import { checkDimensions } from "./vector-argument.ts";
import { requireAccepted, targetOf } from "./vector-write.ts";
import { readCount, replyIds } from "./vsim.ts";

export const SEED_COLLECTION = "default";
const KEY = Buffer.from(SEED_COLLECTION);

export const seedCommands: Record<string, Command> = {
  vset: { kind: "write", plan: vset },
  vget: { kind: "read", run: vget },
  vsearch: { kind: "search", plan: vsearch },
  vdel: { kind: "write", plan: vdel },
  clear: { kind: "plain", run: clear },
};

async function vset(call: Call): Promise<FirstWritePlan> {
  const { args } = call;
  const id = checkId(args.bytes(1));
  const { text, dim } = readText(args.bytes(2));
  return {
    collection: await targetOf(call, SEED_COLLECTION, dim),
    change: { id, op: "upsert", format: "json", value: recordFromText(text) },
    check: { kind: "text", bytes: text },
    reply: (ack) => {
      requireAccepted(ack);
      return replyOk;
    },
  };
}

async function vget(call: Call): Promise<Reply> {
  const collection = await findCollection(call, KEY);
  if (collection === undefined) return replyNil;
  const found = await call.context.core.get({
    incarnation: collection.incarnation,
    ids: [call.args.bytes(1)],
    want: "text",
    scope: "fresh",
  });
  return found.present[0] !== 0 ? replyBulk(slice(found.bytes, found.ends, 0)) : replyNil;
}

async function vsearch(call: Call): Promise<Reply | SearchPlan> {
  const { text, dim } = readText(call.args.bytes(1));
  const k = readCount(call.args.integer(2));
  const collection = await findCollection(call, KEY);
  if (collection === undefined) return replyEmptyArray;
  checkDimensions(dim, collection.dim);
  return {
    request: {
      collection: collection.incarnation,
      vector: { kind: "text", bytes: text },
      k,
      scope: "fresh",
      withAttrs: false,
    },
    reply: replyIds,
  };
}

async function vdel(call: Call): Promise<Reply | WritePlan> {
  const collection = await findCollection(call, KEY);
  if (collection === undefined) return replyInteger(0);
  const id = checkId(call.args.bytes(1));
  return {
    collection,
    change: { id, op: "delete" },
    reply: (ack) => {
      requireAccepted(ack);
      return replyInteger(ack.existed ? 1 : 0);
    },
  };
}

async function clear(call: Call): Promise<Reply> {
  const collection = await findCollection(call, KEY);
  if (collection !== undefined) await call.context.collections.clear(collection);
  return replyOk;
}

function readText(text: Buffer): { text: Buffer; dim: number } {
  const dim = countNumbers(text);
  if (dim === undefined) throw new ReplyError("ERR", "vector is not an array of numbers such as [0.1, 0.2]");
  return { text, dim };
}
