/**
 * Router from names to incarnations: (db, name) → the incarnation that lives under that name now.
 *
 * Steps: the list comes from describe({what: "collections"}) and is kept; the follower asks the engine every
 * FOLLOW_MS for new commits and then lists again; a name that is not known is looked for once more before it
 * is called absent; create, drop and clear list again at once.
 *
 * Invariants
 * - One listing runs at a time; whoever asks meanwhile gets the next one, never an older one.
 * - A view is immutable; a request keeps the one it resolved.
 * - Two clients that create the same collection at once get the same one: the catalog decides, the loser
 *   reads.
 * - A name whose incarnation cannot be opened answers that error; the others are served.
 * - Being behind is safe: a name answers its previous incarnation for at most FOLLOW_MS after another node
 *   moved it.
 */
import {
  type NewCollection as Creation,
  createCollection,
  opened,
  sourceFrom,
  type Unreadable,
} from "../common/catalog.ts";
import type { LogSource } from "../common/log/source.ts";
import { VexError, vexErrorFrom } from "../common/process/error.ts";
import { type CollectionView, type QueryCore, readCollections } from "./core.ts";
import { ReplyError } from "./errors.ts";
import type { Visibility } from "./visibility.ts";

/**
 * How often commits are followed: data is fresh through the tail anyway, this bounds names, counts and RAM.
 */
export const FOLLOW_MS = 1_000;
/**
 * An unknown name is looked up again at most this often: a flood of misses must not flood the object store.
 */
export const MISS_MS = 100;
/** Incarnations whose commits are followed at the same time; each costs one or two small reads. */
const FOLLOW_CONCURRENCY = 8;
/** Databases, as a Redis has them by default: SELECT 0 … 15. */
export const DATABASES = 16;
/** Largest dimension of a collection. */
export const DIMENSION_MAX = 65_536;

/** Collections of this surface read their own topic from its end. */
export type NewCollection = Omit<Creation, "from" | "topic">;

/** What an incarnation answers whose name was dropped: it is not there any more, or retired. */
const GONE: ReadonlySet<string> = new Set(["NOT_FOUND", "FENCED"]);

export interface CollectionsOptions {
  core: QueryCore;
  log: LogSource;
  visibility: Visibility;
  clock: () => number;
  /** told about failures of the follower, which goes on */
  onFailure: (error: unknown) => void;
  followMs?: number;
}

export class Collections {
  readonly #options: CollectionsOptions;
  #byName = new Map<string, CollectionView>();
  #unreadable = new Map<string, Unreadable>();
  #creating = new Map<string, Promise<CollectionView>>();
  #listing: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #listedMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #following: Promise<void> | undefined;
  #closed = false;
  #failure: unknown;

  constructor(options: CollectionsOptions) {
    this.#options = options;
  }

  /** True once the catalog has been read; before that every answer would be a guess. */
  get opened(): boolean {
    return this.#listedMs !== Number.NEGATIVE_INFINITY;
  }

  /** When the catalog was last read, in milliseconds of the clock. */
  get listedMs(): number {
    return this.#listedMs;
  }

  /** The failure of the last round of the follower, if it failed. */
  get failure(): unknown {
    return this.#failure;
  }

  async start(): Promise<void> {
    await this.list();
    this.#schedule();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#following;
    await Promise.allSettled([this.#listing, this.#next]);
  }

  /** What is known, without asking. */
  known(db: number, name: string): CollectionView | undefined {
    return this.#byName.get(nameKey(db, name));
  }

  all(db?: number): CollectionView[] {
    return [...this.#byName.values()].filter((view) => db === undefined || view.db === db);
  }

  /**
   * The collection of that name; an unknown name is looked for once more. Throws where it cannot be opened:
   * to its clients that is not the same as being absent.
   */
  find(db: number, name: string): CollectionView | undefined | Promise<CollectionView | undefined> {
    const view = this.known(db, name);
    if (view !== undefined) return view;
    if (this.#options.clock() - this.#listedMs < MISS_MS) return this.#absent(db, name);
    return this.refresh().then(() => this.known(db, name) ?? this.#absent(db, name));
  }

  #absent(db: number, name: string): undefined {
    const unreadable = this.#unreadable.get(nameKey(db, name));
    if (unreadable !== undefined) opened(unreadable);
  }

  /** Follows the catalog and lists again; answers with counts as of now. */
  async refresh(): Promise<void> {
    await this.#options.core.refresh(null);
    await this.list();
  }

  /**
   * Lists again. A listing that already runs may be older than the caller's question, so it gets the next
   * one.
   */
  list(): Promise<void> {
    if (this.#listing === undefined) {
      this.#listing = this.#list().finally(() => {
        this.#listing = undefined;
      });
      return this.#listing;
    }
    this.#next ??= this.#listing
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.list();
      });
    return this.#next;
  }

