/** query: a query node; its tails read the same topics from the snapshot's checkpoints on. */
import { Feeds } from "../../common/feed/feeds.ts";
import { MemoryBudget } from "../../common/feed/memory.ts";
import { Shutdown } from "../../common/process/shutdown.ts";
import { startQuery } from "../../query/main.ts";
import type { Arguments } from "../args.ts";
import { openContext, openLake, openLog } from "../context.ts";
import { processRegistry, readyLine, untilStopped, VERSION } from "../process.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "query");
  const { loaded, logger } = context;
  const shutdown = new Shutdown(logger);
  try {
    const log = await openLog(context);
    shutdown.add("log", () => log.close());
    const { lake, close } = await openLake(context, "query");
    shutdown.add("lake", close);
    const registry = processRegistry("query", lake);
    const budget = new MemoryBudget(loaded.config.query.tail_bytes);
    const feeds = new Feeds({ lake, log, logger, budget, tail: true, assignment: () => ({ kind: "all" }) });
    await feeds.start();
    await feeds.started();
    shutdown.add("tails", () => feeds.close());
    const query = await startQuery(loaded.config, {
      lake,
      log,
      visibility: feeds,
      logger,
      registry,
      version: VERSION,
      given: loaded.given,
      password: context.password,
      readyChecks: { tails: () => feeds.notReady() },
    });
    shutdown.add("query", () => query.close());
    return await untilStopped(shutdown, readyLine(context, query));
  } catch (error) {
    await shutdown.run("start failed");
    throw error;
  }
}
