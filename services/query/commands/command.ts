/**
 * What a command is. A command never writes to the connection: it answers a `Reply`, a function that writes
 * when its turn has come, so that pipelined commands may run together and still be answered in order.
 *
 * Four kinds, by how neighbours in a pipeline may run:
 * - plain: alone, after everything before it
 * - read: together with neighbouring reads
 * - search: neighbours become one call into the engine
 * - write: planned one after the other, checked in one call, put into the log in order, acknowledged together
 */
import type { Collections, NewCollection } from "../collections.ts";
import type { CollectionView, QueryCore, SearchReply, SearchRequest, VectorArgument } from "../core.ts";
import type { QueryMetrics } from "../metrics.ts";
import type { Encoder } from "../resp/encoder.ts";
import type { Session } from "../resp/session.ts";
import type { Visibility } from "../visibility.ts";
import type { Change, WriteAck, Writer } from "../writer.ts";
import type { Arguments } from "./arguments.ts";

export type Reply = (out: Encoder) => void;

/** Everything that commands work with; built once by main.ts. */
export interface CommandContext {
  core: QueryCore;
  collections: Collections;
  writer: Writer;
  visibility: Visibility;
  metrics: QueryMetrics;
  /** the connections of this server, for CLIENT LIST and INFO */
  sessions: ReadonlyMap<number, Session>;
  /** asked for by AUTH; undefined = open to everybody, as a Redis without requirepass */
  password: string | undefined;
  version: string;
  startedMs: number;
  clock: () => number;
  /** what an operator reads in INFO and CONFIG GET */
  settings: ReadonlyMap<string, string>;
}

export interface Call {
  args: Arguments;
  session: Session;
  context: CommandContext;
}

/** A search that has been understood: what to ask, and how to say the answer. */
export interface SearchPlan {
  request: SearchRequest;
  reply(answer: SearchReply): Reply;
}

/** A write that has been understood: what to put into the log, and how to say the acknowledgement. */
export interface WritePlan {
  collection: CollectionView;
  change: Change;
  /** the vector of the change, checked by the engine before anything is put into the log */
  check?: VectorArgument;
  reply(ack: WriteAck): Reply;
}

/** As a command plans it: the collection may not be there yet. It is made when the vector has been accepted. */
export interface FirstWritePlan extends Omit<WritePlan, "collection"> {
  collection: CollectionView | NewCollection;
}

export type Command =
  | { kind: "plain"; run(call: Call): Reply | Promise<Reply> }
  | { kind: "read"; run(call: Call): Reply | Promise<Reply> }
  | { kind: "search"; plan(call: Call): Reply | SearchPlan | Promise<Reply | SearchPlan> }
  | { kind: "write"; plan(call: Call): Reply | FirstWritePlan | Promise<Reply | FirstWritePlan> };

export const replyOk: Reply = (out) => out.ok();
export const replyNil: Reply = (out) => out.nil();
export const replyEmptyArray: Reply = (out) => out.array(0);
export const replyFalse: Reply = (out) => out.bool(false);

export function replyInteger(value: number | bigint): Reply {
  return (out) => out.integer(value);
}

export function replyBulk(value: Uint8Array | string): Reply {
  return (out) => out.bulk(value);
}

export function replyBulks(values: readonly (Uint8Array | string)[]): Reply {
  return (out) => {
    out.array(values.length);
    for (const value of values) out.bulk(value);
  };
}
