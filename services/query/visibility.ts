/**
 * What the query service needs from whoever reads the log for it: is my write visible here, may I write at
 * all, how far has each partition been applied. `Feeds` (common/feed) fits as it is: ingest's in one
 * process, tails of its own in a query node.
 */
import type { WriteVerdict } from "../common/feed/waiters.ts";

/** What the engine said of a write when its record came back from the log. */
export type WriteAck = Pick<WriteVerdict, "existed" | "accepted" | "reason" | "message">;

export interface Visibility {
  /** Resolves once the write with this id is visible on this node; `forget` ends the wait. */
  acknowledged(incarnation: string, write: string): Promise<WriteAck>;
  forget(incarnation: string, write: string): void;
  /**
   * Resolves once this node reads the log of that incarnation and stands at its newest commit, or behind it.
   */
  follow(incarnation: string): Promise<void>;
  /** Why writes are refused now (a named state such as a retention hole), or undefined. */
  refusal(incarnation: string): string | undefined;
  /** Next offset to be applied, by partition. */
  applied(incarnation: string): Map<number, bigint>;
  /** End of the log as last seen, by partition. */
  ends(incarnation: string): Map<number, bigint>;
  /** Runs `work` while nothing new of that incarnation's log becomes visible here. */
  hold<T>(incarnation: string, work: () => Promise<T>): Promise<T>;
  /** True once every partition has been applied up to the given offset, false at the deadline. */
  reached(incarnation: string, offsets: Map<number, bigint>, timeoutMs: number): Promise<boolean>;
}
