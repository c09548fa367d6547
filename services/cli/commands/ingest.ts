/** ingest: the ingest service as a process of its own; partitions are shared with other ingest processes. */
import { hostname } from "node:os";
import { HttpServer } from "../../common/process/http.ts";
import { parseAddress } from "../../common/process/listen.ts";
import { Shutdown } from "../../common/process/shutdown.ts";
import { ingestMounts } from "../../ingest/http.ts";
import { startIngest } from "../../ingest/main.ts";
import type { Arguments } from "../args.ts";
import { openContext, openLake, openLog } from "../context.ts";
import { processRegistry, readyLine, untilStopped } from "../process.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "ingest");
  const { loaded, logger } = context;
  const shutdown = new Shutdown(logger);
  try {
    const log = await openLog(context);
    shutdown.add("log", () => log.close());
    const { lake, close } = await openLake(context, "ingest");
    shutdown.add("lake", close);
    const registry = processRegistry("ingest", lake);
    const instance = `${hostname()}-${process.pid}`;
    // Only one process can open a local log, so it owns all of it.
    const ownsAll = loaded.config.log.kind === "local";
    const ingest = await startIngest(loaded.config, { lake, log, logger, registry, instance, ownsAll });
    shutdown.add("ingest", () => ingest.close());
    const server = new HttpServer({ registry, logger, password: context.password });
    server.addReadyCheck("ingest", () => ingest.feeds.notReady());
    for (const { path, handler } of ingestMounts(lake, log, ingest)) server.mount(path, handler);
    const http = await server.start(parseAddress(loaded.config.ingest.http), loaded.given("ingest.http"));
    shutdown.add("http", () => server.close());
    return await untilStopped(shutdown, readyLine(context, { http }));
  } catch (error) {
    await shutdown.run("start failed");
    throw error;
  }
}
