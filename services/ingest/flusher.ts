/**
 * The flusher of one feed: decides when the memtable is sealed, and drives the flush.
 *
 * Sealed at bytes, at age, on request and at the end. A seal waits until no append is under way and all
 * dead letters of what it takes are acknowledged; the flush itself runs beside further appends. Flushes
 * of one incarnation run one after another; whoever asks while one runs gets the next.
 *
 * A flush that fails is loud and tried again with growing waits; nothing is lost by it, because the
 * memtables stay and the checkpoints move only with a commit. Partitions that another process has
 * committed beyond us, and those with a patch to be judged again, are claimed again from where the lake
 * stands.
 */
import type { AppendResult, FlushResult, Lake } from "@vexlake/core";
import type { Feed } from "../common/feed/feed.ts";
import type { FeedAttachment, FeedTarget } from "../common/feed/feeds.ts";
import type { MemoryBudget } from "../common/feed/memory.ts";
import { vexErrorFrom } from "../common/process/error.ts";
import type { Logger } from "../common/process/logger.ts";
import type { IngestMetrics } from "./metrics.ts";

/** Waits between tries of a failed flush: 200 ms doubling to 10 s. */
const BACKOFF_MIN_MS = 200;
const BACKOFF_MAX_MS = 10_000;

export type FlushReason = "bytes" | "age" | "request" | "shutdown";

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
  #running: Promise<FlushResult> | null = null;
  #next: Promise<FlushResult> | null = null;
  #closed = false;

  constructor(options: FlusherOptions) {
    this.#options = options;
  }

  appended({ memtableBytes, accepted, bad }: AppendResult): void {
    const { target, metrics, sealBytes, sealAgeMs, budget } = this.#options;
    metrics.appended(target, accepted, bad.length);
    if (memtableBytes - this.#settledBytes >= sealBytes || budget.over) void this.#request("bytes");
    // Offsets alone are worth a commit too: a checkpoint must pass what was refused.
    this.#timer ??= setTimeout(() => void this.#request("age"), sealAgeMs);
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
    this.#closed = true;
    clearTimeout(this.#timer);
    try {
      await this.flush("shutdown");
    } catch (thrown) {
      const { logger, target } = this.#options;
      logger.warn(
        { err: thrown, incarnation: target.incarnation },
        "the last flush failed; the log still has it",
      );
    }
    this.#options.budget.remove(this.#options.target.incarnation);
  }

  /** A flush that nobody waits for: tried again until it works or ends for good. */
  async #request(reason: FlushReason): Promise<void> {
    if (this.#running !== null && reason === "bytes") return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (let wait = BACKOFF_MIN_MS; !this.#closed; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      try {
        await this.flush(reason);
        return;
      } catch (thrown) {
        const error = vexErrorFrom(thrown);
        const { logger, target } = this.#options;
        logger.error({ err: error, incarnation: target.incarnation, reason }, "flush failed, trying again");
        if (error.code === "FENCED") return;
        await new Promise((resolve) => setTimeout(resolve, wait));
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
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const started = performance.now();
    await feed.settled(async () => {
      await lake.alter({ op: "seal", incarnation });
      this.#settledBytes = budget.held(incarnation);
    });
    try {
      const result = await lake.flush(incarnation);
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
        await feed.reclaim();
      }
      const next = new Map(result.ranges.map(({ partition, to }) => [partition, BigInt(to)]));
      // A hint for lag tools: it must not fail a flush that is committed.
      void feed.report(next).catch(() => {});
      this.#options.onFlushed?.(target, result);
      return result;
    } catch (error) {
      metrics.flushFailed(target);
      throw error;
    }
  }
}
