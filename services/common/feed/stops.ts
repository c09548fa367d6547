/**
 * The stopped states of a feed: one a partition, or one for the whole consumer while it has none.
 *
 * A state stands until it is refuted, so that nothing looks well in between the looks at it: what a claim
 * found by the next good claim; what a batch met by the first batch after such a claim, or by a claim at
 * the log's end. A batch alone refutes nothing: it may have been in hand when its partition stopped.
 */
import type { StoppedState, StopReason } from "../log/source.ts";
import type { Logger } from "../process/logger.ts";

/** What a claim finds: a claim that finds it no more refutes it. The rest only a batch refutes. */
const FOUND_BY_CLAIM: ReadonlySet<StopReason> = new Set<StopReason>([
  "retention-passed",
  "beyond-end",
  "topic-recreated",
  "partitions-added",
  "topic-missing",
  "fenced",
]);

export interface StopsOptions {
  topic: string;
  logger: Logger;
  /** As people call the collection, for the command that accepts a state. */
  collection: string | undefined;
  /** A partition stopped (a state) or goes on (null). */
  onStopped: ((partition: number | undefined, state: StoppedState | null) => void) | undefined;
}

export class Stops {
  readonly #options: StopsOptions;
  /** undefined stands for the whole consumer. */
  readonly #states = new Map<number | undefined, { state: StoppedState; claimed: boolean }>();

  constructor(options: StopsOptions) {
    this.#options = options;
  }

  list(): StoppedState[] {
    return [...this.#states.values()].map(({ state }) => state);
  }

  partitions(): number[] {
    return [...this.#states.keys()].filter((partition) => partition !== undefined);
  }

  add(state: StoppedState): void {
    const { collection, logger, onStopped, topic } = this.#options;
    const { partition } = state;
    const accept = collection === undefined ? state.accept : acceptCommand(collection, state);
    const shown = { ...state, accept };
    const before = this.#states.get(partition);
    this.#states.set(partition, { state: shown, claimed: false });
    // Looked at again every second: said once.
    if (before?.state.message === state.message) return;
    logger.error({ topic, ...shown, lost: undefined }, state.message);
    onStopped?.(partition, shown);
  }

  /** The consumer has claimed its partitions. */
  consumes(): void {
    this.#refute(undefined);
  }

  /** A claim found a start for the partition; `atEnd` when nothing lies behind it. */
  claimed(partition: number, atEnd: boolean): void {
    const stop = this.#states.get(partition);
    if (!stop) return;
    stop.claimed = true;
    if (atEnd || FOUND_BY_CLAIM.has(stop.state.reason)) this.#refute(partition);
  }

  /** A batch of the partition came through. */
  consumed(partition: number): void {
    if (this.#states.get(partition)?.claimed) this.#refute(partition);
  }

  /** Another process has the partition now. */
  drop(partition: number): void {
    this.#states.delete(partition);
  }

  #refute(partition: number | undefined): void {
    if (this.#states.delete(partition)) this.#options.onStopped?.(partition, null);
  }
}

function acceptCommand(collection: string, { partition }: StoppedState): string {
  return `vexlake source accept ${collection}${partition === undefined ? "" : ` --partition ${partition}`}`;
}
