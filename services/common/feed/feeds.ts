/**
 * The feeds of a process: one per incarnation that is live or fed, kept in step with the catalog.
 *
 * Ingest and query nodes use it alike and differ in the options: how partitions are assigned, what
 * happens to bad records, what an append triggers. It also answers those who write or wait through this
 * node: is my write visible, may I write, how far is each partition applied.
 *
 * An incarnation whose source names another log than the running one is readable but not fed; it counts
 * as stopped, with the reason. So does one that cannot be opened: the others are fed all the same.
 */
import type { AppendBatch, AppendResult, Lake } from "@vexlake/core";
import { foreignSource, isOpen, type Listing, liveSource, readCatalog } from "../catalog.ts";
import type { Assignment, LogSource, StoppedState } from "../log/source.ts";
import { VexError, vexErrorFrom } from "../process/error.ts";
import type { Logger } from "../process/logger.ts";
import { Feed } from "./feed.ts";
import type { BadRecord } from "./letters.ts";
import type { MemoryBudget } from "./memory.ts";
import type { WriteVerdict } from "./waiters.ts";

/** How often the catalog is compared with the feeds. */
export const RECONCILE_MS = 1_000;

/** Joining a consumer to its topic takes some 0.2 s; an outage of the log must not hold back the reads. */
const START_MS_MAX = 10_000;

/** A tail seals at this size: 16 tables make the default tail of 256 MiB. */
export const TAIL_TABLE_BYTES = 16 * 1024 * 1024;

/** What is fed: an incarnation and where its records come from. */
export interface FeedTarget {
  db: number;
  name: string;
  incarnation: string;
  topic: string;
  sourceId: number;
  live: boolean;
  /**
   * Its bad records get dead letters. A replay reads what the live incarnation read before it, whose
   * letters are there already. An incarnation that was live goes on writing them until it is retired:
   * the one that took over may have been ahead of it, without letters. Ids grow with time.
   */
  letters: boolean;
}

export interface FeedsOptions {
  lake: Lake;
  log: LogSource;
  logger: Logger;
  budget: MemoryBudget;
  assignment(target: FeedTarget): Assignment;
  /** Nobody flushes what is fed here: snapshots of other processes empty it, table by table. */
  tail?: boolean;
  badRecord?: AppendBatch["badRecord"];
  onBad?(target: FeedTarget, bad: BadRecord[], signal: AbortSignal): Promise<void>;
  /** A feed begins; answers what ends with it. */
  onFeed?(target: FeedTarget, feed: Feed): FeedAttachment;
}

/** What a role hangs onto a feed. */
export interface FeedAttachment {
  appended(result: AppendResult): void;
  close(): Promise<void>;
}

interface Running {
  target: FeedTarget;
  feed: Feed;
  attachment: FeedAttachment | null;
  started: Promise<void>;
  ending: Promise<void> | null;
}

export class Feeds {
  readonly #options: FeedsOptions;
  readonly #running = new Map<string, Running>();
  readonly #foreign = new Map<string, string>();
  readonly #unreadable = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #cluster: string | null = null;
  #reconciling: Promise<void> | undefined;
  #closed = false;
  #failure: string | null = "the catalog was not read yet";

  constructor(options: FeedsOptions) {
    this.#options = options;
  }

