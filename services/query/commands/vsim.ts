/**
 * VSIM: elements by similarity, with Redis 8's options and reply shapes.
 *
 * Reply: RESP2 a flat array (element, score, attributes); RESP3 an array of elements, or with scores or
 * attributes a map element → score, element → attributes, element → [score, attributes].
 */
import { isUtf8 } from "node:buffer";
import { attributesOf, type SearchReply, type SearchRequest, slice, type VectorArgument } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Arguments } from "./arguments.ts";
import type { Call, Command, Reply, SearchPlan } from "./command.ts";
import { replyEmptyArray } from "./command.ts";
import { findTarget, scopeOf, type Target } from "./key.ts";
import { checkDimensions, readVector } from "./vector-argument.ts";
import { readEffort } from "./vector-write.ts";

/** Most results of one search; checked before anything of that size is made. */
export const COUNT_MAX = 10_000;
const COUNT_DEFAULT = 10;

export const vsimCommands: Record<string, Command> = {
  vsim: { kind: "search", plan: vsim },
};

interface Options {
  withScores: boolean;
  withAttrs: boolean;
  count: number;
  epsilon?: number;
  scope: "fresh" | "snapshot";
  effort?: number;
  truth: boolean;
  filter?: string;
}

function vsim(call: Call): Reply | SearchPlan | Promise<Reply | SearchPlan> {
  const target = findTarget(call, call.args.bytes(1));
  return target instanceof Promise
    ? target.then((found) => planOrNone(call, found))
    : planOrNone(call, target);
}

/** As in Redis a collection that is not there is empty, whatever the rest of the command says. */
function planOrNone({ args }: Call, target: Target | undefined): Reply | SearchPlan {
  return target === undefined ? replyEmptyArray : planVsim(args, target);
}

/** What `VSIM key …` asks for, its key found. */
export function planVsim(args: Arguments, target: Target): SearchPlan {
  const { view } = target;
  const { vector, next } = readQuery(args, view.dim);
  const options = readOptions(args, next);
  const request: SearchRequest = {
    collection: view.incarnation,
    vector,
    k: options.count,
    ...scopeOf(target, options.scope),
    withAttrs: options.withAttrs,
    truth: options.truth,
  };
  // Redis compares EPSILON with half the cosine distance, which is one less the score.
  if (options.epsilon !== undefined) request.scoreMin = 1 - options.epsilon;
  if (options.effort !== undefined) request.effort = options.effort;
  if (options.filter !== undefined) request.filter = options.filter;
  return { request, reply: (answer) => shape(answer, options) };
}

function readQuery(args: Arguments, dim: number): { vector: VectorArgument; next: number } {
  const kind = args.word(2);
  if (kind === "ELE") return { vector: { kind: "element", id: args.bytes(3) }, next: 4 };
  if (kind !== "FP32" && kind !== "VALUES") {
    throw new ReplyError("ERR", "vector type must be ELE, FP32 or VALUES");
  }
  const vector = readVector(args, 2);
  checkDimensions(vector.dim, dim);
  return { vector: vector.input, next: vector.next };
}

function readOptions(args: Arguments, from: number): Options {
  const options: Options = {
    withScores: false,
    withAttrs: false,
    count: COUNT_DEFAULT,
    scope: "fresh",
    truth: false,
  };
  for (let i = from; i < args.count; i += 1) {
    const option = args.word(i);
    if (option === "WITHSCORES") options.withScores = true;
    else if (option === "WITHATTRIBS") options.withAttrs = true;
    else if (option === "FRESH") options.scope = "fresh";
    else if (option === "SNAPSHOT") options.scope = "snapshot";
    else if (option === "TRUTH") options.truth = true;
    else if (option !== "NOTHREAD") {
      i += 1;
      readValue(args, i, option, options);
    }
  }
  return options;
}

function readValue(args: Arguments, at: number, option: string, options: Options): void {
  if (at >= args.count) throw new ReplyError("ERR", "syntax error in VSIM command");
  switch (option) {
    case "COUNT":
      options.count = readCount(args.integer(at));
      return;
    case "EPSILON": {
      const epsilon = args.decimal(at);
      if (epsilon === undefined || epsilon <= 0) throw new ReplyError("ERR", "invalid EPSILON");
      options.epsilon = epsilon;
      return;
    }
    case "EF":
      options.effort = readEffort(args.integer(at));
      return;
    case "FILTER":
      options.filter = readFilter(args.bytes(at));
      return;
    // How far Redis looks for elements that pass; here the search knows how many do.
    case "FILTER-EF":
      if ((args.integer(at) ?? -1) < 0) throw new ReplyError("ERR", "invalid FILTER-EF");
      return;
    default:
      throw new ReplyError("ERR", "syntax error in VSIM command");
  }
}

/** The engine reads it; here only that it is text. */
export function readFilter(text: Buffer): string {
  if (!isUtf8(text)) throw new ReplyError("ERR", "FILTER is not UTF-8");
  return text.toString();
}

export function readCount(count: number | undefined): number {
  if (count === undefined || count < 1) throw new ReplyError("ERR", "invalid COUNT");
  if (count > COUNT_MAX)
    throw new ReplyError("ERR", `invalid COUNT: ${count}, at most ${COUNT_MAX} are possible`);
  return count;
}

function shape(answer: SearchReply, { withScores, withAttrs }: Options): Reply {
  if (!withScores && !withAttrs) return replyIds(answer);
  return (out) => {
    const found = answer.idEnds.length;
    const resp3 = out.protocol === 3;
    if (resp3) out.map(found);
    else out.array(found * (1 + Number(withScores) + Number(withAttrs)));
    for (let i = 0; i < found; i += 1) {
      out.bulk(slice(answer.ids, answer.idEnds, i));
      if (resp3 && withScores && withAttrs) out.array(2);
      if (withScores) out.double(answer.scores[i] as number);
      if (!withAttrs) continue;
      const attrs = attributesOf(answer, i);
      if (attrs.length === 0) out.nil();
      else out.bulk(attrs);
    }
  };
}

export function replyIds(answer: SearchReply): Reply {
  return (out) => {
    const found = answer.idEnds.length;
    out.array(found);
    for (let i = 0; i < found; i += 1) out.bulk(slice(answer.ids, answer.idEnds, i));
  };
}
