/**
 * Those who wait for a feed: for an offset to be applied, for the verdict on a write.
 *
 * Offsets: per partition a list ordered by offset, so an advance looks only at those it wakes.
 * Writes: by acknowledgement id. A wait begins before the record is produced, else its verdict could
 * pass by unseen; whoever waits forgets it in the end. A verdict that nobody waits for is dropped: most
 * records come from producers that wait for nothing, or that wait at another node.
 */
import { VexError } from "../process/error.ts";

/** Waits at once, of each kind: clients' requests in flight; ~300 bytes each. */
export const WAITERS_MAX = 100_000;

interface OffsetWaiter {
  offset: bigint;
  settle: (reached: boolean) => void;
}

export class OffsetWaiters {
  readonly #waiting = new Map<number, OffsetWaiter[]>();
  #count = 0;

  /** True when `advance` reaches the offset, false at the timeout or when everything ends. */
  wait(partition: number, offset: bigint, timeoutMs: number): Promise<boolean> {
    if (this.#count >= WAITERS_MAX) {
      return Promise.reject(new VexError("UNAVAILABLE", `${WAITERS_MAX} requests wait for offsets already`));
    }
    return new Promise((resolve) => {
      const list = this.#waiting.get(partition) ?? [];
      this.#waiting.set(partition, list);
      const waiter: OffsetWaiter = {
        offset,
        settle: (reached) => {
          clearTimeout(timer);
          this.#count -= 1;
          resolve(reached);
        },
      };
      const timer = setTimeout(() => {
        const at = list.indexOf(waiter);
        if (at >= 0) list.splice(at, 1);
        waiter.settle(false);
      }, timeoutMs);
      const after = list.findIndex((other) => other.offset > offset);
      list.splice(after < 0 ? list.length : after, 0, waiter);
      this.#count += 1;
    });
  }

  /** Everything below `applied` has been applied. */
  advance(partition: number, applied: bigint): void {
    const list = this.#waiting.get(partition);
    while (list?.[0] && list[0].offset <= applied) (list.shift() as OffsetWaiter).settle(true);
  }

  end(): void {
    for (const list of this.#waiting.values()) for (const waiter of list.splice(0)) waiter.settle(false);
  }
}

/** The engine's verdict on one write. */
export interface WriteVerdict {
  offset: bigint;
  /** A live record of that key was there before. */
  existed: boolean;
  accepted: boolean;
  /** Why not: the word of schemas/records.md, and for people. */
  reason?: string;
  message?: string;
}

export class WriteWaiters {
  readonly #waiting = new Map<
    string,
    { verdict: Promise<WriteVerdict>; settle: (verdict: WriteVerdict) => void }
  >();

  /** Never rejects for lack of an answer; `forget` ends the wait. */
  wait(write: string): Promise<WriteVerdict> {
    const known = this.#waiting.get(write);
    if (known) return known.verdict;
    if (this.#waiting.size >= WAITERS_MAX) {
      return Promise.reject(
        new VexError("UNAVAILABLE", `${WAITERS_MAX} writes wait for their verdict already`),
      );
    }
    const { promise: verdict, resolve: settle } = Promise.withResolvers<WriteVerdict>();
    this.#waiting.set(write, { verdict, settle });
    return verdict;
  }

  forget(write: string): void {
    this.#waiting.delete(write);
  }

  settle(write: string, verdict: WriteVerdict): void {
    const waiter = this.#waiting.get(write);
    if (!waiter) return;
    this.#waiting.delete(write);
    waiter.settle(verdict);
  }
}
