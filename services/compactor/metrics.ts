/**
 * The compactor's metrics: `vexlake_compaction_*` and `vexlake_gc_*`, base units (DESIGN §11).
 *
 * Counters are of this process: after a restart a rate sees a reset, as it should. What the queues
 * hold is asked for at scrape time; a Redis that is away shows as `jobs_connected` 0, and the last
 * queue sizes are dropped rather than repeated.
 */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import { JOB_KINDS } from "../../schemas/jobs.ts";
import { JOB_STATES, type JobResult, type JobRunner } from "../common/jobs/runner.ts";
import { numberOf } from "./core.ts";

/** A flush-sized merge takes a second, a full one at the default byte cap some minutes. */
const JOB_SECONDS_BUCKETS = [0.1, 0.5, 1, 5, 15, 60, 300, 1_200, 3_600];

export class CompactorMetrics {
  readonly jobsTotal: Counter<"queue" | "outcome">;
  readonly jobSeconds: Histogram<"queue">;
  readonly planSeconds: Histogram;
  readonly planFailuresTotal: Counter<"collection">;
  readonly plannedTotal: Counter<"outcome">;
  readonly planTimestamp: Gauge;
  readonly #readBytes: Counter;
  readonly #writtenBytes: Counter;
  readonly #rows: Counter;
  readonly #dropped: Counter;
  readonly #sweptObjects: Counter;
  readonly #sweptBytes: Counter;
  readonly #registry: Registry;

  constructor(registry: Registry) {
    this.#registry = registry;
    const registers = [registry];
    const counter = (name: string, help: string) => new Counter({ name: `vexlake_${name}`, help, registers });
    this.jobsTotal = new Counter({
      name: "vexlake_compaction_jobs_total",
      help: "attempts of background jobs by how they ended",
      labelNames: ["queue", "outcome"],
      registers,
    });
    this.jobSeconds = new Histogram({
      name: "vexlake_compaction_job_duration_seconds",
      help: "time of one attempt of a background job",
      labelNames: ["queue"],
      buckets: JOB_SECONDS_BUCKETS,
      registers,
    });
    this.planSeconds = new Histogram({
      name: "vexlake_compaction_plan_duration_seconds",
      help: "time of one planner tick over all collections",
      buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 30],
      registers,
    });
    this.planFailuresTotal = new Counter({
      name: "vexlake_compaction_plan_failures_total",
      help: "collections that a planner tick could not plan or enqueue",
      labelNames: ["collection"],
      registers,
    });
    this.plannedTotal = new Counter({
      name: "vexlake_compaction_planned_jobs_total",
      help: "jobs proposed by the planner, by what the queue made of them",
      labelNames: ["outcome"],
      registers,
    });
    this.planTimestamp = new Gauge({
      name: "vexlake_compaction_last_plan_timestamp_seconds",
      help: "end of the last planner tick that reached every collection",
      registers,
    });
    this.#readBytes = counter("compaction_read_bytes_total", "bytes that merges and trainings read");
    this.#writtenBytes = counter(
      "compaction_written_bytes_total",
      "bytes of segments and centroids that they wrote",
    );
    this.#rows = counter("compaction_rows_total", "rows that merges wrote");
    this.#dropped = counter("compaction_dropped_entries_total", "rows and deletes that merges dropped");
    this.#sweptObjects = counter("gc_deleted_objects_total", "objects that gc deleted");
    this.#sweptBytes = counter("gc_deleted_bytes_total", "bytes that gc deleted");
  }

  countJob(result: JobResult): void {
    this.jobsTotal.inc({ queue: "compaction", outcome: result.status });
    if (result.status !== "done") return;
    this.#readBytes.inc(numberOf(result.bytesIn));
    this.#writtenBytes.inc(numberOf(result.bytesOut));
    this.#rows.inc(numberOf(result.rows));
    this.#dropped.inc(numberOf(result.dropped));
  }

  countSweep(result: JobResult, dryRun: boolean): void {
    this.jobsTotal.inc({ queue: "gc", outcome: result.status });
    if (dryRun) return;
    this.#sweptObjects.inc(numberOf(result.objects));
    this.#sweptBytes.inc(numberOf(result.bytes));
  }

  observeQueues(runner: JobRunner): void {
    const connected = new Gauge({
      name: "vexlake_compaction_jobs_connected",
      help: "1 while the job queue can be reached",
      registers: [this.#registry],
    });
    new Gauge({
      name: "vexlake_compaction_queue_jobs",
      help: "jobs in a queue by state",
      labelNames: ["queue", "state"],
      registers: [this.#registry],
      async collect() {
        this.reset();
        const stats = await runner.stats().catch(() => null);
        connected.set(stats?.connected ? 1 : 0);
        if (stats === null) return;
        for (const queue of JOB_KINDS)
          for (const state of JOB_STATES) this.set({ queue, state }, stats.queues[queue].counts[state]);
      },
    });
  }
}
