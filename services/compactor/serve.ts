/**
 * The compactor as a process of its own: graph, then HTTP server, closed in reverse.
 *
 * The command line passes what all roles share: the loaded configuration, a logger, a registry, a
 * Shutdown, and how to open the lake. /livez, /readyz, /metrics and /jobs are
 * served on `compactor.http`; a default port that is taken moves to the next free one, a given one
 * is an error (DESIGN §11). The server starts last, so that /readyz never answers for a half graph.
 */
import type { Registry } from "prom-client";
import type { LoadedConfig } from "../common/config/load.ts";
import { HttpServer } from "../common/process/http.ts";
import { type ListenAddress, parseAddress } from "../common/process/listen.ts";
import type { Logger } from "../common/process/logger.ts";
import type { Shutdown } from "../common/process/shutdown.ts";
import type { CoreLake } from "./core.ts";
import { type Compactor, type CompactorDeps, startCompactor } from "./main.ts";
import { JOBS_PATH } from "./page.ts";

export interface ServeDeps {
  logger: Logger;
  registry: Registry;
  /** Gets every part as it starts; the caller decides when it runs. Whoever opens the lake adds it first. */
  shutdown: Shutdown;
  openLake(): Promise<CoreLake>;
  password?: string | undefined;
  tuning?: CompactorDeps["tuning"];
}

export async function serveCompactor(
  { config, given }: LoadedConfig,
  deps: ServeDeps,
): Promise<{ compactor: Compactor; http: ListenAddress }> {
  const { logger, registry, shutdown, tuning, password } = deps;
  const lake = await deps.openLake();
  const compactor = await startCompactor(config, { lake, logger, registry, tuning });
  shutdown.add("compactor", () => compactor.close());
  const server = new HttpServer({ registry, logger, password });
  server.mount(JOBS_PATH, compactor.jobsHandler);
  server.addReadyCheck("compactor", compactor.readyCheck);
  const http = await server.start(parseAddress(config.compactor.http), given("compactor.http"));
  shutdown.add("http", () => server.close());
  return { compactor, http };
}
