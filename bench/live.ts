/**
 * bench live: searches while rows arrive, flushes and merges included, against the same searches when nothing
 * does. Latencies count from the moment a search was due.
 *
 * Runs crates/lsm/examples/live.rs with the optimised profile, which says what its phases do. With --set the
 * vectors are those of a folder that crates/index's example `generate` filled; bench core keeps its sets in
 * target/bench/.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

export const help =
  "[--rows <n>] [--dim <n>] [--seconds <n>] [--rate <rows/s>] [--fast <rows/s>] [--set <folder>]";

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
    "live",
    "--",
    ...args,
  ];
  const { stdout } = await promisify(execFile)("cargo", cargo, { cwd: ROOT, maxBuffer: 1 << 20 });
  return JSON.parse(stdout) as Record<string, unknown>;
}