  /** The collection of that name, made with that shape if there is none. */
  async findOrCreate(wanted: NewCollection): Promise<CollectionView> {
    const view = await this.find(wanted.db, wanted.name);
    if (view !== undefined) return view;
    const key = nameKey(wanted.db, wanted.name);
    let creating = this.#creating.get(key);
    if (creating === undefined) {
      creating = this.create(wanted).finally(() => this.#creating.delete(key));
      this.#creating.set(key, creating);
    }
    return await creating;
  }

  /** Makes a collection; where another node was faster, answers theirs. */
  async create(wanted: NewCollection): Promise<CollectionView> {
    const { core, log, visibility } = this.#options;
    checkDimension(wanted.dim);
    try {
      // What lies in the topic already belongs to an earlier incarnation of that name.
      await createCollection(core, log, { ...wanted, from: { at: "latest" } });
    } catch (error) {
      if (vexErrorFrom(error).code !== "CONFLICT") throw error;
    }
    await this.refresh();
    const view = this.known(wanted.db, wanted.name) ?? this.#absent(wanted.db, wanted.name);
    if (view === undefined) {
      throw new ReplyError("TRYAGAIN", `collection ${wanted.name} was dropped while it was created`);
    }
    await visibility.follow(view.incarnation);
    return view;
  }

  /** Takes the name away; the engine deletes what is behind it later. */
  async drop(view: CollectionView): Promise<void> {
    await this.#options.core.alter({ op: "drop", db: view.db, name: view.name });
    await this.refresh();
  }

  /** Gives the name an empty incarnation. */
  async clear(view: CollectionView): Promise<void> {
    const { core, log, visibility } = this.#options;
    const source = await sourceFrom(log, view.source.topic, { at: "latest" });
    await core.alter({ op: "clear", db: view.db, name: view.name, source });
    await this.refresh();
    const cleared = this.known(view.db, view.name);
    if (cleared !== undefined) await visibility.follow(cleared.incarnation);
  }

  async #list(): Promise<void> {
    const views = await readCollections(this.#options.core);
    const byName = new Map<string, CollectionView>();
    const unreadable = new Map<string, Unreadable>();
    for (const view of views) {
      const key = nameKey(view.db, view.name);
      if ("unreadable" in view) unreadable.set(key, view.unreadable);
      else byName.set(key, view);
    }
    this.#byName = byName;
    this.#unreadable = unreadable;
    this.#listedMs = this.#options.clock();
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#following = this.#follow().finally(() => this.#schedule());
    }, this.#options.followMs ?? FOLLOW_MS);
  }

  /** One round: every incarnation, then catalog and list. What fails is reported; the rest goes on. */
  async #follow(): Promise<void> {
    const failures: unknown[] = [];
    const incarnations = this.all().map((view) => view.incarnation);
    for (let from = 0; from < incarnations.length; from += FOLLOW_CONCURRENCY) {
      const some = incarnations.slice(from, from + FOLLOW_CONCURRENCY);
      const ends = await Promise.allSettled(some.map((incarnation) => this.#followOne(incarnation)));
      for (const end of ends) if (end.status === "rejected") failures.push(end.reason);
    }
    await this.refresh().catch((error: unknown) => failures.push(error));
    for (const { code, message } of this.#unreadable.values()) failures.push(new VexError(code, message));
    this.#failure = failures[0];
    if (failures.length > 0) this.#options.onFailure(failures[0]);
  }

  async #followOne(incarnation: string): Promise<void> {
    const { core, visibility } = this.#options;
    try {
      await visibility.follow(incarnation);
      // Where this node does not read the log (another log's collection, a stop), the snapshot moves alone.
      if (visibility.refusal(incarnation) !== undefined) await core.refresh(incarnation);
    } catch (error) {
      // Dropped between the listing and now: the next listing does not have it any more.
      if (!GONE.has(vexErrorFrom(error).code)) throw error;
    }
  }
}

export function checkDimension(dim: number): void {
  if (dim < 1 || dim > DIMENSION_MAX) {
    throw new ReplyError("ERR", `vector has ${dim} dimensions, a collection has 1 to ${DIMENSION_MAX}`);
  }
}

function nameKey(db: number, name: string): string {
  return `${db}/${name}`;
}
