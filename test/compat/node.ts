/*
 * A real query node for the compatibility suites: the core on a directory, the local log, tails, RESP and
 * HTTP on free ports. Nothing is faked; a machine without the addon fails here by name.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Lake } from "@vexlake/core";
import { configSchema } from "../../services/common/config/schema.ts";
import { Feeds } from "../../services/common/feed/feeds.ts";
import { MemoryBudget } from "../../services/common/feed/memory.ts";
import { LocalSource } from "../../services/common/log/local/source.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { createRegistry } from "../../services/common/process/metrics.ts";
import { Shutdown } from "../../services/common/process/shutdown.ts";
import { type Query, startQuery } from "../../services/query/main.ts";

export interface QueryNode {
  host: string;
  port: number;
  http: string;
  query: Query;
  close(): Promise<void>;
}

export async function startQueryNode(options: { password?: string } = {}): Promise<QueryNode> {
  const directory = await mkdtemp(join(tmpdir(), "vexlake-compat-"));
  const logger = silentLogger();
  const shutdown = new Shutdown(logger);
  const config = configSchema.parse({ query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" } });
  const log = new LocalSource({ directory: join(directory, "log"), logger });
  await log.start();
  shutdown.add("log", () => log.close());
  const lake = await Lake.open({
    store: { url: join(directory, "lake") },
    role: "query",
    instance: "compat",
    spoolDir: join(directory, "spool"),
  });
  shutdown.add("lake", () => lake.close());
  const budget = new MemoryBudget(config.query.tail_bytes);
  const tails = new Feeds({ lake, log, logger, budget, tail: true, assignment: () => ({ kind: "all" }) });
  await tails.start();
  shutdown.add("tails", () => tails.close());
  const query = await startQuery(config, {
    lake,
    log,
    visibility: tails,
    logger,
    registry: createRegistry("query"),
    version: "0.0.0-test",
    password: options.password,
    given: () => true,
  });
  shutdown.add("query", () => query.close());
  return {
    host: query.resp.host,
    port: query.resp.port,
    http: `http://${query.http.host}:${query.http.port}`,
    query,
    async close() {
      await shutdown.run("test ends");
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Floats as VADD's and VSIM's FP32 takes them. */
export function f32(...values: number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer);
}
