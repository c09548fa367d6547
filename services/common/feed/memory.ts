/**
 * A budget of bytes that several feeds share (ingest: memory_bytes_max; a query node's tails:
 * tail_bytes). Above it consumers pause, below RESUME_SHARE of it they go on: the gap keeps them from
 * pausing and resuming with every batch.
 *
 * It only counts. Making room (seal, flush, follow a snapshot) is its owners' work, and they tell the
 * new size here. Which of them: `isLarge`.
 */
export const RESUME_SHARE = 7 / 8;

export class MemoryBudget {
  readonly bytesMax: number;
  readonly #held = new Map<string, number>();
  readonly #listeners = new Set<(over: boolean) => void>();
  #total = 0;
  #over = false;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#total;
  }

  get over(): boolean {
    return this.#over;
  }

  /** What `owner` held when it last said so. */
  held(owner: string): number {
    return this.#held.get(owner) ?? 0;
  }

  /** Whether `owner` should make room: those that are not large hold less than the gap, all together. */
  isLarge(owner: string): boolean {
    return this.held(owner) * this.#held.size >= this.bytesMax * (1 - RESUME_SHARE);
  }

  /** What `owner` holds now. */
  set(owner: string, bytes: number): void {
    this.#total += bytes - (this.#held.get(owner) ?? 0);
    this.#held.set(owner, bytes);
    this.#judge();
  }

  remove(owner: string): void {
    this.#total -= this.#held.get(owner) ?? 0;
    this.#held.delete(owner);
    this.#judge();
  }

  /** Called with each change between over and under; returns the function that ends it. */
  listen(listener: (over: boolean) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #judge(): void {
    const over = this.#over ? this.#total > this.bytesMax * RESUME_SHARE : this.#total > this.bytesMax;
    if (over === this.#over) return;
    this.#over = over;
    for (const listener of [...this.#listeners]) listener(over);
  }
}
