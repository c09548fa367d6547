/**
 * RunningJobs: the jobs whose handlers run in this process, for both runners.
 *
 * 1. `run` gives the handler its signal and progress sink and remembers it until it settles.
 * 2. `cancel` aborts one. `drain` waits for all up to the grace, then aborts them and waits for
 *    the handlers to return, so that no merge outlives the graph it was given.
 * 3. Progress is coalesced: at most one report per PROGRESS_INTERVAL_MS leaves the process, the
 *    last one always does, in order, before `run` settles.
 *
 * Invariants: an entry leaves the map exactly when its handler has settled; progress never fails
 * or delays a job by more than one report.
 */
import type { JobHandler, JobProgress, JobResult } from "./runner.ts";
import { ABORT_WAIT_MS } from "./runner.ts";

/** A merge reports per slice, maybe thousands a second; a board refreshes about once a second. */
export const PROGRESS_INTERVAL_MS = 200;

interface Entry {
  abort: AbortController;
  settled: Promise<unknown>;
}

export interface Attempt<P> {
  id: string;
  attempt: number;
  payload: P;
  handler: JobHandler<P>;
  report(progress: JobProgress): Promise<void> | void;
}

export class RunningJobs {
  readonly #entries = new Map<string, Entry>();
  readonly #nowMs: () => number;
  readonly #abortWaitMs: number;

  constructor(options: { nowMs?: () => number; abortWaitMs?: number } = {}) {
    this.#nowMs = options.nowMs ?? Date.now;
    this.#abortWaitMs = options.abortWaitMs ?? ABORT_WAIT_MS;
  }

  get size(): number {
    return this.#entries.size;
  }

  async run<P>(attempt: Attempt<P>): Promise<JobResult> {
    const abort = new AbortController();
    const reports = coalesce(attempt.report, this.#nowMs);
    const work = (async () => {
      try {
        return await attempt.handler(attempt.payload, {
          id: attempt.id,
          attempt: attempt.attempt,
          signal: abort.signal,
          progress: reports.push,
        });
      } finally {
        await reports.flush();
      }
    })();
    // The attempt number keeps a stalled job's second run apart from its first, should both run here.
    const key = `${attempt.id}.${attempt.attempt}`;
    this.#entries.set(key, { abort, settled: work.catch(() => undefined) });
    try {
      return await work;
    } finally {
      this.#entries.delete(key);
    }
  }

  cancel(id: string, reason: string): boolean {
    const entries = [...this.#entries].filter(([key]) => key.slice(0, key.lastIndexOf(".")) === id);
    for (const [, entry] of entries) entry.abort.abort(reason);
    return entries.length > 0;
  }

  /** true when every handler has settled; false when some ignored the abort for too long. */
  async drain(graceMs: number): Promise<boolean> {
    if (await this.#settledWithin(graceMs)) return true;
    for (const entry of this.#entries.values()) entry.abort.abort("the process is shutting down");
    return this.#settledWithin(this.#abortWaitMs);
  }

  async #settledWithin(waitMs: number): Promise<boolean> {
    const all = Promise.all([...this.#entries.values()].map((entry) => entry.settled)).then(() => true);
    return within(all, waitMs, false);
  }
}

/** The promise's value, or `late` after `waitMs`. The promise itself is not stopped. */
export async function within<T, L>(promise: Promise<T>, waitMs: number, late: L): Promise<T | L> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<L>((resolve) => {
    timer = setTimeout(() => resolve(late), waitMs);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** One report in flight at a time; between reports only the latest value is kept. */
function coalesce(report: (progress: JobProgress) => Promise<void> | void, nowMs: () => number) {
  let latest: JobProgress | null = null;
  let inFlight: Promise<void> | null = null;
  let sentMs = Number.NEGATIVE_INFINITY;

  const send = async (): Promise<void> => {
    const progress = latest;
    if (progress === null) return;
    latest = null;
    sentMs = nowMs();
    try {
      await report(progress);
    } catch {
      // Progress is for eyes only: a board that cannot be reached must not fail a merge.
    }
  };
  const push = (progress: JobProgress): void => {
    latest = progress;
    if (inFlight !== null || nowMs() - sentMs < PROGRESS_INTERVAL_MS) return;
    inFlight = send().finally(() => {
      inFlight = null;
    });
  };
  const flush = async (): Promise<void> => {
    await inFlight;
    await send();
  };
  return { push, flush };
}
