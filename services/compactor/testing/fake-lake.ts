/**
 * A core for the compactor's tests: collections, plans as a test sets them, and runs that a test ends.
 *
 * It keeps the one rule that matters here: a merge whose inputs are no longer live ends as
 * superseded. Everything else (bytes, commits) is the real core's and tested there.
 */
import type { CompactionSpec } from "../../../schemas/jobs.ts";
import type { CoreLake } from "../core.ts";

export interface FakeRun {
  job: string;
  spec: CompactionSpec & { memoryBytesMax: number; bytesPerSecondMax: number };
  onProgress(text: string): void;
  /** Ends the run: done where the inputs are live, else superseded. */
  finish(): void;
  fail(code: string, message: string): void;
}

interface Collection {
  db: string;
  name: string;
  incarnation: string;
  live: Set<string>;
  specs: CompactionSpec[];
}

export class FakeLake implements CoreLake {
  readonly collections: Collection[] = [];
  readonly runs: FakeRun[] = [];
  readonly cancelled: string[] = [];
  readonly sweeps: { incarnation: string | null; options: { graceMs: number; dryRun: boolean } }[] = [];
  readonly refreshed: (string | null)[] = [];
  readonly #settle = new Map<string, (outcome: object) => void>();
  /** Incarnation or operation → the error that its next calls meet. */
  readonly errors = new Map<string, { code: string; message: string }>();
  /** Cancels that the core does not know yet: the first so many are refused. */
  cancelsRefused = 0;
  version = 0;

  add(name: string, incarnation: string, specs: CompactionSpec[]): Collection {
    const live = new Set(specs.flatMap((spec) => spec.inputs));
    const collection = { db: "0", name, incarnation, live, specs };
    this.collections.push(collection);
    return collection;
  }

  async refresh(incarnation: string | null): Promise<string> {
    this.refreshed.push(incarnation);
    this.#raise(incarnation ?? "catalog");
    return "{}";
  }

  async describe(): Promise<string> {
    this.#raise("describe");
    return JSON.stringify(this.collections.map(({ db, name, incarnation }) => ({ db, name, incarnation })));
  }

  async plan(incarnation: string): Promise<string> {
    const collection = this.#collection(incarnation);
    const mergeable = collection.specs.filter((spec) =>
      spec.inputs.every((input) => collection.live.has(input)),
    );
    return JSON.stringify(mergeable);
  }

  run(specText: string, onProgress: (progress: string) => void, job: string): Promise<string> {
    const spec = JSON.parse(specText) as FakeRun["spec"];
    return new Promise((resolve, reject) => {
      const end = (outcome: object): void => {
        this.#settle.delete(job);
        resolve(JSON.stringify(outcome));
      };
      this.#settle.set(job, end);
      const finish = (): void => end(this.#merge(spec));
      const fail = (code: string, message: string): void =>
        reject(Object.assign(new Error(message), { code }));
      this.runs.push({ job, spec, onProgress, finish, fail });
    });
  }

  async alter(command: { op: "cancel"; job: string }): Promise<string> {
    if (this.cancelsRefused > 0) {
      this.cancelsRefused -= 1;
      throw Object.assign(new Error(`no job ${command.job}`), { code: "NOT_FOUND" });
    }
    this.cancelled.push(command.job);
    this.#settle.get(command.job)?.({ status: "cancelled" });
    return "{}";
  }

  async gc(incarnation: string | null, options: string): Promise<string> {
    this.#raise(`gc ${incarnation ?? "catalog"}`);
    this.sweeps.push({ incarnation, options: JSON.parse(options) as { graceMs: number; dryRun: boolean } });
    return JSON.stringify({ deletedObjects: 2, bytes: "100", versions: 1 });
  }

  /** As if another process had merged them. */
  remove(incarnation: string, inputs: string[]): void {
    for (const input of inputs) this.#collection(incarnation).live.delete(input);
  }

  #merge(spec: FakeRun["spec"]): object {
    const { live } = this.#collection(spec.incarnation);
    if (!spec.inputs.every((input) => live.has(input))) return { status: "superseded" };
    for (const input of spec.inputs) live.delete(input);
    this.version += 1;
    const bytes = { bytesIn: spec.bytesIn, bytesOut: "1500" };
    return {
      status: "done",
      version: String(this.version),
      added: ["x"],
      rows: 18,
      dropped: 2,
      ms: 5,
      ...bytes,
    };
  }

  #collection(incarnation: string): Collection {
    const found = this.collections.find((collection) => collection.incarnation === incarnation);
    if (found === undefined) throw Object.assign(new Error(`no ${incarnation}`), { code: "NOT_FOUND" });
    return found;
  }

  #raise(key: string): void {
    const error = this.errors.get(key);
    if (error !== undefined) throw Object.assign(new Error(error.message), { code: error.code });
  }
}
