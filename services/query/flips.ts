/**
 * Flips: how a name moves from one incarnation to the other without a read going back in time.
 *
 * The catalog says at once which incarnation a promotion or a rollback made live. But this node consumes the
 * tails of both by itself and may have shown more of the one than it has consumed of the other. So what
 * answered before goes on answering, and one try a round brings the flip about:
 * 1. Hold the predecessor: no append enters it, so what it shows stands still.
 * 2. Wait a moment until the successor's feed has reached that.
 * 3. Compare both as the core describes them, partition by partition, and flip inside of the hold. Where
 *    something is still missing, let go; the next round tries again.
 *
 * Invariants
 * - What the successor shows when it begins to answer covers what the predecessor showed last, by epoch of a
 *   log and partition, the law by which the core accepts a promotion. An epoch that the successor does not
 *   have was given up by whoever promoted it.
 * - A predecessor that is neither live nor fed any more (cleared, dropped, retired), or cannot be opened, is
 *   left at once: nobody consumes for it, and its files go.
 * - A promotion is followed in the end: past FLIP_MS_MAX the name flips all the same, and says so. A successor
 *   that cannot be opened is waited for: its predecessor is fed and answers.
 *
 * Left out on purpose: requests that resolved the predecessor before a flip end on it, and SNAPSHOT, which
 * shows what is committed: the successor's commits have their own times.
 */
import { type Incarnation, isOpen, type Listing, liveSource, type Unreadable } from "../common/catalog.ts";
import type { Visibility } from "./visibility.ts";

/**
 * How long a name may wait. A tail that is in step lags by one fetch, 0.1 s; a rebalance of the log takes a
 * session timeout, 6 s. Whoever lacks something after five of those is stuck, and a person has asked for it.
 */
export const FLIP_MS_MAX = 30_000;
/**
 * How long one try holds the predecessor: two fetches of the log. Writes that wait to be seen there wait that
 * much longer, at most once a round.
 */
const HOLD_MS_MAX = 250;

/** caught-up: nothing went back; late: past the deadline; gone: the predecessor is not served any more. */
export const FLIP_OUTCOMES = ["caught-up", "late", "gone"] as const;

export interface Flip {
  collection: string;
  from: string;
  to: string;
  outcome: (typeof FLIP_OUTCOMES)[number];
  waitedMs: number;
}

export interface FlipsOptions {
  visibility: Pick<Visibility, "hold" | "reached">;
  /** An incarnation as it is on this node now. */
  describe(incarnation: string): Promise<Incarnation>;
  /** The name answers from the successor from now on. */
  flip(key: string, to: Incarnation): void;
  clock: () => number;
  onFlip: (flip: Flip) => void;
}

interface Waiting {
  key: string;
  from: string;
  to: string;
  sinceMs: number;
}

export class Flips {
  readonly #options: FlipsOptions;
  readonly #waiting = new Map<string, Waiting>();

  constructor(options: FlipsOptions) {
    this.#options = options;
  }

  /** Names that do not answer yet from what the catalog calls live. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What shall answer under a name, by the newest catalog and what answered so far. */
  choose(key: string, { live, fed }: Listing, served: string | undefined): Incarnation | Unreadable {
    const waiting = this.#waiting.get(key);
    const kept =
      served === live.incarnation ? undefined : fed.filter(isOpen).find((one) => one.incarnation === served);
    if (kept !== undefined) {
      const sinceMs = waiting?.sinceMs ?? this.#options.clock();
      this.#waiting.set(key, { key, from: kept.incarnation, to: live.incarnation, sinceMs });
      return kept;
    }
    this.#waiting.delete(key);
    if (waiting !== undefined && served !== live.incarnation) {
      this.#tell({ ...waiting, to: live.incarnation }, "gone");
    }
    return live;
  }

