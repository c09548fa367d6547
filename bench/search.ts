/**
 * bench search: the exact scan of the real engine against the read bandwidth of the same run.
 *
 * Runs crates/lsm/examples/scan.rs with the optimised profile: segments are flushed by the engine into a
 * directory store, read back through the cache, and searched; the data is at least four times the
 * last-level cache, so that the scan is bound by memory.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const help = "[--rows <n>] [--dim <n>] [--searches <n>]";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

export async function run(args: string[]): Promise<Record<string, unknown>> {
  const cargo = [
    "run",
    "--profile",
    "fast",
    "--quiet",
    "-p",
    "vexlake-lsm",
    "--example",
    "scan",
    "--",
    ...args,
  ];
  const { stdout } = await promisify(execFile)("cargo", cargo, { cwd: ROOT, maxBuffer: 1 << 20 });
  return JSON.parse(stdout) as Record<string, unknown>;
}
