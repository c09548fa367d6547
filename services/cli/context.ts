/**
 * What a subcommand works with: configuration, data directory, the lake, the log, the running server.
 *
 * What the running `vexlake up` announces (running.ts) ranks below flags, environment and file, so that every
 * command works from the directory that `npm start` was called in without naming a port.
 */
import { mkdir, readdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { Lake } from "@vexlake/core";
import { type LoadedConfig, loadConfig, storeOptions } from "../common/config/load.ts";
import type { LogSource } from "../common/log/source.ts";
import { ConfigError, VexError } from "../common/process/error.ts";
import { isRunning, ownIdentity } from "../common/process/identity.ts";
import { type ListenAddress, parseAddress } from "../common/process/listen.ts";
import { createLogger, LEVELS, type Logger, type LogLevel } from "../common/process/logger.ts";
import type { Arguments } from "./args.ts";
import { text } from "./args.ts";
import { type Running, readRunning } from "./running.ts";

export interface Context {
  args: Arguments;
  loaded: LoadedConfig;
  dataDir: string;
  running: Running | null;
  logger: Logger;
  json: boolean;
  /** What servers ask for and clients send; absent: nobody is asked. */
  password: string | undefined;
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
  const logger = createLogger({ role, level: logLevel(role) });
  // As with Redis's requirepass, an empty password is none.
  const password = process.env.VEXLAKE_PASSWORD || undefined;
  const context = { args, loaded, dataDir, running, logger, json: args.flags.json === true, password };
  if (role === "cli" && running) adopt(context, running);
  return context;
}

function logLevel(role: string): LogLevel {
  const level = process.env.VEXLAKE_LOGGING ?? (role === "cli" ? "warn" : "info");
  if ((LEVELS as readonly string[]).includes(level)) return level as LogLevel;
  throw new ConfigError(`VEXLAKE_LOGGING is ${JSON.stringify(level)}, expected one of ${LEVELS.join(", ")}`);
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

/** Opens the configured lake. Each process has a spool of its own, named by who it is. */
export async function openLake(context: Context, role: string): Promise<OpenLake> {
  const { loaded, dataDir } = context;
  const spools = join(dataDir, "run", "spool");
  await mkdir(spools, { recursive: true });
  for (const left of await readdir(spools)) {
    const [, pid, started] = /^(\d+)-(.+)$/.exec(left) ?? [];
    if (pid !== undefined && started !== undefined && isRunning({ pid: Number(pid), started })) continue;
    await rm(join(spools, left), { recursive: true, force: true });
  }
  const { pid, started } = ownIdentity();
  const spoolDir = join(spools, `${pid}-${started}`);
  const crashAt = process.env.VEXLAKE_CRASH_AT;
  const { cache_bytes_max: cacheBytesMax, recall_sample_ratio: recallSampleRatio } = loaded.config.query;
  const searches = role === "query" || role === "up";
  // A quarter: what comes in by a switch must not push out all that searches hold.
  const forSearches = searches ? { recallSampleRatio, warmBytes: Math.floor(cacheBytesMax / 4) } : {};
  const lake = await Lake.open({
    store: lakeStore(context),
    role,
    instance: `${hostname()}-${process.pid}`,
    spoolDir,
    cacheBytes: role === "ingest" || role === "compactor" ? LOOKUP_CACHE_BYTES : cacheBytesMax,
    ...forSearches,
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

/**
 * Where the lake serves: what a person said, else what runs in the data directory. `port` and `http-port` so
 * name another lake even where one runs here.
 */
export function addressOf({ running, loaded, dataDir }: Context, surface: "resp" | "http"): ListenAddress {
  const said = parseAddress(loaded.config.query[surface]);
  // Port 0 is "any": it tells a server where to listen, and nobody where to ask.
  if (loaded.given(`query.${surface}`) && said.port !== 0) return said;
  if (running) return parseAddress(running[surface]);
  const flag = surface === "resp" ? "--port" : "--http-port";
  const message = `no running lake in ${dataDir}: start one with npm start, or give ${flag}`;
  throw new VexError("UNREACHABLE", message);
}

/** The running lake has the log of this data directory open, and a local log belongs to one process. */
export function logIsHeld({ running, loaded }: Context): boolean {
  return running?.log.kind === "local" && loaded.config.log.kind === "local";
}

/** Work that needs the log is the server's: the one that holds the log, or the one that --http-port names. */
export function isServersWork(context: Context): boolean {
  return logIsHeld(context) || context.loaded.origins.get("query.http") === "flag";
}