  /** Starts the feeds of everything in the catalog, and keeps following it. */
  async start(): Promise<void> {
    await this.reconcile();
    const tick = async (): Promise<void> => {
      await this.reconcile().catch(() => {});
      if (!this.#closed) this.#timer = setTimeout(tick, RECONCILE_MS);
    };
    this.#timer = setTimeout(tick, RECONCILE_MS);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#reconciling?.catch(() => {});
    await Promise.all([...this.#running.keys()].map((incarnation) => this.#end(incarnation)));
  }

  /**
   * Resolves when every topic is being consumed, or after START_MS_MAX: a process that announces itself takes
   * writes, unless the log stays away, which /readyz then says.
   */
  async started(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, START_MS_MAX);
    });
    const all = Promise.all([...this.#running.values()].map(({ started }) => started));
    await Promise.race([all, late]).finally(() => clearTimeout(timer));
  }

  /** Why this process does not feed as it should, null when it does: a check for /readyz. */
  notReady(): string | null {
    if (this.#failure !== null) return this.#failure;
    const [unfed] = [...this.#foreign.values(), ...this.#unreadable.values()];
    if (unfed !== undefined) return unfed;
    for (const { feed } of this.#running.values()) {
      if (feed.away !== null) return `the log is away: ${feed.away}`;
      const [stopped] = feed.stopped();
      if (stopped) return `${stopped.reason}: ${stopped.message}`;
    }
    return null;
  }

  all(): { target: FeedTarget; feed: Feed }[] {
    return [...this.#running.values()].map(({ target, feed }) => ({ target, feed }));
  }

  feed(incarnation: string): Feed | undefined {
    return this.#running.get(incarnation)?.feed;
  }

  attachment(incarnation: string): FeedAttachment | null {
    return this.#running.get(incarnation)?.attachment ?? null;
  }

  /** Incarnations that are not fed, because their source is on another log: incarnation → reason. */
  foreign(): ReadonlyMap<string, string> {
    return this.#foreign;
  }

  /** Compares catalog and feeds once; calls while one runs share it. */
  reconcile(): Promise<void> {
    this.#reconciling ??= this.#reconcile()
      .then(() => {
        this.#failure = null;
      })
      .catch((thrown: unknown) => {
        this.#failure = vexErrorFrom(thrown).message;
        this.#options.logger.warn({ err: thrown }, "the catalog could not be followed, trying again");
        throw thrown;
      })
      .finally(() => {
        this.#reconciling = undefined;
      });
    return this.#reconciling;
  }

  // What the query service asks of whoever reads the log (services/query/visibility.ts).

  async follow(incarnation: string): Promise<void> {
    if (!this.#running.has(incarnation) && this.#unfed(incarnation) === undefined) {
      // The one under way may have read the catalog before this incarnation came into it.
      await this.#reconciling?.catch(() => {});
      await this.reconcile();
    }
    const running = this.#running.get(incarnation);
    await running?.started;
    if (this.#options.tail) {
      await this.#options.lake.alter({ op: "seal", incarnation, bytesMin: TAIL_TABLE_BYTES });
    }
    await running?.feed.follow();
  }

  acknowledged(incarnation: string, write: string): Promise<WriteVerdict> {
    const feed = this.feed(incarnation);
    if (feed) return feed.acknowledged(write);
    return Promise.reject(new VexError("UNAVAILABLE", `incarnation ${incarnation} is not fed here`));
  }

  forget(incarnation: string, write: string): void {
    this.feed(incarnation)?.forget(write);
  }

  refusal(incarnation: string): string | undefined {
    const unfed = this.#unfed(incarnation);
    if (unfed !== undefined) return unfed;
    const feed = this.feed(incarnation);
    if (feed === undefined) return `incarnation ${incarnation} is not fed here yet`;
    if (feed.away !== null) return `the log is away: ${feed.away}`;
    const { budget, tail } = this.#options;
    if (tail && budget.over) return `the tail holds ${budget.bytes} bytes, tail_bytes is ${budget.bytesMax}`;
    return feed.refusal();
  }

  #unfed(incarnation: string): string | undefined {
    return this.#foreign.get(incarnation) ?? this.#unreadable.get(incarnation);
  }

  applied(incarnation: string): Map<number, bigint> {
    return this.feed(incarnation)?.applied() ?? new Map();
  }

  ends(incarnation: string): Map<number, bigint> {
    return this.feed(incarnation)?.ends() ?? new Map();
  }

  reached(incarnation: string, offsets: Map<number, bigint>, timeoutMs: number): Promise<boolean> {
    return this.feed(incarnation)?.reached(offsets, timeoutMs) ?? Promise.resolve(false);
  }

  hold<T>(incarnation: string, work: () => Promise<T>): Promise<T> {
    return this.feed(incarnation)?.hold(work) ?? work();
  }

  async #reconcile(): Promise<void> {
    const { lake, log } = this.#options;
    await lake.refresh(null);
    const wanted = new Map<string, FeedTarget>();
    const listed = await readCatalog(lake);
    // Asked once: following the catalog must not depend on a log that may be away.
    this.#cluster ??= await log.cluster();
    const running = { kind: log.kind, cluster: this.#cluster };
    this.#foreign.clear();
    this.#unreadable.clear();
    for (const collection of listed) {
      for (const target of targetsOf(collection, running, this.#foreign, this.#unreadable))
        wanted.set(target.incarnation, target);
    }
    if (this.#closed) return;
    // Nothing here waits for one incarnation, so that a sick one holds up no other.
    for (const { target, feed, ending } of this.#running.values()) {
      // A switched source is another topic or epoch: what reads the old one ends.
      if (wanted.get(target.incarnation)?.sourceId !== target.sourceId) void this.#end(target.incarnation);
      else if (ending === null) void feed.retryStopped();
    }
    for (const target of wanted.values()) {
      const known = this.#running.get(target.incarnation);
      // One that ends comes back with the first look after its end.
      if (known === undefined) this.#begin(target);
      else if (known.ending === null) known.target = target;
    }
  }

  #begin(target: FeedTarget): void {
    const { lake, log, logger, budget, badRecord, onBad } = this.#options;
    const { incarnation, topic, sourceId, name } = target;
    const entry: Running = {
      target,
      feed: null as unknown as Feed,
      attachment: null,
      started: Promise.resolve(),
      ending: null,
    };
    entry.feed = new Feed({
      source: log,
      core: lake,
      logger: logger.child({ collection: name, incarnation }),
      incarnation,
      topic,
      sourceId,
      assignment: this.#options.assignment(target),
      collection: name,
      budget,
      ...(badRecord === undefined ? {} : { badRecord }),
      ...(onBad === undefined
        ? {}
        : { onBad: (bad: BadRecord[], signal: AbortSignal) => onBad(entry.target, bad, signal) }),
      onAppend: (result) => entry.attachment?.appended(result),
    });
    entry.attachment = this.#options.onFeed?.(target, entry.feed) ?? null;
    entry.started = entry.feed.start();
    this.#running.set(incarnation, entry);
  }

  #end(incarnation: string): Promise<void> {
    const running = this.#running.get(incarnation);
    if (!running) return Promise.resolve();
    running.ending ??= (async () => {
      // The feed first, so that nothing is appended behind the attachment's last work.
      await running.feed.close();
      await running.attachment?.close();
      this.#running.delete(incarnation);
    })();
    return running.ending;
  }
}

function targetsOf(
  { db, name, live, fed }: Listing,
  running: { kind: string; cluster: string },
  foreign: Map<string, string>,
  unreadable: Map<string, string>,
): FeedTarget[] {
  const targets: FeedTarget[] = [];
  for (const of of [live, ...fed]) {
    if (!isOpen(of)) {
      unreadable.set(
        of.incarnation,
        `${name}: incarnation ${of.incarnation} cannot be opened: ${of.message}`,
      );
      continue;
    }
    const reason = foreignSource(of, running);
    if (reason !== null) foreign.set(of.incarnation, reason);
    else {
      const { id: sourceId, topic } = liveSource(of);
      const letters = of.incarnation <= live.incarnation;
      targets.push({ db, name, incarnation: of.incarnation, topic, sourceId, live: of === live, letters });
    }
  }
  return targets;
}

/** The stopped partitions of all feeds, for pages and metrics. */
export function stoppedStates(feeds: Feeds): { target: FeedTarget; state: StoppedState }[] {
  return feeds.all().flatMap(({ target, feed }) => feed.stopped().map((state) => ({ target, state })));
}
