/** compactor: the compactor as a process of its own. */
import { Shutdown } from "../../common/process/shutdown.ts";
import { serveCompactor } from "../../compactor/serve.ts";
import type { Arguments } from "../args.ts";
import { openContext, openLake } from "../context.ts";
import { processRegistry, readyLine, untilStopped } from "../process.ts";

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "compactor");
  const { loaded, logger } = context;
  const shutdown = new Shutdown(logger);
  try {
    const { lake, close } = await openLake(context, "compactor");
    shutdown.add("lake", close);
    const registry = processRegistry("compactor", lake);
    const { http } = await serveCompactor(loaded, {
      logger,
      registry,
      shutdown,
      openLake: async () => lake,
      password: context.password,
    });
    return await untilStopped(shutdown, readyLine(context, { http }, false));
  } catch (error) {
    await shutdown.run("start failed");
    throw error;
  }
}
