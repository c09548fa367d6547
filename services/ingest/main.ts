/**
 * The ingest service: builds its graph and starts it.
 *
 * feeds (one per incarnation) ← log, lake, budget; flusher per feed ← lake; dead letters ← log
 *
 * The same function serves the ingest process (partitions shared in a consumer group) and `vexlake up`
 * (this process owns every partition, so that its memtables are the query's tail). Lake, log and HTTP
 * server belong to the caller. Closing ends the consumers, then flushes a last time.
 */
import type { FlushResult, Lake } from "@vexlake/core";
import type { Registry } from "prom-client";
import { ensureCollection } from "../common/catalog.ts";
import type { Config } from "../common/config/schema.ts";
import { Feeds, type FeedTarget } from "../common/feed/feeds.ts";
import { MemoryBudget } from "../common/feed/memory.ts";
import { DeadLetters } from "../common/log/deadletter.ts";
import type { LogSource } from "../common/log/source.ts";
import { VexError } from "../common/process/error.ts";
import type { Logger } from "../common/process/logger.ts";
import { Flusher } from "./flusher.ts";
import { IngestMetrics } from "./metrics.ts";

export interface IngestDeps {
  lake: Lake;
  log: LogSource;
  logger: Logger;
  registry: Registry;
  /** Names this process in dead letters. */
  instance: string;
  /** Whether this process owns every partition; else it shares them in a group. */
  ownsAll: boolean;
  onFlushed?(target: FeedTarget, result: FlushResult): void;
}

export interface Ingest {
  feeds: Feeds;
  budget: MemoryBudget;
  /** Flushes an incarnation now. */
  flush(incarnation: string): Promise<FlushResult>;
  close(): Promise<void>;
}

export async function startIngest(config: Config, deps: IngestDeps): Promise<Ingest> {
  const { lake, log, logger, registry, instance, ownsAll } = deps;
  const { memory_bytes_max, seal_bytes, seal_age_ms, bad_record } = config.ingest;
  const budget = new MemoryBudget(memory_bytes_max);
  const metrics = new IngestMetrics(registry);
  const letters = new DeadLetters({ source: log, logger, instance });
  for (const [name, { dim, metric, partitions, format }] of Object.entries(config.collections)) {
    const shape = { db: 0, name, dim, metric, partitions, format };
    await ensureCollection(lake, log, { ...shape, from: { at: "earliest" } });
  }
  const feeds = new Feeds({
    lake,
    log,
    logger,
    budget,
    badRecord: bad_record,
    assignment: ({ incarnation }) => ({
      kind: ownsAll ? "all" : "group",
      group: `${config.log.group}.${incarnation}`,
    }),
    onBad: async (target, bad, signal) => {
      if (bad_record === "dlq" && target.letters) await letters.send(target.topic, bad, signal);
    },
    onFeed: (target, feed) => {
      return new Flusher({
        lake,
        target,
        feed,
        budget,
        metrics,
        logger,
        sealBytes: seal_bytes,
        sealAgeMs: seal_age_ms,
        ...(deps.onFlushed === undefined ? {} : { onFlushed: deps.onFlushed }),
      });
    },
  });
  metrics.observe(feeds, budget);
  await feeds.start();
  logger.info({ ownsAll, memoryBytesMax: memory_bytes_max, sealBytes: seal_bytes }, "ingest started");
  return {
    feeds,
    budget,
    flush: async (incarnation) => {
      if (feeds.attachment(incarnation) === null) await feeds.follow(incarnation);
      const flusher = feeds.attachment(incarnation) as Flusher | null;
      if (flusher) return await flusher.flush();
      throw new VexError("UNAVAILABLE", feeds.refusal(incarnation) ?? `${incarnation} is not fed here`);
    },
    close: () => feeds.close(),
  };
}
