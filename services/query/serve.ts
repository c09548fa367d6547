/**
 * The query service as a process of its own: lake, log, tails, graph; started in this order, closed in reverse.
 *
 * The command line opens nothing for it but passes what all roles share: the loaded configuration, a logger, a
 * registry, a Shutdown, and how to open lake and log.
 */
import type { Lake } from "@vexlake/core";
import type { Registry } from "prom-client";
import type { LoadedConfig } from "../common/config/load.ts";
import type { LogSource } from "../common/log/source.ts";
import type { Logger } from "../common/process/logger.ts";
import { exposeSnapshot } from "../common/process/metrics.ts";
import type { Shutdown } from "../common/process/shutdown.ts";
import { type Query, startQuery } from "./main.ts";
import { Tails } from "./tails.ts";

export interface ServeDeps {
  logger: Logger;
  registry: Registry;
  /** Gets every part as it starts; the caller decides when it runs. */
  shutdown: Shutdown;
  version: string;
  password?: string | undefined;
  openLake(): Promise<Lake>;
  /** Opened and started. */
  openLog(): Promise<LogSource>;
}

export async function serveQuery({ config, given }: LoadedConfig, deps: ServeDeps): Promise<Query> {
  const { logger, registry, shutdown, version, password } = deps;
  const lake = await deps.openLake();
  shutdown.add("lake", () => lake.close());
  exposeSnapshot(registry, () => lake.metrics());
  const log = await deps.openLog();
  shutdown.add("log", () => log.close());
  const tails = new Tails({ lake, log, logger, bytesMax: config.query.tail_bytes });
  await tails.start();
  shutdown.add("tails", () => tails.close());
  const query = await startQuery(config, {
    lake,
    log,
    visibility: tails,
    logger,
    registry,
    version,
    password,
    given,
    readyChecks: { tails: () => tails.notReady() },
    onListed: (views) => tails.listed(views),
  });
  shutdown.add("query", () => query.close());
  return query;
}
