/** What a figure needs beside it: commit, machine, kernels. */
import { execFileSync } from "node:child_process";
import { cpus, totalmem } from "node:os";
import { Lake } from "@vexlake/core";

export function describeMachine(): Record<string, unknown> {
  const { kernels } = JSON.parse(Lake.doctor()) as { kernels: string };
  return {
    commit: git("rev-parse", "--short", "HEAD"),
    dirty: git("status", "--porcelain") !== "",
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryBytes: totalmem(),
    node: process.version,
    kernels,
  };
}

function git(...args: string[]): string {
  try {
    return execFileSync("git", args, { encoding: "utf8", cwd: new URL(".", import.meta.url) }).trim();
  } catch {
    return "unknown";
  }
}
