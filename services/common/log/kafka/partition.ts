/**
 * One partition inside a Kafka consumer: what is expected next, what waits for delivery, why it stands.
 *
 * Batches are queued by the fetch loop, which must not wait (heartbeats only happen between batches),
 * and delivered one at a time by `#drain`. Fetching pauses while any of these holds: a claim is open,
 * the partition stopped, its user paused it, its queue is full, kafkajs is being put back.
 */
import type { LogBatch, StoppedState } from "../source.ts";

/** Delivered bytes lag fetched ones by at most this plus one fetch of 1 MiB, per partition. */
export const QUEUE_BYTES_MAX = 4 * 1024 * 1024;
/** Fetching goes on once half is delivered, so that the queue does not run dry meanwhile. */
const QUEUE_BYTES_RESUME = QUEUE_BYTES_MAX / 2;

export interface PartitionHooks {
  deliver(batch: LogBatch): Promise<void>;
  /** `deliver` threw: the partition stands until the next claim or seek. */
  failed(partition: number, error: unknown): void;
  /** Fetching of this partition shall pause or go on. */
  fetch(partition: number, wanted: boolean): void;
}

export class KafkaPartition {
  readonly partition: number;
  /** Offset at which the next fetched batch must start. */
  next = -1n;
  high = 0n;
  /** Tries in a row to put kafkajs back to `next`. */
  reseeks = 0;
  stopped: StoppedState | null = null;
  readonly #hooks: PartitionHooks;
  #claiming = true;
  #paused = false;
  #full = false;
  #moving = false;
  #fetching: boolean | null = null;
  #queue: { batch: LogBatch; bytes: number }[] = [];
  #bytes = 0;
  #draining: Promise<void> | null = null;

  constructor(partition: number, hooks: PartitionHooks) {
    this.partition = partition;
    this.#hooks = hooks;
  }

  /** Held until a claim answers where it starts. */
  get claiming(): boolean {
    return this.#claiming;
  }

  get running(): boolean {
    return !this.#claiming && this.stopped === null;
  }

  /** Drops what waits and stands still until `startAt` or `stop`; resolves when no delivery runs. */
  async hold(): Promise<void> {
    this.#claiming = true;
    this.#drop();
    this.#apply();
    await this.#draining;
  }

  startAt(next: bigint, high: bigint): void {
    this.#claiming = false;
    this.#moving = false;
    this.stopped = null;
    this.next = next;
    this.high = high;
    this.reseeks = 0;
    this.#drop();
    // kafkajs forgets its pauses with a restart, so the wanted state is told anew.
    this.#fetching = null;
    this.#apply();
  }

  stop(state: StoppedState): void {
    this.#claiming = false;
    this.stopped = state;
    this.#drop();
    this.#fetching = null;
    this.#apply();
  }

  pause(): void {
    this.#paused = true;
    this.#apply();
  }

  resume(): void {
    this.#paused = false;
    this.#apply();
    this.#pump();
  }

  /** Fetching stands while kafkajs is put back to `next`; what waits is still delivered. */
  moving(moving: boolean): void {
    this.#moving = moving;
    this.#fetching = null;
    this.#apply();
  }

  /** Takes a batch that starts at `next`. */
  push(batch: LogBatch, bytes: number): void {
    this.next = batch.to;
    this.reseeks = 0;
    this.#queue.push({ batch, bytes });
    this.#bytes += bytes;
    if (this.#bytes > QUEUE_BYTES_MAX) this.#full = true;
    this.#apply();
    this.#pump();
  }

  #pump(): void {
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = null;
      if (this.#deliverable()) this.#pump();
    });
  }

  #deliverable(): boolean {
    return this.running && !this.#paused && this.#queue.length > 0;
  }

  async #drain(): Promise<void> {
    // Leaves the fetch loop's turn first: what a handler does before its first await must not delay it.
    await Promise.resolve();
    while (this.#deliverable()) {
      const { batch, bytes } = this.#queue.shift() as { batch: LogBatch; bytes: number };
      try {
        await this.#hooks.deliver(batch);
      } catch (error) {
        // A claim that started meanwhile decides anew.
        if (!this.#claiming) this.#hooks.failed(this.partition, error);
        return;
      }
      this.#bytes = Math.max(0, this.#bytes - bytes);
      if (this.#bytes <= QUEUE_BYTES_RESUME) this.#full = false;
      this.#apply();
    }
  }

  #drop(): void {
    this.#queue = [];
    this.#bytes = 0;
    this.#full = false;
  }

  #apply(): void {
    const wanted = this.running && !this.#paused && !this.#full && !this.#moving;
    if (wanted === this.#fetching) return;
    this.#fetching = wanted;
    this.#hooks.fetch(this.partition, wanted);
  }
}
