/**
 * VexLake's own commands. LAKE.TOKEN and LAKE.WAIT carry visibility between nodes: write on one, take its
 * token, wait for it on another, read there what was written.
 *
 * A token is `<incarnation>:<partition>=<next offset>,…` of what this node has applied. It names the
 * incarnation, so a token from before a CLEAR is not taken for the collection after it.
 */
import { ReplyError } from "../errors.ts";
import type { Call, Command, Reply } from "./command.ts";
import { replyBulk, replyInteger } from "./command.ts";
import { findCollection } from "./key.ts";

/** Longest LAKE.WAIT: a client that waits longer than a minute should ask again. */
export const WAIT_MS_MAX = 60_000;
/** Partitions of one token; a topic of ours has a few, Kafka's practical limit is some thousand. */
const TOKEN_PARTITIONS_MAX = 4_096;
const PART = /^(0|[1-9][0-9]{0,9})=(0|[1-9][0-9]{0,18})$/;

export const lakeCommands: Record<string, Command> = {
  "lake.token": { kind: "plain", run: token },
  "lake.wait": { kind: "plain", run: wait },
};

async function token(call: Call): Promise<Reply> {
  const { incarnation } = await required(call);
  return replyBulk(formatToken(incarnation, call.context.visibility.applied(incarnation)));
}

async function wait(call: Call): Promise<Reply> {
  const { incarnation } = await required(call);
  const wanted = parseToken(call.args.text(2));
  const timeout = call.args.integer(3);
  if (timeout === undefined || timeout < 0 || timeout > WAIT_MS_MAX) {
    throw new ReplyError("ERR", `timeout is not a number of milliseconds from 0 to ${WAIT_MS_MAX}`);
  }
  if (wanted.incarnation !== incarnation) {
    throw new ReplyError("ERR", `token is of incarnation ${wanted.incarnation}, the key has ${incarnation}`);
  }
  const reached = await call.context.visibility.reached(incarnation, wanted.offsets, timeout);
  return replyInteger(reached ? 1 : 0);
}

async function required(call: Call): Promise<{ incarnation: string }> {
  const view = await findCollection(call, call.args.bytes(1));
  if (view === undefined) throw new ReplyError("ERR", "key does not exist");
  return view;
}

export function formatToken(incarnation: string, offsets: Map<number, bigint>): string {
  const parts = [...offsets].sort(([a], [b]) => a - b).map(([partition, next]) => `${partition}=${next}`);
  return `${incarnation}:${parts.join(",")}`;
}

export function parseToken(text: string): { incarnation: string; offsets: Map<number, bigint> } {
  const colon = text.indexOf(":");
  const parts = colon === text.length - 1 ? [] : text.slice(colon + 1).split(",", TOKEN_PARTITIONS_MAX + 1);
  const offsets = new Map<number, bigint>();
  for (const part of parts) {
    const match = PART.exec(part);
    if (colon < 1 || match === null || parts.length > TOKEN_PARTITIONS_MAX) {
      throw new ReplyError("ERR", "token is not one of LAKE.TOKEN");
    }
    offsets.set(Number(match[1]), BigInt(match[2] as string));
  }
  if (colon < 1) throw new ReplyError("ERR", "token is not one of LAKE.TOKEN");
  return { incarnation: text.slice(0, colon), offsets };
}
