/**
 * compact: runs the merges that are due, here and now, beside whatever compactor runs. The commit
 * decides: a merge whose inputs are gone ends as superseded.
 */
import { findCollection } from "../../common/catalog.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { print, printJson } from "../output.ts";

interface Spec {
  id: string;
  reason: string;
  inputs: string[];
}

export async function run(args: Arguments): Promise<number> {
  const name = positional(args, 0, "collection");
  const context = await openContext(args, "cli");
  const { memory_bytes_max, bytes_per_second_max, delete_retention_ms } = context.loaded.config.compactor;
  const plan = JSON.stringify({ memoryBytesMax: memory_bytes_max, deleteRetentionMs: delete_retention_ms });
  const caps = JSON.stringify({
    memoryBytesMax: memory_bytes_max,
    bytesPerSecondMax: bytes_per_second_max,
  });
  const { lake, close } = await openLake(context, "cli");
  try {
    const { live } = await findCollection(lake, whole(args, "db", 0, 15) ?? 0, name);
    const specs = JSON.parse(await lake.plan(live.incarnation, plan)) as Spec[];
    const outcomes: unknown[] = [];
    for (const spec of specs) {
      if (!context.json) print(`${spec.id}: ${spec.reason}`);
      if (args.flags["dry-run"] === true) continue;
      const outcome = JSON.parse(await lake.run(JSON.stringify(spec), undefined, `cli-${process.pid}`, caps));
      outcomes.push(outcome);
      if (!context.json) print(`  ${outcome.status}: ${outcome.rows} entries, ${outcome.dropped} dropped`);
    }
    if (context.json) printJson({ specs, outcomes });
    else if (specs.length === 0) print("no merge is due");
    return EXIT.ok;
  } finally {
    await close();
  }
}
