/** What the four long-running commands share: version, ready line, registry, waiting for the end. */
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";
import type { Lake } from "@vexlake/core";
import { Gauge, type Registry } from "prom-client";
import { formatAddress, type ListenAddress } from "../common/process/listen.ts";
import {
  createRegistry,
  exposeInvariants,
  exposeSnapshot,
  type InvariantCounts,
} from "../common/process/metrics.ts";
import type { Shutdown } from "../common/process/shutdown.ts";
import { type Context, lakeStore } from "./context.ts";

const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");

export const VERSION: string = (JSON.parse(manifest) as { version: string }).version;

/** The one line on standard output (DESIGN §11), with what this process has of it. */
export function readyLine(
  context: Context,
  { resp, http }: { resp?: ListenAddress; http: ListenAddress },
  withLog = true,
): string {
  const { kind, brokers = [] } = context.loaded.config.log;
  const words = [
    ...(resp === undefined ? [] : [`resp=${formatAddress(resp)}`]),
    `http=${formatAddress(http)}`,
    ...(withLog ? [`log=${kind === "kafka" ? `kafka:${brokers.join(",")}` : "local"}`] : []),
    `store=${lakeStore(context).url}`,
    `version=${VERSION}`,
  ];
  return `ready ${words.join(" ")}\n`;
}

/** A registry with the process's defaults and the core's counters. */
export function processRegistry(role: string, lake: Lake): Registry {
  const registry = createRegistry(role);
  new Gauge({
    name: "vexlake_event_loop_active_seconds_total",
    help: "time that JavaScript's thread was busy since the start",
    registers: [registry],
    collect() {
      this.set(performance.eventLoopUtilization().active / 1_000);
    },
  });
  const snapshot = () => JSON.parse(lake.metrics()) as Record<string, unknown>;
  exposeSnapshot(registry, () => {
    const { invariants: _, recall: __, ...groups } = snapshot();
    return flatten(groups);
  });
  exposeInvariants(registry, () => snapshot().invariants as InvariantCounts);
  return registry;
}

/** {"cache": {"bytesMax": 1}} → {"cache_bytes_max": 1}: one level of metric names. */
function flatten(snapshot: Record<string, unknown>): string {
  const flat: Record<string, unknown> = {};
  for (const [group, values] of Object.entries(snapshot)) {
    if (typeof values !== "object" || values === null) continue;
    for (const [key, value] of Object.entries(values)) {
      flat[`${group}_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`] = value;
    }
  }
  return JSON.stringify(flat);
}

/** Says that all is ready; resolves with the exit code once a signal has closed everything. */
export function untilStopped(shutdown: Shutdown, ready: string): Promise<number> {
  return new Promise((resolve) => {
    const off = shutdown.onSignals((code) => {
      off();
      resolve(code);
      // Sockets of clients that never hang up must not keep a closed process alive.
      setImmediate(() => process.exit(code));
    });
    // After the handlers: whoever reads the line may send a signal at once.
    process.stdout.write(ready);
  });
}
