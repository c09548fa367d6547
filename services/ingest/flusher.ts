/**
 * The flusher of one feed: decides when the memtable is sealed, and drives the flush.
 *
 * Sealed at bytes, at age, on request, at the end, and over the memory budget when this feed is one of
 * the large ones. A seal waits until no append is under way and all dead letters of what it takes are
 * acknowledged; the flush itself runs beside further appends. Flushes of one incarnation run one after
 * another; whoever asks while one runs gets the next.
 *
 * `#due` says from the state alone whether a flush is wanted, and one loop at most works it off, so that
 * an outage meets one flush per feed with growing waits, however much is appended meanwhile. A failure
 * is loud and nothing is lost by it, because the memtables stay and the checkpoints move only with a
 * commit. Partitions that another process has committed beyond us, and those with a patch to be judged
 * again, are claimed again from where the lake stands.
 */
import type { AppendResult, FlushResult, Lake } from "@vexlake/core";
import type { Feed } from "../common/feed/feed.ts";
import type { FeedAttachment, FeedTarget } from "../common/feed/feeds.ts";
import type { MemoryBudget } from "../common/feed/memory.ts";
import { vexErrorFrom } from "../common/process/error.ts";
import type { Logger } from "../common/process/logger.ts";
import { pause } from "../common/process/pause.ts";
import type { IngestMetrics } from "./metrics.ts";

/** Waits between tries of a failed flush: 200 ms doubling to 10 s. */
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;

export type FlushReason = "bytes" | "memory" | "age" | "request" | "shutdown";

export interface FlusherOptions {
  lake: Lake;
  target: FeedTarget;
  feed: Feed;
  budget: MemoryBudget;
  metrics: IngestMetrics;
  logger: Logger;
  sealBytes: number;
  sealAgeMs: number;
  onFlushed?(target: FeedTarget, result: FlushResult): void;
}

export class Flusher implements FeedAttachment {
  readonly #options: FlusherOptions;
  /** What the feed held when it was last sealed or flushed: the rest is the active memtable. */
  #settledBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** The oldest append since the last seal is older than sealAgeMs. */
  #aged = false;
  /** What the last flush was for, while it has not worked. */
  #failed: FlushReason | null = null;
  #running: Promise<FlushResult> | null = null;
  #next: Promise<FlushResult> | null = null;
  #driving: Promise<void> | null = null;
  readonly #closing = new AbortController();
  readonly #unlisten: () => void;

  constructor(options: FlusherOptions) {
    this.#options = options;
    this.#unlisten = options.budget.listen(() => this.#drive());
  }

  appended({ accepted, bad }: AppendResult): void {
    const { target, metrics, sealAgeMs } = this.#options;
    metrics.appended(target, accepted, bad.length);
    // Offsets alone are worth a commit too: a checkpoint must pass what was refused.
    this.#timer ??= setTimeout(() => {
      this.#aged = true;
      this.#drive();
    }, sealAgeMs);
    this.#drive();
  }

  /** Flushes what has been consumed by now. */
  async flush(reason: FlushReason = "request"): Promise<FlushResult> {
    if (this.#running === null) return await this.#begin(reason);
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#begin(reason);
      });
    return await this.#next;
  }

  /** A last flush; what it cannot commit is consumed again by the next owner. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#unlisten();
    await this.#driving;
    try {
      await this.flush("shutdown");
    } catch (thrown) {
      const { logger, target } = this.#options;
      logger.warn(
        { err: thrown, incarnation: target.incarnation },
        "the last flush failed; the log still has it",
      );
    }
    clearTimeout(this.#timer);
    this.#options.budget.remove(this.#options.target.incarnation);
  }

  /** Why a flush is wanted now, null when none is. */
  #due(): FlushReason | null {
    const { budget, sealBytes, target } = this.#options;
    const held = budget.held(target.incarnation);
    if (this.#failed !== null) return this.#failed;
    if (held - this.#settledBytes >= sealBytes) return "bytes";
    if (held > 0 && budget.over && budget.isLarge(target.incarnation)) return "memory";
    return this.#aged ? "age" : null;
  }

  /** Flushes that nobody waits for: as long as one is due, and tried again until they work. */
  #drive(): void {
    if (this.#driving !== null || this.#due() === null) return;
    this.#driving = this.#work().finally(() => {
      this.#driving = null;
    });
  }

  async #work(): Promise<void> {
    const { signal } = this.#closing;
    let wait = BACKOFF_MIN_MS;
    for (let reason = this.#due(); reason !== null; reason = this.#due()) {
      if (this.#failed === null) wait = BACKOFF_MIN_MS;
      else {
        await pause(wait, signal);
        wait = Math.min(wait * 2, BACKOFF_MAX_MS);
      }
      if (signal.aborted) return;
      try {
        const { commits } = await this.flush(reason);
        // Nothing was there to commit: what is due has to wait for an append.
        if (commits === 0) return;
      } catch (thrown) {
        const error = vexErrorFrom(thrown);
        const { logger, target } = this.#options;
        logger.error({ err: error, incarnation: target.incarnation, reason }, "flush failed, trying again");
        if (error.code === "FENCED") return;
      }
    }
  }

  #begin(reason: FlushReason): Promise<FlushResult> {
    this.#running = this.#flush(reason).finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #flush(reason: FlushReason): Promise<FlushResult> {
    const { lake, target, feed, budget, metrics, logger } = this.#options;
    const { incarnation } = target;
    const started = performance.now();
    try {
      await feed.settled(async () => {
        await lake.alter({ op: "seal", incarnation });
        this.#settledBytes = budget.held(incarnation);
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.#aged = false;
      });
      const result = await lake.flush(incarnation);
      this.#failed = null;
      this.#settledBytes = 0;
      budget.set(incarnation, result.memtableBytes);
      const seconds = (performance.now() - started) / 1_000;
      metrics.flushed(target, reason, result, seconds);
      if (result.commits > 0) {
        const { version, rows, deletes, bytes, segments } = result;
        logger.info({ incarnation, reason, version, rows, deletes, bytes, segments, seconds }, "flushed");
      }
      if (result.lost.length > 0) {
        logger.warn(
          { incarnation, lost: result.lost },
          "partitions moved, or a record overtook what a patch builds on: claiming them again",
        );
        void feed.reclaim();
      }
      const next = new Map(result.ranges.map(({ partition, to }) => [partition, BigInt(to)]));
      // A hint for lag tools: it must not fail a flush that is committed.
      void feed.report(next).catch(() => {});
      this.#options.onFlushed?.(target, result);
      return result;
    } catch (thrown) {
      metrics.flushFailed(target);
      this.#failed = vexErrorFrom(thrown).code === "FENCED" ? null : reason;
      this.#drive();
      throw thrown;
    }
  }
}
