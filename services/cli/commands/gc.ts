/** gc: collects the garbage of one collection or all, and finishes what is leaving. */
import { readCatalog } from "../../common/catalog.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { byteText, print, printJson } from "../output.ts";

/** An hour: longer than any query or merge under way. */
const GRACE_MS = 3_600_000;

interface Collected {
  retainFrom: number;
  slots: number;
  objects: string[];
  bytes: number;
}

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "cli");
  const [name] = args.positionals;
  const db = whole(args, "db", 0, 15) ?? 0;
  const options = JSON.stringify({
    graceMs: whole(args, "grace-ms", 0, Number.MAX_SAFE_INTEGER) ?? GRACE_MS,
    dryRun: args.flags["dry-run"] === true,
  });
  const { lake, close } = await openLake(context, "cli");
  try {
    const report: Record<string, Collected> = {};
    // One that fails keeps the others from nothing; the first failure is told at the end.
    const failures: unknown[] = [];
    for (const one of await readCatalog(lake)) {
      if (name !== undefined && (one.name !== name || one.db !== db)) continue;
      for (const { incarnation } of [one.live, ...one.fed]) {
        try {
          report[`${one.db}/${one.name}/${incarnation}`] = JSON.parse(
            await lake.gc(incarnation, options),
          ) as Collected;
        } catch (thrown) {
          failures.push(thrown);
        }
      }
    }
    const left =
      args.flags["dry-run"] === true || name !== undefined ? [] : JSON.parse(await lake.gc(null)).left;
    if (context.json) printJson({ collected: report, left });
    else {
      for (const [where, { retainFrom, slots, objects, bytes }] of Object.entries(report)) {
        print(
          `${where}: ${objects.length} objects (${byteText(bytes)}), ${slots} commits below version ${retainFrom}`,
        );
      }
      for (const incarnation of left) print(`${incarnation}: retired and removed`);
    }
    if (failures.length > 0) throw failures[0];
    return EXIT.ok;
  } finally {
    await close();
  }
}
