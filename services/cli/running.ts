/**
 * Is a lake running here? This file alone answers it: `vexlake up` announces itself in
 * <data-dir>/run/ports.json when it is ready, and takes that back when it ends.
 *
 * An announcement counts only while the very process that made it runs: after a SIGKILL the file stays, and
 * its pid may belong to anybody. The launcher keeps the ports of its own engines in the same file.
 */
import { readFileSync } from "node:fs";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isRunning, type ProcessIdentity } from "../common/process/identity.ts";

/** What a running `vexlake up` says of itself. */
export interface Running extends ProcessIdentity {
  resp: string;
  http: string;
  log: { kind: "kafka" | "local"; brokers?: string[] };
  store: { url: string; endpoint?: string; pathStyle?: boolean };
  redis?: string;
}

export function readRunning(dataDir: string): Running | null {
  const { up } = readPorts(dataDir);
  return up !== undefined && isRunning(up) ? up : null;
}

/** Tells other commands where this lake is served; null when it ends. */
export async function announce(dataDir: string, running: Running | null): Promise<void> {
  const { up: _, ...others } = readPorts(dataDir);
  const file = portsFile(dataDir);
  const draft = `${file}.${process.pid}`;
  await mkdir(dirname(file), { recursive: true });
  await writeFile(draft, `${JSON.stringify(running ? { ...others, up: running } : others, null, 2)}\n`);
  await rename(draft, file);
}

function portsFile(dataDir: string): string {
  return join(dataDir, "run", "ports.json");
}

/** A file that is absent or damaged announces nothing. */
function readPorts(dataDir: string): { up?: Running } {
  try {
    const ports: unknown = JSON.parse(readFileSync(portsFile(dataDir), "utf8"));
    return typeof ports === "object" && ports !== null ? ports : {};
  } catch {
    return {};
  }
}
