/**
 * search: asks the running lake, as any Redis client would. Text goes through the sample's embedder;
 * `[0.1, …]` is taken as a vector.
 */
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { openContext } from "../context.ts";
import { vectorWords } from "../embedder.ts";
import { print, printJson } from "../output.ts";
import { withRedis } from "../redis.ts";

const COUNT = 5;
/** Text of a passage shown on a terminal. */
const SHOWN_CHARACTERS = 400;

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const query = positional(args, 1, "text or [vector]");
  const context = await openContext(args, "cli");
  const db = whole(args, "db", 0, 15) ?? 0;
  const count = String(whole(args, "count", 1, 10_000) ?? COUNT);
  const vector = await vectorWords(context.dataDir, query);
  const filter = typeof args.flags.filter === "string" ? ["FILTER", args.flags.filter] : [];
  const request = ["VSIM", name, ...vector, ...filter, "COUNT", count, "WITHSCORES", "WITHATTRIBS"] as const;
  const reply = await withRedis(context, { db }, async ([redis]) => await redis?.call(...request));
  // RESP3 nests score and attributes under the id, RESP2 lists all three.
  const flat = (reply as unknown[]).flat() as (string | null)[];
  const hits = [];
  for (let i = 0; i < flat.length; i += 3) {
    const attrs = flat[i + 2] ? (JSON.parse(flat[i + 2] as string) as Record<string, unknown>) : null;
    hits.push({ id: flat[i] as string, score: Number(flat[i + 1]), attrs });
  }
  if (context.json) printJson(hits);
  else for (const hit of hits) printHit(hit);
  return EXIT.ok;
}

function printHit({
  id,
  score,
  attrs,
}: {
  id: string;
  score: number;
  attrs: Record<string, unknown> | null;
}): void {
  const title = typeof attrs?.title === "string" ? ` · ${attrs.title}` : "";
  print(`${score.toFixed(4)}  ${id}${title}`);
  if (typeof attrs?.text !== "string") return;
  const words = attrs.text.replaceAll(/\s+/g, " ");
  print(`        ${words.length > SHOWN_CHARACTERS ? `${words.slice(0, SHOWN_CHARACTERS)}…` : words}`);
}