  /** Forgets names that the catalog does not have any more. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#waiting.keys()) if (!keys.has(key)) this.#waiting.delete(key);
  }

  /** One try for every name that waits; answers what failed, which keeps none of the others. */
  async settle(): Promise<unknown[]> {
    const failures: unknown[] = [];
    for (const waiting of [...this.#waiting.values()]) {
      await this.#settle(waiting).catch((error: unknown) => failures.push(error));
    }
    return failures;
  }

  async #settle(waiting: Waiting): Promise<void> {
    const late = this.#options.clock() - waiting.sinceMs >= FLIP_MS_MAX;
    if (late) this.#flip(waiting, await this.#options.describe(waiting.to), "late");
    else await this.#try(waiting);
  }

  async #try(waiting: Waiting): Promise<void> {
    const { visibility, describe } = this.#options;
    const { from, to } = waiting;
    let trying = true;
    const attempt = visibility.hold(from, async () => {
      if (!trying) return;
      await visibility.reached(to, missing(await describe(from), await describe(to)), HOLD_MS_MAX);
      const successor = await describe(to);
      // Once more: a snapshot may have moved the predecessor, which no hold keeps.
      const behind = lacks(await describe(from), successor);
      if (trying && !behind) this.#flip(waiting, successor, "caught-up");
    });
    // An append that waits for the store keeps the hold from beginning, and must not keep the round.
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, 2 * HOLD_MS_MAX);
    });
    await Promise.race([attempt, late]).finally(() => {
      trying = false;
      clearTimeout(timer);
    });
    attempt.catch(() => undefined);
  }

  #flip(waiting: Waiting, to: Incarnation, outcome: Flip["outcome"]): void {
    // The catalog may have been read anew meanwhile, and mean another one.
    if (this.#waiting.get(waiting.key)?.to !== to.incarnation) return;
    this.#waiting.delete(waiting.key);
    this.#options.flip(waiting.key, to);
    this.#tell(waiting, outcome);
  }

  #tell({ key, from, to, sinceMs }: Waiting, outcome: Flip["outcome"]): void {
    this.#options.onFlip({ collection: key, from, to, outcome, waitedMs: this.#options.clock() - sinceMs });
  }
}

/** How far a partition is consumed, and the source of the other incarnation that reads the same epoch. */
interface Shared {
  source: number;
  partition: number;
  start: bigint;
  applied: bigint;
}

/** What `shown` consumed of the epochs that `of` reads too. */
function shared(shown: Incarnation, of: Incarnation): Shared[] {
  const byEpoch = new Map(Object.entries(of.sources).map(([id, source]) => [epochOf(source), Number(id)]));
  return shown.partitions.flatMap(({ source, partition, applied, checkpoint }) => {
    const same = byEpoch.get(epochOf(shown.sources[source] as Incarnation["sources"][string]));
    if (same === undefined) return [];
    return [{ source: same, partition, start: BigInt(checkpoint.start), applied: BigInt(applied) }];
  });
}

function epochOf({ kind, cluster, topic, epoch }: Incarnation["sources"][string]): string {
  return JSON.stringify([kind, cluster, topic, epoch]);
}

function appliedOf(of: Incarnation): Map<string, bigint> {
  return new Map(
    of.partitions.map(({ source, partition, applied }) => [`${source}/${partition}`, BigInt(applied)]),
  );
}

function lacks(shown: Incarnation, of: Incarnation): boolean {
  const own = appliedOf(of);
  return shared(shown, of).some(
    ({ source, partition, start, applied }) => (own.get(`${source}/${partition}`) ?? start) < applied,
  );
}

/** What the feed of an incarnation has to reach to have everything shown, by partition. */
function missing(shown: Incarnation, of: Incarnation): Map<number, bigint> {
  const own = appliedOf(of);
  const live = liveSource(of).id;
  return new Map(
    shared(shown, of)
      .filter(({ source, partition, applied }) => {
        const next = own.get(`${source}/${partition}`);
        return source === live && next !== undefined && next < applied;
      })
      .map(({ partition, applied }) => [partition, applied]),
  );
}
