/** collection create | list | drop. */
import { createCollection, isOpen, parseBeginning, readCatalog } from "../../common/catalog.ts";
import { ConfigError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, text, whole } from "../args.ts";
import { type Context, openContext, openLake, openLog } from "../context.ts";
import { byteText, columns, print, printJson } from "../output.ts";
import { serverCall } from "../server.ts";

export async function run(args: Arguments): Promise<number> {
  const action = positional(args, 0, "create|list|drop");
  const context = await openContext(args, "cli");
  if (action === "list") return await list(context);
  if (action === "create") return await create(context);
  if (action === "drop") return await drop(context);
  throw new ConfigError(`collection ${action} is not known: create, list, drop`);
}

async function list(context: Context): Promise<number> {
  const { lake, close } = await openLake(context, "cli");
  const all = await readCatalog(lake);
  await close();
  if (context.json) printJson(all);
  else {
    const rows = all.map(({ db, name, live, fed }) => {
      const shown = isOpen(live)
        ? [
            live.schema.dim,
            live.schema.metric,
            live.committedRecords,
            live.segments,
            byteText(live.bytes),
            live.version,
          ]
        : [live.code, "-", "-", "-", "-", "-"];
      return [db, name, ...shown, live.incarnation, fed.length];
    });
    const titles = [
      "db",
      "name",
      "dim",
      "metric",
      "records",
      "segments",
      "bytes",
      "version",
      "incarnation",
      "fed",
    ];
    print(columns(titles, rows));
  }
  return EXIT.ok;
}

async function create(context: Context): Promise<number> {
  const { args } = context;
  const name = positional(args, 1, "name");
  const dim = whole(args, "dim", 1, 65_536);
  if (dim === undefined) throw new ConfigError("--dim is missing: components of a vector, 1 to 65536");
  const wanted = {
    db: whole(args, "db", 0, 15) ?? 0,
    name,
    dim,
    metric: text(args, "metric") ?? "cosine",
    format: text(args, "format") ?? "f32",
    partitions: whole(args, "partitions", 1, 1_024) ?? 4,
  };
  const from = parseBeginning(text(args, "from") ?? "latest");
  // A local log belongs to the process that runs it, so that one creates the topic.
  if (context.running?.log.kind === "local") {
    if (from.at !== "latest")
      throw new ConfigError("--from needs a Kafka log, or a lake that is not running");
    printJson(await serverCall(context, "POST", "/api/v1/collections", wanted));
    return EXIT.ok;
  }
  const [opened, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const incarnation = await createCollection(opened.lake, log, { ...wanted, from });
    if (context.json) printJson({ ...wanted, incarnation });
    else print(`created ${wanted.db}/${name} (${dim}-d ${wanted.metric}) as ${incarnation}`);
    return EXIT.ok;
  } finally {
    await log.close();
    await opened.close();
  }
}

async function drop(context: Context): Promise<number> {
  const name = positional(context.args, 1, "name");
  const db = whole(context.args, "db", 0, 15) ?? 0;
  const { lake, close } = await openLake(context, "cli");
  await lake.alter({ op: "drop", db, name });
  await close();
  if (context.json) printJson({ db, name, dropped: true });
  else print(`dropped ${db}/${name}; its files go with the next gc, its topic stays`);
  return EXIT.ok;
}
