/**
 * LAKE.EXPLAIN VSIM …: runs the search and answers what it took instead of what it found.
 *
 * The engine searches alone for it, whatever shares the pipeline, so every count is of this search. Left out:
 * reading the vector of ELE, which comes before the search.
 */
import type { SearchReply, SearchRequest } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Call, Command, Reply, SearchPlan } from "./command.ts";
import { findTarget } from "./key.ts";
import { planVsim } from "./vsim.ts";

export const explainCommands: Record<string, Command> = {
  "lake.explain": { kind: "search", plan: explain },
};

async function explain(call: Call): Promise<SearchPlan> {
  if (call.args.word(1) !== "VSIM") {
    throw new ReplyError("ERR", "only VSIM can be explained: LAKE.EXPLAIN VSIM key …");
  }
  const args = call.args.from(1);
  const target = await findTarget(call, args.bytes(1));
  if (target === undefined) throw new ReplyError("ERR", "key does not exist");
  const request: SearchRequest = { ...planVsim(args, target).request, explain: true };
  return { request, reply: (answer) => replyFields(fieldsOf(request, answer)) };
}

type Field = readonly [name: string, value: number | bigint | string];

function fieldsOf({ scope }: SearchRequest, { cost, stages, version, idEnds }: SearchReply): Field[] {
  if (cost === undefined || stages === undefined) {
    throw new ReplyError("ERR", "the engine left the search unexplained", 500);
  }
  return [
    ["version", version],
    ["scope", scope],
    ["results", idEnds.length],
    ["segments-listed", cost.segmentsListed],
    ["segments-exact", cost.segmentsExact],
    ["segments-pruned", cost.segmentsPruned],
    ["rows-passed", cost.rowsPassed],
    ["centroids", cost.centroids],
    ["lists", cost.lists],
    ["rows-scanned", cost.rowsScanned],
    ["memtable-rows", cost.memtableRows],
    ["rows-reranked", cost.rowsReranked],
    ["waves", cost.waves],
    ["rounds", cost.rounds],
    ["pages-held", cost.pagesHeld],
    ["pages-read", cost.pagesRead],
    ["requests", cost.requests],
    ["bytes-read", cost.bytesRead],
    ["us-feed", stages.feed],
    ["us-filter", stages.filter],
    ["us-lists", stages.lists],
    ["us-codes", stages.codes],
    ["us-rerank", stages.rerank],
    ["us-exact", stages.exact],
    ["us-names", stages.names],
    ["us-total", stages.total],
  ];
}

function replyFields(fields: Field[]): Reply {
  return (out) => {
    out.map(fields.length);
    for (const [name, value] of fields) {
      out.simple(name);
      if (typeof value === "string") out.bulk(value);
      else out.integer(value);
    }
  };
}
