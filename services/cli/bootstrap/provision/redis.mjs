/*
 * The jobs' Redis: a redis-server (or valkey-server) found on PATH, without persistence. It holds
 * job bookkeeping only, and every planner tick derives the jobs again, so nothing is lost with it.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { EXIT, LauncherError } from "../errors.mjs";
import { onPath } from "../exec.mjs";
import { freePorts, HOST } from "../ports.mjs";
import { installLine } from "../prerequisites.mjs";
import { probeRedis } from "../probes.mjs";
import { pidFileIn, startProcess, waitReady } from "../processes.mjs";

const READY_DEADLINE_MS = 20_000;

export function redisServer() {
  return onPath("redis-server") ?? onPath("valkey-server");
}

/** {usable, why}; `why` completes "jobs: … because …". */
export function redisRuntime() {
  const command = redisServer();
  if (command) return { usable: true, command, why: "redis-server is on PATH" };
  return { usable: false, why: `redis-server was not found (${installLine("redis")})` };
}

/**
 * Starts it with its folder `dir`; answers {url, port, supervised, stop}.
 * @param {{dir: string, pids: string, port?: number, name?: string}} options
 */
export async function startRedis({ dir, pids, port, name = "redis" }) {
  const runtime = redisRuntime();
  if (!runtime.usable) throw new LauncherError(EXIT.prerequisite, runtime.why);
  mkdirSync(dir, { recursive: true });
  const chosen = port ?? (await freePorts(1))[0];
  const supervised = await startProcess({
    name,
    command: runtime.command,
    // BullMQ demands noeviction: an evicted key would be a lost job.
    args: [
      "--port",
      `${chosen}`,
      "--bind",
      HOST,
      "--dir",
      dir,
      "--save",
      "",
      "--appendonly",
      "no",
      "--maxmemory-policy",
      "noeviction",
    ],
    logFile: join(dir, "redis.log"),
    pidFile: pidFileIn(pids, name),
    details: { port: chosen },
  });
  await waitReady(supervised, () => probeRedis({ host: HOST, port: chosen }), READY_DEADLINE_MS);
  return { url: `redis://${HOST}:${chosen}/0`, port: chosen, supervised, stop: () => supervised.stop() };
}
