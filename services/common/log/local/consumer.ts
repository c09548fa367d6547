/**
 * A consumer of one topic of the local log.
 *
 * 1. Its group (or the fixed assignment) gives it partitions; `claim` says where each starts.
 * 2. Per partition one loop reads a stretch, hands it over, awaits it, and at the end of the log waits
 *    for the next synced group. Pause and seek take effect between two batches.
 * 3. A new assignment stops all loops, waits for their running deliveries, then claims anew.
 *
 * The log is in this process, so nothing can be away; a read that fails is damage and stops that
 * partition.
 */
import { VexError } from "../../process/error.ts";
import { claimPartitions, rangeStop, stopOf } from "../claim.ts";
import type { ConsumerHandlers, LogConsumer, StoppedState } from "../source.ts";
import type { GroupMember } from "./groups.ts";
import type { Cursor, LocalPartition } from "./partition.ts";

interface Loop {
  cursor: Cursor | null;
  /** Steps up with every seek and release; a loop of an older number ends. */
  run: number;
  paused: boolean;
  running: Promise<void> | null;
  wake: () => void;
}

export interface LocalConsumerOptions {
  topic: string;
  partitions: LocalPartition[];
  handlers: ConsumerHandlers;
  report: (offsets: Map<number, bigint>) => Promise<void>;
  leave: (consumer: LocalConsumer) => Promise<void>;
}

export class LocalConsumer implements LogConsumer, GroupMember {
  readonly #options: LocalConsumerOptions;
  readonly #loops = new Map<number, Loop>();
  #generation = 0;
  #claiming: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(options: LocalConsumerOptions) {
    this.#options = options;
  }

  async release(keeps: number[]): Promise<void> {
    this.#generation += 1;
    await this.#claiming;
    for (const loop of this.#loops.values()) halt(loop);
    await Promise.all([...this.#loops.values()].map(({ running }) => running));
    const lost = [...this.#loops.keys()].filter((partition) => !keeps.includes(partition));
    for (const partition of lost) this.#loops.delete(partition);
    if (lost.length > 0 && !this.#closed) await this.#options.handlers.revoked(lost);
  }

  take(partitions: number[]): void {
    const generation = this.#generation;
    for (const partition of partitions) {
      if (!this.#loops.has(partition)) this.#loops.set(partition, newLoop());
    }
    this.#claiming = this.#claim(generation, partitions);
  }

  pause(partitions: number[]): void {
    for (const partition of partitions) {
      const loop = this.#loops.get(partition);
      if (loop) loop.paused = true;
    }
  }

  resume(partitions: number[]): void {
    for (const partition of partitions) {
      const loop = this.#loops.get(partition);
      if (!loop) continue;
      loop.paused = false;
      loop.wake();
    }
  }

  seek(partition: number, offset: bigint): void {
    const loop = this.#loops.get(partition);
    if (loop) this.#start(partition, loop, offset);
  }

  async claim(partitions: number[]): Promise<void> {
    const assigned = partitions.filter((partition) => this.#loops.has(partition));
    if (assigned.length > 0) await this.#claim(this.#generation, assigned);
  }

  assigned(): number[] {
    return [...this.#loops.keys()].sort((a, b) => a - b);
  }

  highWatermark(partition: number): bigint | undefined {
    return this.#loops.has(partition) ? this.#log(partition).range.high : undefined;
  }

  async report(offsets: Map<number, bigint>): Promise<void> {
    await this.#options.report(offsets);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#options.leave(this);
    this.#loops.clear();
  }

  async #claim(generation: number, partitions: number[]): Promise<void> {
    const { topic, handlers } = this.#options;
    const claimed = await claimPartitions({
      topic,
      partitions,
      handlers,
      ranges: async () => this.#options.partitions.map(({ range }) => range),
      current: () => generation === this.#generation && !this.#closed,
    });
    for (const claim of claimed ?? []) {
      const loop = this.#loops.get(claim.partition);
      if (!loop) continue;
      if ("next" in claim) this.#start(claim.partition, loop, claim.next);
      else {
        void halt(loop);
        handlers.stopped(claim.stopped);
      }
    }
  }

  #start(partition: number, loop: Loop, offset: bigint): void {
    const before = halt(loop);
    const run = loop.run;
    loop.cursor = { offset, base: null, position: 0 };
    loop.running = (async () => {
      await before;
      await this.#consume(partition, loop, run);
    })();
  }

  /** Ends when the loop is halted or the partition stops; never throws. */
  async #consume(partition: number, loop: Loop, run: number): Promise<void> {
    const { handlers, topic } = this.#options;
    const log = this.#log(partition);
    const cursor = loop.cursor as Cursor;
    const unwatch = log.watch(() => loop.wake());
    const current = () => loop.run === run;
    try {
      while (current()) {
        const stop = rangeStop(topic, cursor.offset, log.range);
        if (stop) return this.#stop(stop);
        // Armed before looking, so that a change in between is not slept over.
        const changed = new Promise<void>((resolve) => {
          loop.wake = resolve;
        });
        const batch = loop.paused ? null : await log.read(cursor);
        if (!current()) return;
        // A pause that came during the read holds the batch back, too.
        while (batch && loop.paused && current()) {
          await new Promise<void>((resolve) => {
            loop.wake = resolve;
          });
        }
        if (!current()) return;
        if (batch) await handlers.batch(batch);
        else await changed;
      }
    } catch (error) {
      if (current()) this.#stop(stopOf(topic, partition, error));
    } finally {
      unwatch();
    }
  }

  #stop(state: StoppedState): void {
    this.#options.handlers.stopped(state);
  }

  #log(partition: number): LocalPartition {
    const log = this.#options.partitions[partition];
    if (!log) throw new VexError("NOT_FOUND", `the log holds no ${this.#options.topic}/${partition}`);
    return log;
  }
}

function newLoop(): Loop {
  return { cursor: null, run: 0, paused: false, running: null, wake: () => undefined };
}

/** Ends the loop after the batch in hand; resolves when it has ended. */
function halt(loop: Loop): Promise<void> {
  loop.run += 1;
  loop.wake();
  return loop.running ?? Promise.resolve();
}
