/**
 * gc: collects the garbage of one collection or all, and finishes what is leaving; with --orphans also
 * incarnations that no name leads to, which a crash or a lost race left behind.
 */
import { findCollection, readCatalog } from "../../common/catalog.ts";
import { ConfigError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, whole } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { byteText, print, printJson } from "../output.ts";

/** An hour: longer than any query or merge under way. */
const GRACE_MS = 3_600_000;

interface Finished {
  left: string[];
  orphans: { incarnation: string; objects: number; bytes: number }[];
}

interface Collected {
  retainFrom: number;
  slots: number;
  objects: string[];
  bytes: number;
}

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "cli");
  const [name] = args.positionals;
  const db = whole(args, "db", 0, 15);
  const graceMs = whole(args, "grace-ms", 0, Number.MAX_SAFE_INTEGER) ?? GRACE_MS;
  const dryRun = args.flags["dry-run"] === true;
  const orphans = args.flags.orphans === true;
  const everything = name === undefined && db === undefined;
  if (orphans && !everything) {
    throw new ConfigError("--orphans looks through the whole lake: leave out the collection and --db");
  }
  const options = JSON.stringify({ graceMs, dryRun });
  const { lake, close } = await openLake(context, "cli");
  try {
    const report: Record<string, Collected> = {};
    // One that fails keeps the others from nothing; the first failure is told at the end.
    const failures: unknown[] = [];
    const wanted =
      name === undefined
        ? (await readCatalog(lake)).filter((one) => db === undefined || one.db === db)
        : [await findCollection(lake, db ?? 0, name)];
    for (const one of wanted) {
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
    let finished: Finished = { left: [], orphans: [] };
    if (everything && (orphans || !dryRun)) {
      finished = JSON.parse(await lake.gc(null, JSON.stringify({ graceMs, dryRun, orphans }))) as Finished;
    }
    if (context.json) printJson({ collected: report, ...finished });
    else {
      for (const [where, { retainFrom, slots, objects, bytes }] of Object.entries(report)) {
        print(
          `${where}: ${objects.length} objects (${byteText(bytes)}), ${slots} commits below version ${retainFrom}`,
        );
      }
      const will = dryRun ? "would be" : "is";
      for (const { incarnation, objects, bytes } of finished.orphans) {
        print(`${incarnation}: has no name and ${will} removed, ${objects} objects (${byteText(bytes)})`);
      }
      for (const incarnation of finished.left) print(`${incarnation}: retired and removed`);
    }
    if (failures.length > 0) throw failures[0];
    return EXIT.ok;
  } finally {
    await close();
  }
}
