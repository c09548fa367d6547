/**
 * replay start | list | retire: a second incarnation of a collection, filled from the log beside the
 * live one. Ingest sees it in the catalog and feeds it; `promote` makes it the live one.
 */
import {
  findCollection,
  type Incarnation,
  isOpen,
  liveSource,
  parseBeginning,
  sourceFrom,
} from "../../common/catalog.ts";
import { ConfigError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, numbers, positional, text, whole } from "../args.ts";
import { type Context, openContext, openLake, openLog } from "../context.ts";
import { columns, print, printJson } from "../output.ts";
import { serverCall } from "../server.ts";

export async function run(args: Arguments): Promise<number> {
  const action = positional(args, 0, "start|list|retire");
  const context = await openContext(args, "cli");
  if (action === "start") return await start(context);
  if (action === "list") return await list(context);
  if (action === "retire") return await retire(context);
  throw new ConfigError(`replay ${action} is not known: start, list, retire`);
}

async function start(context: Context): Promise<number> {
  const { args } = context;
  const name = positional(args, 1, "collection");
  const db = whole(args, "db", 0, 15) ?? 0;
  const where = text(args, "from");
  if (where === undefined) throw new ConfigError("--from is missing: earliest, a time, or p:offset,…");
  const from = parseBeginning(where);
  const withoutEpochs = numbers(args, "without-epoch");
  if (context.running?.log.kind === "local") {
    const query = new URLSearchParams({ db: String(db), collection: name, from: where });
    for (const epoch of withoutEpochs) query.append("without-epoch", String(epoch));
    printJson(await serverCall(context, "POST", `/api/v1/replay?${query}`));
    return EXIT.ok;
  }
  const [{ lake, close }, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const { live } = await findCollection(lake, db, name);
    const source = await sourceFrom(log, liveSource(live).topic, from);
    const { incarnation } = JSON.parse(
      await lake.alter({ op: "replay-start", db, name, source, withoutEpochs }),
    );
    if (context.json) printJson({ incarnation });
    else
      print(
        `${incarnation} is being filled; see \`vexlake replay list ${name}\`, then \`vexlake promote ${name}\``,
      );
    return EXIT.ok;
  } finally {
    await log.close();
    await close();
  }
}

async function list(context: Context): Promise<number> {
  const name = positional(context.args, 1, "collection");
  const { lake, close } = await openLake(context, "cli");
  const { live, fed } = await findCollection(lake, whole(context.args, "db", 0, 15) ?? 0, name);
  await close();
  if (context.json) printJson({ live, fed });
  else {
    const behind = (of: Incarnation): number =>
      live.partitions.reduce((sum, { source, partition, checkpoint }) => {
        const same = of.partitions.find(
          (other) => other.partition === partition && epochKey(of, other.source) === epochKey(live, source),
        );
        return sum + Math.max(0, Number(checkpoint.next) - Number(same?.checkpoint.next ?? checkpoint.start));
      }, 0);
    const rows = [live, ...fed].map((of, i) => [
      of.incarnation,
      i === 0 ? "live" : "fed",
      ...(isOpen(of) ? [of.version, of.committedRecords, behind(of)] : [of.code, "-", "-"]),
    ]);
    print(columns(["incarnation", "is", "version", "records", "offsets behind live"], rows));
  }
  return EXIT.ok;
}

/** What offsets of a source belong to, the same in every incarnation of a collection. */
function epochKey(of: Incarnation, source: number): string {
  const { kind, cluster, topic, epoch } = of.sources[source] as Incarnation["sources"][string];
  return JSON.stringify([kind, cluster, topic, epoch]);
}

async function retire(context: Context): Promise<number> {
  const name = positional(context.args, 1, "collection");
  const incarnation = positional(context.args, 2, "incarnation");
  const { lake, close } = await openLake(context, "cli");
  await lake.alter({ op: "replay-retire", db: whole(context.args, "db", 0, 15) ?? 0, name, incarnation });
  await close();
  if (context.json) printJson({ incarnation, leaving: true });
  else print(`${incarnation} is leaving; its files go with the next gc`);
  return EXIT.ok;
}
