/**
 * Metrics of ingest: records, bad records, flushes, lag, memory. Base units, labels of DESIGN §11.
 * Counters count the work of this process, replays included; the lag is that of what people read.
 */
import type { FlushResult } from "@vexlake/core";
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { type Feeds, type FeedTarget, stoppedStates } from "../common/feed/feeds.ts";
import type { MemoryBudget } from "../common/feed/memory.ts";

export class IngestMetrics {
  readonly #records: Counter;
  readonly #bad: Counter;
  readonly #rows: Counter;
  readonly #bytes: Counter;
  readonly #failed: Counter;
  readonly #seconds: Histogram;
  readonly #registry: Registry;

  constructor(registry: Registry) {
    const registers = [registry];
    const collection = ["collection"];
    this.#registry = registry;
    this.#records = new Counter({
      name: "vexlake_ingest_records_total",
      help: "records accepted into memtables",
      labelNames: collection,
      registers,
    });
    this.#bad = new Counter({
      name: "vexlake_ingest_bad_records_total",
      help: "records refused",
      labelNames: collection,
      registers,
    });
    this.#rows = new Counter({
      name: "vexlake_flush_entries_total",
      help: "rows and deletes committed",
      labelNames: collection,
      registers,
    });
    this.#bytes = new Counter({
      name: "vexlake_flush_bytes_total",
      help: "bytes uploaded by flushes",
      labelNames: collection,
      registers,
    });
    this.#failed = new Counter({
      name: "vexlake_flush_failures_total",
      help: "flushes that failed and are tried again",
      labelNames: collection,
      registers,
    });
    this.#seconds = new Histogram({
      name: "vexlake_flush_seconds",
      help: "from seal to commit",
      labelNames: ["collection", "code"],
      buckets: [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
      registers,
    });
  }

  appended(target: FeedTarget, accepted: number, bad: number): void {
    const collection = labelOf(target);
    this.#records.inc({ collection }, accepted);
    if (bad > 0) this.#bad.inc({ collection }, bad);
  }

  flushed(target: FeedTarget, code: string, result: FlushResult, seconds: number): void {
    if (result.commits === 0) return;
    const collection = labelOf(target);
    this.#rows.inc({ collection }, result.rows + result.deletes);
    this.#bytes.inc({ collection }, result.bytes);
    this.#seconds.observe({ collection, code }, seconds);
  }

  flushFailed(target: FeedTarget): void {
    this.#failed.inc({ collection: labelOf(target) });
  }

  /** Gauges read at each scrape. */
  observe(feeds: Feeds, budget: MemoryBudget): void {
    const registers = [this.#registry];
    new Gauge({
      name: "vexlake_ingest_memory_bytes",
      help: "held by memtables",
      registers,
      collect() {
        this.set(budget.bytes);
      },
    });
    new Gauge({
      name: "vexlake_ingest_lag_offsets",
      help: "offsets between the end of the log and what is applied, of live incarnations",
      labelNames: ["collection", "partition"],
      registers,
      collect() {
        this.reset();
        for (const { target, feed } of feeds.all()) {
          // A replay is behind for as long as it likes; it would hide the lag that people wait for.
          if (!target.live) continue;
          for (const [partition, lag] of feed.lag()) {
            this.set({ collection: labelOf(target), partition: String(partition) }, Number(lag));
          }
        }
      },
    });
    new Gauge({
      name: "vexlake_ingest_stopped_partitions",
      help: "partitions in a named stopped state",
      labelNames: ["collection", "code"],
      registers,
      collect() {
        this.reset();
        for (const { target, state } of stoppedStates(feeds)) {
          this.inc({ collection: labelOf(target), code: state.reason });
        }
      },
    });
  }
}

/** By name alone in database 0, where nearly all are; equal names elsewhere stay apart. */
function labelOf({ db, name }: FeedTarget): string {
  return db === 0 ? name : `${db}/${name}`;
}
