/**
 * What a subcommand works with: configuration, data directory, the lake, the log, the running server.
 *
 * Addresses of the running `vexlake up` come from <data-dir>/run/ports.json, which it writes when it is
 * ready: they rank below flags, environment and file, so that every command works from the directory
 * that `npm start` was called in without naming a port.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { Lake } from "@vexlake/core";
import { type LoadedConfig, loadConfig, storeOptions } from "../common/config/load.ts";
import type { LogSource } from "../common/log/source.ts";
import { VexError } from "../common/process/error.ts";
import type { Logger } from "../common/process/logger.ts";
import { createLogger } from "../common/process/logger.ts";
import type { Arguments } from "./args.ts";
import { text } from "./args.ts";

/** What a running `vexlake up` says of itself in ports.json. */
export interface Running {
  pid: number;
  resp: string;
  http: string;
  log: { kind: "kafka" | "local"; brokers?: string[] };
  store: { url: string; endpoint?: string; pathStyle?: boolean };
  redis?: string;
}

export interface Context {
  args: Arguments;
  loaded: LoadedConfig;
  dataDir: string;
  running: Running | null;
  logger: Logger;
  json: boolean;
}

export async function openContext(args: Arguments, role: string): Promise<Context> {
  const dataDir = resolve(text(args, "data-dir") ?? ".vexlake");
  const running = readRunning(dataDir);
  const file = text(args, "config");
  const flags = { ...args.config };
  const port = text(args, "port");
  const httpPort = text(args, "http-port");
  if (port !== undefined) flags["query.resp"] = `127.0.0.1:${port}`;
  if (httpPort !== undefined) flags["query.http"] = `127.0.0.1:${httpPort}`;
  const loaded = await loadConfig({ ...(file === undefined ? {} : { file }), env: process.env, flags });
  const level = process.env.VEXLAKE_LOGGING ?? (role === "cli" ? "warn" : "info");
  const logger = createLogger({ role, level: level as "info" });
  const context = { args, loaded, dataDir, running, logger, json: args.flags.json === true };
  if (role === "cli" && running) adopt(context, running);
  return context;
}

/** Takes over where the running lake lies, unless a person said otherwise. */
function adopt({ loaded }: Context, running: Running): void {
  const { config, given } = loaded;
  if (!given("log.kind") && !given("log.brokers")) {
    config.log.kind = running.log.kind;
    if (running.log.brokers) config.log.brokers = running.log.brokers;
  }
  if (!given("store.url")) {
    config.store.url = running.store.url;
    if (running.store.endpoint !== undefined && !given("store.endpoint"))
      config.store.endpoint = running.store.endpoint;
    if (running.store.pathStyle !== undefined) config.store.path_style = running.store.pathStyle;
  }
}

export interface OpenLake {
  lake: Lake;
  close(): Promise<void>;
}

/**
 * RAM for blocks and index pages of a process that answers no searches. Ingest looks up keys: the filters,
 * which lie outside, refuse all but 1 of 65,536 that are new, and of keys that are not, a page of 14 KiB
 * each names where they lie; 64 MiB are 4,600 of those. Merges read past the cache.
 */
const LOOKUP_CACHE_BYTES = 64 * 1_048_576;

/** Opens the configured lake. Each process has a spool of its own, named by its pid. */
export async function openLake(context: Context, role: string): Promise<OpenLake> {
  const { loaded, dataDir } = context;
  const spools = join(dataDir, "run", "spool");
  await mkdir(spools, { recursive: true });
  for (const left of await readdir(spools)) {
    if (!runs(Number(left))) await rm(join(spools, left), { recursive: true, force: true });
  }
  const spoolDir = join(spools, String(process.pid));
  const crashAt = process.env.VEXLAKE_CRASH_AT;
  const lake = await Lake.open({
    store: lakeStore(context),
    role,
    instance: `${hostname()}-${process.pid}`,
    spoolDir,
    cacheBytes:
      role === "ingest" || role === "compactor" ? LOOKUP_CACHE_BYTES : loaded.config.query.cache_bytes_max,
    ...(crashAt === undefined || role === "cli" ? {} : { crashAt }),
  });
  const close = async (): Promise<void> => {
    await lake.close();
    await rm(spoolDir, { recursive: true, force: true });
  };
  return { lake, close };
}

/** Where the lake lies, with credentials from the environment. */
export function lakeStore({ loaded, dataDir }: Context): ReturnType<typeof storeOptions> {
  return storeOptions(loaded.config, process.env, join(dataDir, "lake"));
}

/** Opens and starts the configured log. */
export async function openLog({ loaded, dataDir, logger }: Context): Promise<LogSource> {
  const { kind, brokers, session_timeout_ms: sessionTimeoutMs } = loaded.config.log;
  let log: LogSource;
  if (kind === "kafka") {
    const { KafkaSource } = await import("../common/log/kafka/source.ts");
    log = new KafkaSource({ brokers: brokers ?? [], sessionTimeoutMs, logger });
  } else {
    const { LocalSource } = await import("../common/log/local/source.ts");
    log = new LocalSource({ directory: join(dataDir, "log"), logger });
  }
  await log.start();
  return log;
}

/** The HTTP address of the running lake; an error says how to start one. */
export function requireRunning({ running, loaded, dataDir }: Context): { http: string; resp: string } {
  if (running) return running;
  if (loaded.given("query.http")) return { http: loaded.config.query.http, resp: loaded.config.query.resp };
  throw new VexError(
    "UNREACHABLE",
    `no running lake in ${dataDir}: start one with npm start, or give --http-port`,
  );
}

function portsFile(dataDir: string): string {
  return join(dataDir, "run", "ports.json");
}

function readPorts(dataDir: string): Record<string, unknown> {
  const file = portsFile(dataDir);
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>) : {};
}

function readRunning(dataDir: string): Running | null {
  const up = readPorts(dataDir).up as Running | undefined;
  return up !== undefined && runs(up.pid) ? up : null;
}

function runs(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Tells other commands where this lake is served; null when it ends. */
export async function announce(dataDir: string, running: Running | null): Promise<void> {
  const { up: _, ...others } = readPorts(dataDir);
  const file = portsFile(dataDir);
  const draft = `${file}.${process.pid}`;
  await mkdir(join(dataDir, "run"), { recursive: true });
  await writeFile(draft, `${JSON.stringify(running ? { ...others, up: running } : others, null, 2)}\n`);
  await rename(draft, file);
}
