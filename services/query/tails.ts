/**
 * The tails of a query node that runs alone: feeds of all partitions, under one budget (query.tail_bytes).
 *
 * What is covered by a commit leaves memory when the follower brings the core to that commit; the listing after it
 * tells the budget. Over the budget consumers pause: reads serve the snapshot and the prefix that was read, and
 * writes are refused before they are produced, because they could not become visible here.
 */
import { Feeds, type FeedsOptions } from "../common/feed/feeds.ts";
import { MemoryBudget } from "../common/feed/memory.ts";
import type { CollectionView } from "./core.ts";
import type { Visibility, WriteAck } from "./visibility.ts";

export type TailsOptions = Pick<FeedsOptions, "lake" | "log" | "logger"> & { bytesMax: number };

export class Tails implements Visibility {
  readonly #feeds: Feeds;
  readonly #budget: MemoryBudget;

  constructor({ bytesMax, ...options }: TailsOptions) {
    this.#budget = new MemoryBudget(bytesMax);
    this.#feeds = new Feeds({ ...options, budget: this.#budget, assignment: () => ({ kind: "all" }) });
  }

  async start(): Promise<void> {
    await this.#feeds.start();
  }

  async close(): Promise<void> {
    await this.#feeds.close();
  }

  /** A check for /readyz. */
  notReady(): string | null {
    return this.#feeds.notReady() ?? this.#overBudget() ?? null;
  }

  /** Learns what is held now, after the core has let go of what a commit covers. */
  listed(views: readonly CollectionView[]): void {
    for (const view of views) {
      if (this.#feeds.feed(view.incarnation) !== undefined)
        this.#budget.set(view.incarnation, view.tailBytes);
    }
  }

  refusal(incarnation: string): string | undefined {
    return this.#feeds.refusal(incarnation) ?? this.#overBudget();
  }

  acknowledged(incarnation: string, write: string): Promise<WriteAck> {
    return this.#feeds.acknowledged(incarnation, write);
  }

  forget(incarnation: string, write: string): void {
    this.#feeds.forget(incarnation, write);
  }

  follow(incarnation: string): Promise<void> {
    return this.#feeds.follow(incarnation);
  }

  applied(incarnation: string): Map<number, bigint> {
    return this.#feeds.applied(incarnation);
  }

  ends(incarnation: string): Map<number, bigint> {
    return this.#feeds.ends(incarnation);
  }

  reached(incarnation: string, offsets: Map<number, bigint>, timeoutMs: number): Promise<boolean> {
    return this.#feeds.reached(incarnation, offsets, timeoutMs);
  }

  #overBudget(): string | undefined {
    if (!this.#budget.over) return undefined;
    return `tails hold ${this.#budget.bytes} bytes, tail_bytes is ${this.#budget.bytesMax}`;
  }
}
