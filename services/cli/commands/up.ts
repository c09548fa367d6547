/**
 * up: ingest, query and compactor in one process, on one lake and one log.
 *
 * This process owns every partition, so ingest's memtables are the query's tail. Everything is served on
 * query's two ports; ingest's and the compactor's HTTP surfaces are mounted there. stdout gets one
 * `ready …` line; the rest goes to stderr.
 */
import { join } from "node:path";
import { VexError } from "../../common/process/error.ts";
import { ownIdentity } from "../../common/process/identity.ts";
import { formatAddress, type ListenAddress } from "../../common/process/listen.ts";
import { acquireLock } from "../../common/process/lock.ts";
import { Shutdown } from "../../common/process/shutdown.ts";
import { startCompactor } from "../../compactor/main.ts";
import { ingestMounts } from "../../ingest/http.ts";
import { startIngest } from "../../ingest/main.ts";
import { startQuery } from "../../query/main.ts";
import type { Arguments } from "../args.ts";
import { type Context, lakeStore, openContext, openLake, openLog } from "../context.ts";
import { processRegistry, readyLine, untilStopped, VERSION } from "../process.ts";
import { announce, type Running } from "../running.ts";

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
      password: context.password,
      mounts: [
        { path: "/jobs", title: "jobs", handler: compactor.jobsHandler },
        ...ingestMounts(lake, log, ingest).map(({ path, handler }) => ({ path, title: "", handler })),
      ],
      readyChecks: { ingest: () => ingest.feeds.notReady(), compactor: compactor.readyCheck },
    });
    shutdown.add("query", () => query.close());
    await announce(dataDir, describeRunning(context, query));
    shutdown.add("announcement", () => announce(dataDir, null));
    return await untilStopped(shutdown, readyLine(context, query));
  } catch (error) {
    await shutdown.run("start failed");
    throw error;
  }
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

function describeRunning(context: Context, query: { resp: ListenAddress; http: ListenAddress }): Running {
  const { config } = context.loaded;
  const store = lakeStore(context);
  return {
    ...ownIdentity(),
    resp: formatAddress(query.resp),
    http: formatAddress(query.http),
    log: { kind: config.log.kind, ...(config.log.brokers ? { brokers: config.log.brokers } : {}) },
    store: {
      url: store.url,
      ...(store.endpoint === undefined ? {} : { endpoint: store.endpoint }),
      pathStyle: store.pathStyle,
    },
    ...(config.jobs.redis === undefined ? {} : { redis: config.jobs.redis }),
  };
}
