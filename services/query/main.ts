/**
 * The query service: builds its graph and starts it.
 *
 * collections (router, follower) ← core, log, visibility; writer ← core, log, visibility
 * RESP server and HTTP (/api/v1, /, /livez, /readyz, /metrics, and what others mount) ← both
 *
 * Both servers listen before the catalog is read, so that a client hears LOADING instead of a refused
 * connection; the promise resolves when the catalog has been read. Closed in reverse: servers first, then
 * the follower. The same function serves a query node (visibility = tails of its own) and `vexlake up`
 * (visibility = ingest's feeds, whose memtables are the tail). Lake, log and visibility belong to the caller.
 */
import type { Registry } from "prom-client";
import type { Config } from "../common/config/schema.ts";
import type { LogSource } from "../common/log/source.ts";
import { type Handler, HttpServer, type ReadyCheck } from "../common/process/http.ts";
import { type ListenAddress, parseAddress } from "../common/process/listen.ts";
import type { Logger } from "../common/process/logger.ts";
import { Collections, DATABASES } from "./collections.ts";
import type { CommandContext } from "./commands/command.ts";
import type { QueryCore } from "./core.ts";
import { API_PATH, apiHandler } from "./http/api.ts";
import { pageHandler } from "./http/page.ts";
import { QueryMetrics } from "./metrics.ts";
import { exposeRecall } from "./recall.ts";
import { BULK_BYTES_MAX } from "./resp/parser.ts";
import { CLIENTS_MAX, RespServer } from "./resp/server.ts";
import type { Visibility } from "./visibility.ts";
import { Writer } from "./writer.ts";

/** Readiness: a follower that has failed for longer than this many of its rounds says so. */
const BEHIND_MS_MAX = 10_000;
/** A flip that could not wait for the promoted incarnation. */
const FLIP_WARNINGS = {
  late: "promotion followed at the deadline: reads may have gone back to what the promoted incarnation has consumed",
  gone: "promotion followed before its time, as the predecessor is no longer fed: reads may have gone back",
};

export type QueryConfig = Pick<Config, "query">;

/** Something that another part of the process serves on this HTTP server. */
export interface Mount {
  path: string;
  handler: Handler;
  /** as the page at `/` links to it; without one it is not linked */
  title?: string;
}

export interface QueryDeps {
  lake: QueryCore;
  log: LogSource;
  visibility: Visibility;
  logger: Logger;
  registry: Registry;
  version: string;
  /** whether a person chose this key's value; a given port that is taken is an error */
  given?: (key: string) => boolean;
  /** undefined: everybody may connect, as to a Redis without requirepass */
  password?: string | undefined;
  mounts?: readonly Mount[];
  readyChecks?: Readonly<Record<string, ReadyCheck>>;
  clock?: () => number;
}

export interface Query {
  resp: ListenAddress;
  http: ListenAddress;
  collections: Collections;
  /** For upgrades and later mounts. */
  httpServer: HttpServer;
  close(): Promise<void>;
}

export async function startQuery(config: QueryConfig, deps: QueryDeps): Promise<Query> {
  const { lake, log, visibility, logger, registry, given = () => false } = deps;
  const clock = deps.clock ?? Date.now;
  const metrics = new QueryMetrics(registry, {
    connections: () => respServer.connections,
    queuedBytes: () => writer.queuedBytes,
    flipping: () => collections.flipping,
  });
  exposeRecall(registry, lake);
  const collections = new Collections({
    core: lake,
    log,
    visibility,
    clock,
    onFailure: (error) => logger.warn({ err: error }, "following commits failed, trying again"),
    onFlip: (flip) => {
      metrics.flipped(flip);
      if (flip.outcome === "caught-up") logger.info(flip, "promotion followed");
      else logger.warn(flip, FLIP_WARNINGS[flip.outcome]);
    },
  });
  const writer = new Writer({ core: lake, log, visibility, collections });
  const settings = initialSettings();
  const shared: Omit<CommandContext, "sessions"> = {
    core: lake,
    collections,
    writer,
    visibility,
    metrics,
    password: deps.password,
    version: deps.version,
    startedMs: clock(),
    clock,
    settings,
  };
  const respServer = new RespServer({ context: shared });
  const httpServer = createHttp(respServer.context, deps);
  try {
    const resp = await respServer.start(parseAddress(config.query.resp), given("query.resp"));
    settings.set("bind", resp.host).set("port", String(resp.port));
    const http = await httpServer.start(parseAddress(config.query.http), given("query.http"));
    await collections.start();
    logger.info({ resp, http, collections: collections.all().length }, "query started");
    return { resp, http, collections, httpServer, close };
  } catch (error) {
    await close();
    throw error;
  }

  async function close(): Promise<void> {
    await Promise.all([respServer.close(), httpServer.close()]);
    await collections.close();
  }
}

function createHttp(
  context: CommandContext,
  { logger, registry, password, mounts = [], readyChecks = {} }: QueryDeps,
): HttpServer {
  const server = new HttpServer({ registry, logger, password });
  server.addReadyCheck("catalog", () => catalogState(context));
  for (const [name, check] of Object.entries(readyChecks)) server.addReadyCheck(name, check);
  server.mount(API_PATH, apiHandler(context));
  server.mount("/", pageHandler({ context, links: mounts }));
  for (const { path, handler } of mounts) server.mount(path, handler);
  return server;
}

function catalogState({ collections, clock }: CommandContext): string | null {
  if (!collections.opened) return "the catalog is being read";
  const ageMs = clock() - collections.listedMs;
  if (ageMs <= BEHIND_MS_MAX) return null;
  const why = collections.failure instanceof Error ? `: ${collections.failure.message}` : "";
  return `the catalog was last read ${ageMs} ms ago${why}`;
}

/** What CONFIG GET answers; redis-benchmark asks for save and appendonly. */
function initialSettings(): Map<string, string> {
  return new Map([
    ["save", ""],
    ["appendonly", "yes"],
    ["databases", String(DATABASES)],
    ["maxclients", String(CLIENTS_MAX)],
    ["maxmemory", "0"],
    ["proto-max-bulk-len", String(BULK_BYTES_MAX)],
    ["timeout", "0"],
    ["tcp-keepalive", "300"],
  ]);
}
