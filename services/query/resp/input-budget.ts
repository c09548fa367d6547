/**
 * Memory for requests that are incomplete, or whose answer is awaited, over all connections. One connection is
 * bounded by the parser; ten thousand of them are bounded here.
 *
 * Invariant: a connection may always hold INPUT_BYTES_FREE, so a few with huge requests keep nobody from
 * asking. At most INPUT_BYTES_MAX + CLIENTS_MAX × INPUT_BYTES_FREE = 1.6 GiB are held.
 */

/** Sixteen requests of the largest size (REQUEST_BYTES_MAX). */
export const INPUT_BYTES_MAX = 1024 * 1024 * 1024;
/** One read of a socket; a VADD of 16,384 dimensions. */
export const INPUT_BYTES_FREE = 64 * 1024;

export class InputBudget {
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number = INPUT_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** A connection holds `now` bytes instead of `before`; false: it has to end. */
  change(before: number, now: number): boolean {
    this.#bytes += now - before;
    return now <= before || now <= INPUT_BYTES_FREE || this.#bytes <= this.#bytesMax;
  }
}
