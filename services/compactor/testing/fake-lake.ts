/**
 * A core for the compactor's tests: collections, plans as a test sets them, and runs that a test ends.
 *
 * It keeps the one rule that matters here: a merge whose inputs are no longer live ends as
 * superseded. Everything else (bytes, commits) is the real core's and tested there.
 */
import type { AlterCommand, DescribeRequest } from "@vexlake/core";
import type { CompactionSpec } from "../../../schemas/jobs.ts";
import type { CoreLake, PlanOptions } from "../core.ts";

export interface FakeRun {
  job: string;
  spec: CompactionSpec;
  options: { memoryBytesMax: number; bytesPerSecondMax: number };
  onProgress(text: string): void;
  /** Ends the run: done where the inputs are live, else superseded. */
  finish(): void;
  fail(code: string, message: string): void;
}

interface Collection {
  db: number;
  name: string;
  incarnation: string;
  live: Set<string>;
  specs: CompactionSpec[];
}

export class FakeLake implements CoreLake {
  readonly collections: Collection[] = [];
  readonly runs: FakeRun[] = [];
  readonly cancelled: string[] = [];
  readonly sweeps: {
    incarnation: string | null;
    options: { graceMs: number; dryRun: boolean; orphans?: boolean };
  }[] = [];
  readonly refreshed: (string | null)[] = [];
  readonly #settle = new Map<string, (outcome: object) => void>();
  /** Incarnation or operation → the error that its next calls meet. */
  readonly errors = new Map<string, { code: string; message: string }>();
  /** Cancels that the core does not know yet: the first so many are refused. */
  cancelsRefused = 0;
  /** Options of the last plan. */
  planned: Partial<PlanOptions> = {};
  version = 0;

  add(name: string, incarnation: string, specs: CompactionSpec[]): Collection {
    const live = new Set(specs.flatMap((spec) => spec.inputs));
    const collection = { db: 0, name, incarnation, live, specs };
    this.collections.push(collection);
    return collection;
  }

  async refresh(incarnation: string | null): Promise<string> {
    this.refreshed.push(incarnation);
    this.#raise(incarnation ?? "catalog");
    return "{}";
  }

  async describe(_what: DescribeRequest): Promise<string> {
    this.#raise("describe");
    return JSON.stringify(
      this.collections.map(({ db, name, incarnation }) => ({ db, name, live: infoOf(incarnation), fed: [] })),
    );
  }

  async plan(incarnation: string, optionsText = "{}"): Promise<string> {
    this.planned = JSON.parse(optionsText);
    const collection = this.#collection(incarnation);
    const mergeable = collection.specs.filter((spec) =>
      spec.inputs.every((input) => collection.live.has(input)),
    );
    return JSON.stringify(mergeable);
  }

  run(
    specText: string,
    onProgress: ((progress: string) => void) | undefined,
    job: string,
    optionsText = "{}",
  ): Promise<string> {
    const spec = JSON.parse(specText) as FakeRun["spec"];
    const options = JSON.parse(optionsText) as FakeRun["options"];
    return new Promise((resolve, reject) => {
      const end = (outcome: object): void => {
        this.#settle.delete(job);
        resolve(JSON.stringify(outcome));
      };
      this.#settle.set(job, end);
      const finish = (): void => end(this.#merge(spec));
      const fail = (code: string, message: string): void =>
        reject(Object.assign(new Error(message), { code }));
      this.runs.push({ job, spec, options, onProgress: onProgress ?? (() => undefined), finish, fail });
    });
  }

  async alter(command: AlterCommand): Promise<string> {
    if (command.op !== "cancel") throw new Error(`the fake core has no ${command.op}`);
    if (this.cancelsRefused > 0) {
      this.cancelsRefused -= 1;
      return '{"found":false}';
    }
    this.cancelled.push(command.job);
    this.#settle.get(command.job)?.({ status: "cancelled" });
    return '{"found":true}';
  }

  async gc(incarnation: string | null, options = "{}"): Promise<string> {
    this.#raise(`gc ${incarnation ?? "leaving"}`);
    const asked = JSON.parse(options) as FakeLake["sweeps"][number]["options"];
    this.sweeps.push({ incarnation, options: asked });
    if (incarnation === null) {
      const left = asked.dryRun ? [] : ["gone"];
      const orphans = asked.orphans ? [{ incarnation: "nameless", objects: 1, bytes: 10 }] : [];
      return JSON.stringify({ left, orphans });
    }
    return JSON.stringify({ retainFrom: 1, objects: ["a", "b"], bytes: 100, slots: 1 });
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
    const bytes = { bytesIn: spec.bytesIn, bytesOut: 1_500 };
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

/** An incarnation as the core describes it; the compactor reads only its id. */
function infoOf(incarnation: string): object {
  const ledger = { kept: "0", superseded: "0", dead_lettered: "0", not_records: "0", lost: "0" };
  const counts = {
    records: 0,
    committedRecords: 0,
    segments: 0,
    entries: 0,
    bytes: 0,
    feedBytes: 0,
    dropped: 0,
  };
  const schema = { dim: 4, metric: "cosine", format: "f32" };
  const version = { version: 1, versionWhenMs: 1, retainFrom: 0, retired: false };
  return { incarnation, schema, sources: {}, ...version, ...counts, ledger, pins: {}, partitions: [] };
}
