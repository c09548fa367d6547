/** explain: what a search of the running lake takes, and where its time goes; asked with LAKE.EXPLAIN. */
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { openContext } from "../context.ts";
import { vectorWords } from "../embedder.ts";
import { columns, print, printJson } from "../output.ts";
import { withRedis } from "../redis.ts";

type Explained = Record<string, string | number>;

/** What people read for the reply's names; one that is missing here is shown as it came. */
const LABELS: Readonly<Record<string, string>> = {
  "segments-listed": "segments searched through lists",
  "segments-exact": "segments scanned exactly",
  "segments-pruned": "segments with nothing to compare",
  "rows-passed": "rows that pass the filter",
  centroids: "versions of centroids",
  lists: "lists probed",
  "rows-scanned": "rows scanned",
  "memtable-rows": "… of memtables",
  "rows-reranked": "rows re-ranked",
  waves: "waves of those",
  rounds: "rounds of reads",
  "pages-held": "pages in the cache",
  "pages-read": "pages read",
  requests: "GETs",
  "bytes-read": "bytes read",
  "us-feed": "view and memtables",
  "us-filter": "filter and shadows",
  "us-lists": "choose and read lists",
  "us-codes": "scan codes",
  "us-rerank": "re-rank",
  "us-exact": "scan exactly",
  "us-names": "ids and attributes",
  "us-total": "the whole search",
};

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const query = positional(args, 1, "text or [vector]");
  const effort = whole(args, "ef", 1, 1_000_000);
  const count = whole(args, "count", 1, 10_000);
  const db = whole(args, "db", 0, 15) ?? 0;
  const context = await openContext(args, "cli");
  const words: (string | Buffer)[] = ["VSIM", name, ...(await vectorWords(context.dataDir, query))];
  if (count !== undefined) words.push("COUNT", String(count));
  if (typeof args.flags.filter === "string") words.push("FILTER", args.flags.filter);
  if (effort !== undefined) words.push("EF", String(effort));
  if (args.flags.truth === true) words.push("TRUTH");
  const reply = await withRedis(
    context,
    { db },
    async ([redis]) => await redis?.call("LAKE.EXPLAIN", ...words),
  );
  const explained = fieldsOf(reply as (string | number)[]);
  if (context.json) printJson(explained);
  else print(render(name, explained));
  return EXIT.ok;
}

/** RESP2's flat array of names and values. */
function fieldsOf(flat: (string | number)[]): Explained {
  const fields: Explained = {};
  for (let i = 0; i + 1 < flat.length; i += 2) fields[String(flat[i])] = flat[i + 1] as string | number;
  return fields;
}

/** A line of what was searched, then counts and times as tables. */
export function render(name: string, { version, scope, results, ...measured }: Explained): string {
  const row = ([field, value]: [string, string | number]): (string | number)[] => [
    LABELS[field] ?? field,
    value,
  ];
  const entries = Object.entries(measured);
  const isTime = ([field]: [string, unknown]): boolean => field.startsWith("us-");
  const counts = entries.filter((entry) => !isTime(entry)).map(row);
  const times = entries.filter(isTime).map(row);
  return [
    `${name} at version ${version}, ${scope}: ${results} results`,
    columns(["what it took", "count"], counts),
    columns(["where the time went", "µs"], times),
  ].join("\n\n");
}
