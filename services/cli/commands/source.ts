/** source list | accept | switch: where records come from, and a person's decisions about it. */
import { findCollection, isOpen, liveSource, parseBeginning, readCatalog } from "../../common/catalog.ts";
import { ConfigError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { acceptChanges, switchSource } from "../../common/source-changes.ts";
import { type Arguments, positional, text, whole } from "../args.ts";
import { type Context, openContext, openLake, openLog } from "../context.ts";
import { columns, print, printJson } from "../output.ts";
import { serverCall } from "../server.ts";

export async function run(args: Arguments): Promise<number> {
  const action = positional(args, 0, "list|accept|switch");
  const context = await openContext(args, "cli");
  if (action === "list") return await list(context);
  if (action === "accept") return await accept(context);
  if (action === "switch") return await change(context);
  throw new ConfigError(`source ${action} is not known: list, accept, switch`);
}

async function list(context: Context): Promise<number> {
  const { lake, close } = await openLake(context, "cli");
  const wanted = context.args.positionals[1];
  const all = (await readCatalog(lake)).filter(({ name }) => wanted === undefined || name === wanted);
  await close();
  if (context.json) {
    printJson(
      all.map(({ db, name, live }) => ({ db, name, ...(isOpen(live) ? { sources: live.sources } : live) })),
    );
    return EXIT.ok;
  }
  const rows = all.flatMap(({ db, name, live }) => {
    if (!isOpen(live)) return [[db, name, live.code, "-", "-", "-", "-", "-", "-"]];
    return Object.entries(live.sources).map(([id, source]) => [
      db,
      name,
      id,
      source.rank,
      source.epoch,
      source.kind,
      source.cluster,
      source.topic,
      Object.entries(source.starts)
        .map(([partition, start]) => `${partition}:${start}`)
        .join(","),
    ]);
  });
  const titles = ["db", "collection", "source", "rank", "epoch", "kind", "cluster", "topic", "starts"];
  print(columns(titles, rows));
  return EXIT.ok;
}

/** Accepts the loss or the change that stopped partitions of a collection. */
async function accept(context: Context): Promise<number> {
  const { args } = context;
  const name = positional(args, 1, "collection");
  const db = whole(args, "db", 0, 15) ?? 0;
  const partition = whole(args, "partition", 0, 1_000_000);
  if (context.running?.log.kind === "local") {
    const only = partition === undefined ? "" : `&partition=${partition}`;
    printJson(
      await serverCall(
        context,
        "POST",
        `/api/v1/accept?db=${db}&collection=${encodeURIComponent(name)}${only}`,
      ),
    );
    return EXIT.ok;
  }
  const [{ lake, close }, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const { live } = await findCollection(lake, db, name);
    const accepted = await acceptChanges(lake, log, live, partition);
    if (context.json) printJson(accepted);
    else if (accepted.length === 0) print(`nothing to accept: ${name} and its topic agree`);
    else
      for (const { what, partition: p, from, to } of accepted)
        print(`${what}: partition ${p}, offsets ${from} to ${to}`);
    return EXIT.ok;
  } finally {
    await log.close();
    await close();
  }
}

/** Goes on with the configured log; needs a lake that is not running, since `up` refuses a foreign log. */
async function change(context: Context): Promise<number> {
  const { args } = context;
  const name = positional(args, 1, "collection");
  const from = parseBeginning(text(args, "from") ?? "earliest");
  const [{ lake, close }, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const { live } = await findCollection(lake, whole(args, "db", 0, 15) ?? 0, name);
    const topic = text(args, "topic") ?? liveSource(live).topic;
    await log.ensureTopic(topic, live.partitions.length || 1);
    const opened = await switchSource(lake, log, live, topic, from);
    if (context.json) printJson(opened);
    else print(`${name} goes on with ${log.kind} topic ${topic}`);
    return EXIT.ok;
  } finally {
    await log.close();
    await close();
  }
}
