/**
 * The refused records of a feed whose dead letters are not acknowledged yet, by partition.
 *
 * A record that the core has refused is passed by the next commit, so its letter must be safe before
 * that commit (DESIGN §5.2), whatever happens in between: a send that fails, a partition that stops or
 * moves to another process. So letters wait here until they are acknowledged, and both the partition's
 * next claim and every seal send what still waits and go on only when it worked. A partition whose
 * letters do not go out stands still, so it holds those of one batch at most.
 */
import type { LogBatch, LogRecord } from "../log/source.ts";
import type { AppendResult } from "./core.ts";

export interface BadRecord {
  partition: number;
  record: LogRecord;
  reason: string;
  message: string;
}

/** Resolves when the letters are acknowledged; once the signal aborts it must come to an end soon. */
export type SendLetters = (bad: BadRecord[], signal: AbortSignal) => Promise<void>;

export class WaitingLetters {
  readonly #sendLetters: SendLetters;
  readonly #signal: AbortSignal;
  readonly #waiting = new Map<number, BadRecord[]>();
  readonly #sending = new Map<number, Promise<void>>();

  constructor(send: SendLetters, signal: AbortSignal) {
    this.#sendLetters = send;
    this.#signal = signal;
  }

  add(partition: number, bad: BadRecord[]): void {
    if (bad.length === 0) return;
    this.#waiting.set(partition, [...(this.#waiting.get(partition) ?? []), ...bad]);
  }

  /** Resolves when no letter of the partition waits any more; throws what sending throws, and keeps them. */
  async sent(partition: number): Promise<void> {
    while (this.#waiting.has(partition)) {
      const sending = this.#sending.get(partition) ?? this.#send(partition);
      await sending;
    }
  }

  /** `sent` of every partition, those of other processes by now included. */
  async allSent(): Promise<void> {
    await Promise.all([...this.#waiting.keys()].map((partition) => this.sent(partition)));
  }

  #send(partition: number): Promise<void> {
    const letters = this.#waiting.get(partition) as BadRecord[];
    const sending = this.#sendLetters(letters, this.#signal)
      .then(() => {
        const rest = (this.#waiting.get(partition) ?? []).slice(letters.length);
        if (rest.length > 0) this.#waiting.set(partition, rest);
        else this.#waiting.delete(partition);
      })
      .finally(() => this.#sending.delete(partition));
    this.#sending.set(partition, sending);
    return sending;
  }
}

/** The records of a batch that the core has refused, as they came. */
export function badRecords(batch: LogBatch, bad: AppendResult["bad"]): BadRecord[] {
  const records = new Map(batch.records.map((record) => [record.offset, record]));
  return bad.flatMap(({ offset, reason, message }) => {
    const record = records.get(offset);
    return record ? [{ partition: batch.partition, record, reason, message }] : [];
  });
}
