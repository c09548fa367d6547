/** doctor: what this machine and this build are, and whether the configured store and log answer. */
import { Lake } from "@vexlake/core";
import { vexErrorFrom } from "../../common/process/error.ts";
import { EXIT, type ExitCode } from "../../common/process/exit.ts";
import type { Arguments } from "../args.ts";
import { lakeStore, logIsHeld, openContext, openLake, openLog } from "../context.ts";
import { print, printJson } from "../output.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "cli");
  const core = JSON.parse(Lake.doctor()) as {
    kernels: string;
    version: string;
    format: number;
    debug: boolean;
  };
  const checks: { check: string; ok: boolean; says: string; exit: ExitCode }[] = [];
  const probe = async (check: string, work: () => Promise<string>): Promise<void> => {
    try {
      checks.push({ check, ok: true, says: await work(), exit: EXIT.ok });
    } catch (thrown) {
      const error = vexErrorFrom(thrown);
      checks.push({ check, ok: false, says: `${error.code}: ${error.message}`, exit: error.exitCode });
    }
  };
  await probe(`store ${lakeStore(context).url}`, async () => {
    const { lake, close } = await openLake(context, "cli");
    const { lake: id } = JSON.parse((await lake.describe({ what: "lake" })) as string) as { lake: string };
    await close();
    return `create-only and compare-and-swap hold; lake ${id}`;
  });
  const { kind } = context.loaded.config.log;
  if (logIsHeld(context)) {
    checks.push({
      check: "log local",
      ok: true,
      says: `held by process ${context.running?.pid}`,
      exit: EXIT.ok,
    });
  } else {
    await probe(`log ${kind}`, async () => {
      const log = await openLog(context);
      const cluster = await log.cluster();
      await log.close();
      return `cluster ${cluster}`;
    });
  }
  if (context.json) printJson({ ...core, node: process.version, checks });
  else {
    print(`vexlake ${core.version}${core.debug ? " (debug build)" : ""}, lake format ${core.format}`);
    print(`kernels ${core.kernels}, node ${process.version}, ${process.platform}-${process.arch}`);
    for (const { check, ok, says } of checks) print(`${ok ? "ok  " : "FAIL"} ${check}: ${says}`);
  }
  return checks.find(({ ok }) => !ok)?.exit ?? EXIT.ok;
}
