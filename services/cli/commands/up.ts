/**
 * up: ingest, query and compactor in one process, on one lake and one log.
 *
 * This process owns every partition, so ingest's memtables are the query's tail. Everything is served on
 * query's two ports; ingest's and the compactor's HTTP surfaces are mounted there. stdout gets one
 * `ready …` line; the rest goes to stderr.
 */
import { join } from "node:path";
import { VexError } from "../../common/process/error.ts";
import { acquireLock } from "../../common/process/lock.ts";
import { Shutdown } from "../../common/process/shutdown.ts";
import { startCompactor } from "../../compactor/main.ts";
import { ingestMounts } from "../../ingest/http.ts";
import { startIngest } from "../../ingest/main.ts";
import { startQuery } from "../../query/main.ts";
import type { Arguments } from "../args.ts";
import {
  announce,
  type Context,
  lakeStore,
  openContext,
  openLake,
  openLog,
  type Running,
} from "../context.ts";
import { processRegistry, untilStopped, VERSION } from "../process.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "up");
  const { loaded, dataDir, logger } = context;
  const { config } = loaded;
  const shutdown = new Shutdown(logger);
  try {
    const lock = await acquireLock(join(dataDir, "run", "lock"), `data directory ${dataDir}`);
    shutdown.add("lock", () => lock.release());
    const log = await openLog(context);
    shutdown.add("log", () => log.close());
    const { lake, close } = await openLake(context, "up");
    shutdown.add("lake", close);
    const registry = processRegistry("up", lake);
    const instance = `up-${process.pid}`;
    const ingest = await startIngest(config, { lake, log, logger, registry, instance, ownsAll: true });
    shutdown.add("ingest", () => ingest.close());
    refuseForeignLog(ingest.feeds.foreign());
    await ingest.feeds.started();
    const compactor = await startCompactor(config, { lake, logger, registry });
    shutdown.add("compactor", () => compactor.close());
    const query = await startQuery(config, {
      lake,
      log,
      visibility: ingest.feeds,
      logger,
      registry,
      version: VERSION,
      given: loaded.given,
      password: process.env.VEXLAKE_PASSWORD,
      mounts: [
        { path: "/jobs", title: "jobs", handler: compactor.jobsHandler },
        ...ingestMounts(lake, log, ingest).map(({ path, handler }) => ({ path, title: "", handler })),
      ],
      readyChecks: { ingest: () => ingest.feeds.notReady(), compactor: compactor.readyCheck },
    });
    shutdown.add("query", () => query.close());
    const running = describeRunning(context, query);
    await announce(dataDir, running);
    shutdown.add("announcement", () => announce(dataDir, null));
    process.stdout.write(`${readyLine(running)}\n`);
  } catch (error) {
    await shutdown.run("start failed");
    throw error;
  }
  return await untilStopped(shutdown);
}

/** A lake whose collections live on another log can be read by `vexlake query`, but not fed here. */
function refuseForeignLog(foreign: ReadonlyMap<string, string>): void {
  const [reason] = foreign.values();
  if (reason === undefined) return;
  throw new VexError(
    "MISMATCH",
    `${reason}; start with the log this lake was fed from, or use another --data-dir`,
  );
}

function describeRunning(context: Context, query: { resp: Address; http: Address }): Running {
  const { config } = context.loaded;
  const store = lakeStore(context);
  return {
    pid: process.pid,
    resp: `${query.resp.host}:${query.resp.port}`,
    http: `${query.http.host}:${query.http.port}`,
    log: { kind: config.log.kind, ...(config.log.brokers ? { brokers: config.log.brokers } : {}) },
    store: {
      url: store.url,
      ...(store.endpoint === undefined ? {} : { endpoint: store.endpoint }),
      pathStyle: store.pathStyle,
    },
    ...(config.jobs.redis === undefined ? {} : { redis: config.jobs.redis }),
  };
}

interface Address {
  host: string;
  port: number;
}

function readyLine(running: Running): string {
  const { log, store, resp, http } = running;
  const logged = log.kind === "kafka" ? `kafka:${(log.brokers ?? []).join(",")}` : "local";
  return `ready resp=${resp} http=${http} log=${logged} store=${store.url} version=${VERSION}`;
}
