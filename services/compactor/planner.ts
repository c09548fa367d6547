/**
 * The planner tick: for every collection, refresh → plan → choose → enqueue, with the core's reason.
 *
 * 1. Ask the queue what waits, runs and failed lately; away → the tick ends, the next one asks again.
 * 2. Follow the catalog and list its collections; refresh and plan each on its fresh head.
 * 3. Propose at most one job per collection, deduplicated by incarnation.
 *
 * Ticks run at an interval and on request, never two at once: requests made during a tick collapse
 * into one more. One collection that cannot be planned is counted and logged, the others go on.
 *
 * Invariant: nothing here is remembered between ticks except for display. Losing the queue or the
 * process loses nothing, because the next tick derives the same plan from the commits (DESIGN §8).
 */
import { type JobLogger, type JobRunner, messageOf } from "../common/jobs/runner.ts";
import { type Busy, busyOf, chooseSpec } from "./choose.ts";
import { type CoreLake, type PlanOptions, readPlan, readTargets, type Target } from "./core.ts";
import type { CompactorMetrics } from "./metrics.ts";

/** Seals come every ~10 s per collection (seal_age_ms), so planning twice as often misses none. */
export const PLAN_INTERVAL_MS = 5_000;
/** Recent failures looked at: more than that within FAILED_PAUSE_MS is one cause, not many. */
const FAILED_JOBS_READ = 50;

export interface PlanSummary {
  endedMs: number;
  collections: number;
  added: number;
  deduplicated: number;
  refused: number;
  failed: number;
  /** Why the tick, or one of its collections, failed; null when nothing did. */
  error: string | null;
}

export interface PlannerDeps {
  lake: CoreLake;
  runner: JobRunner;
  logger: JobLogger;
  metrics: CompactorMetrics;
  options: PlanOptions;
  intervalMs?: number;
  nowMs?: () => number;
}

export class Planner {
  readonly #deps: PlannerDeps;
  readonly #nowMs: () => number;
  #timer: NodeJS.Timeout | null = null;
  #ticking: Promise<void> | null = null;
  #again: Promise<void> | null = null;
  #closed = false;
  #last: PlanSummary | null = null;

  constructor(deps: PlannerDeps) {
    this.#deps = deps;
    this.#nowMs = deps.nowMs ?? Date.now;
  }

  get last(): PlanSummary | null {
    return this.#last;
  }

  start(): void {
    this.#timer = setInterval(() => void this.request(), this.#deps.intervalMs ?? PLAN_INTERVAL_MS);
    void this.request();
  }

  /** Resolves when a tick that began after the call has ended. Never rejects; see `last`. */
  request(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    if (this.#ticking === null) {
      this.#ticking = this.#tick().finally(() => {
        this.#ticking = null;
      });
      return this.#ticking;
    }
    this.#again ??= this.#ticking.then(() => {
      this.#again = null;
      return this.request();
    });
    return this.#again;
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    await this.#ticking;
  }

  async #tick(): Promise<void> {
    const { runner, lake, metrics, logger } = this.#deps;
    const stopTimer = metrics.planSeconds.startTimer();
    const summary: PlanSummary = {
      endedMs: 0,
      collections: 0,
      added: 0,
      deduplicated: 0,
      refused: 0,
      failed: 0,
      error: null,
    };
    try {
      const pending = await runner.list(["active", "waiting", "delayed"]);
      const busy = busyOf(pending, await runner.list(["failed"], FAILED_JOBS_READ), this.#nowMs());
      await lake.refresh(null);
      for (const target of await readTargets(lake)) {
        if (this.#closed) break;
        summary.collections += 1;
        await this.#planOne(target, busy, summary);
      }
      if (summary.failed === 0) metrics.planTimestamp.set(this.#nowMs() / 1_000);
    } catch (error) {
      summary.error = messageOf(error);
      // The outage of Redis has its own line; a tick every few seconds must not repeat it.
      logger[runner.connected ? "warn" : "debug"]({ err: error }, "plan not made, the next tick tries again");
    } finally {
      summary.endedMs = this.#nowMs();
      this.#last = summary;
      stopTimer();
    }
  }

  async #planOne({ collection, incarnation }: Target, busy: Busy, summary: PlanSummary): Promise<void> {
    const { runner, lake, metrics, logger } = this.#deps;
    try {
      await lake.refresh(incarnation);
      const spec = chooseSpec(await readPlan(lake, incarnation, this.#deps.options), busy);
      if (spec === null) return;
      const { outcome, id } = await runner.enqueue("compaction", { collection, spec }, incarnation);
      summary[outcome] += 1;
      metrics.plannedTotal.inc({ outcome });
      const fields = { job: id, collection, spec: spec.id, reason: spec.reason, inputs: spec.inputs.length };
      if (outcome === "added") logger.info(fields, `${spec.kind} planned`);
      if (outcome === "refused") logger.warn(fields, `job queue is full, ${spec.kind} left to a later tick`);
    } catch (error) {
      summary.failed += 1;
      summary.error = `${collection}: ${messageOf(error)}`;
      metrics.planFailuresTotal.inc({ collection });
      logger[runner.connected ? "warn" : "debug"]({ err: error, collection }, "collection not planned");
    }
  }
}
