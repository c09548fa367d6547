/**
 * verify: recounts the ledger of each collection against the log. Exit code 1 when a check failed.
 *
 * With Kafka it reads log and store itself, beside whatever runs. A local log belongs to the process
 * that has it open, so there the running lake is asked.
 */
import { findCollection, opened, readCatalog } from "../../common/catalog.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type VerifyReport, verifyIncarnation } from "../../common/verify.ts";
import { type Arguments, whole } from "../args.ts";
import { type Context, openContext, openLake, openLog } from "../context.ts";
import { print, printJson } from "../output.ts";
import { serverCall } from "../server.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "cli");
  const db = whole(args, "db", 0, 15) ?? 0;
  const reports = context.running?.log.kind === "local" ? await ask(context, db) : await recount(context, db);
  if (context.json) printJson(reports);
  else for (const [name, report] of Object.entries(reports)) print(describeReport(name, report));
  return Object.values(reports).every(({ ok }) => ok) ? EXIT.ok : EXIT.checkFailed;
}

type Reports = Record<string, VerifyReport>;

async function ask(context: Context, db: number): Promise<Reports> {
  const names = context.args.positionals.map((name) => `&collection=${encodeURIComponent(name)}`).join("");
  return (await serverCall(context, "POST", `/api/v1/verify?db=${db}${names}`)) as Reports;
}

async function recount(context: Context, db: number): Promise<Reports> {
  const [{ lake, close }, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const names = context.args.positionals;
    const collections =
      names.length === 0
        ? await readCatalog(lake)
        : await Promise.all(names.map((name) => findCollection(lake, db, name)));
    const reports: Reports = {};
    for (const one of collections)
      reports[`${one.db}/${one.name}`] = await verifyIncarnation(lake, log, opened(one.live));
    return reports;
  } finally {
    await log.close();
    await close();
  }
}

/** Offsets that a person accepted as lost to retention; mentioned only where there are any. */
function lostText(lost: string): string {
  return lost === "0" ? "" : ` + ${lost} accepted as lost`;
}

export function describeReport(name: string, report: VerifyReport): string {
  const { ledger, offsets, keys, missing, duplicated, dropped, entries, liveRows, version } = report;
  const lines = [
    `${report.ok ? "ok" : "FAILED"} ${name} at version ${version}: lost ${missing}, duplicated ${duplicated}`,
    `  ${offsets} offsets = ${ledger.kept} kept + ${ledger.superseded} superseded + ${ledger.dead_lettered} dead-lettered + ${ledger.not_records} not records${lostText(ledger.lost)}`,
    `  ${ledger.kept} kept - ${dropped} dropped by merges = ${entries} entries in live segments; ${liveRows} live records, ${keys} keys in the log`,
  ];
  if (report.timingDependent > 0) {
    lines.push(
      `  ${report.timingDependent} keys patched across partitions: their verdict depends on timing, not checked`,
    );
  }
  if (!report.recounted) lines.push("  the log no longer has every record: only sums were checked");
  for (const problem of report.problems) lines.push(`  ${problem}`);
  return lines.join("\n");
}
