/** source list: where each collection's records come from. accept and switch are not there yet and say so. */
import { readCatalog } from "../../common/catalog.ts";
import { ConfigError, VexError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { columns, print, printJson } from "../output.ts";

export async function run(args: Arguments): Promise<number> {
  const action = positional(args, 0, "list|accept|switch");
  if (action === "accept" || action === "switch") {
    throw new VexError("INVALID", `source ${action} is not there yet: start a replay from the log's earliest record instead`);
  }
  if (action !== "list") throw new ConfigError(`source ${action} is not known: list, accept, switch`);
  const context = await openContext(args, "cli");
  const { lake, close } = await openLake(context, "cli");
  const wanted = args.positionals[1];
  const all = (await readCatalog(lake)).filter(({ name }) => wanted === undefined || name === wanted);
  await close();
  if (context.json) {
    printJson(all.map(({ db, name, live }) => ({ db, name, sources: live.sources })));
    return EXIT.ok;
  }
  const rows = all.flatMap(({ db, name, live }) =>
    Object.entries(live.sources).map(([id, source]) => [
      db, name, id, source.rank, source.epoch, source.kind, source.cluster, source.topic,
      Object.entries(source.starts).map(([partition, start]) => `${partition}:${start}`).join(","),
    ]),
  );
  print(columns(["db", "collection", "source", "rank", "epoch", "kind", "cluster", "topic", "starts"], rows));
  return EXIT.ok;
}
