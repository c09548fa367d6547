/**
 * For unit tests of this folder only: a core, a log and a visibility in memory, small enough to be read. It
 * parses vectors, which the real services never do in JavaScript, so that a wrong span or byte order is seen.
 */

import type { ErrorCode } from "@vexlake/core";
import type { LogSource, ProducedMessage, ProducedOffset } from "../../common/log/source.ts";
import type {
  AlterCommand,
  DescribeRequest,
  GetReply,
  GetRequest,
  QueryCore,
  SearchReply,
  SearchRequest,
  VectorArgument,
} from "../core.ts";
import type { RecallCounts } from "../recall.ts";
import type { Visibility, WriteAck } from "../visibility.ts";

interface StoredRecord {
  vector: number[];
  attrs: string;
  partition: number;
  /** of an earlier source: no patch can build on it */
  earlier?: boolean;
}

interface Stored {
  db: number;
  name: string;
  incarnation: string;
  dim: number;
  metric: string;
  format: string;
  topic: string;
  partitions: number;
  rows: Map<string, StoredRecord>;
}

/** What a check of the first vector of a collection is judged by. */
const NOT_THERE_YET: Stored = {
  db: 0,
  name: "",
  incarnation: "",
  dim: 0,
  metric: "cosine",
  format: "f32",
  topic: "",
  partitions: 0,
  rows: new Map(),
};

/** Counts and times are told apart by their values. */
const COST = {
  segmentsListed: 1,
  segmentsExact: 2,
  segmentsPruned: 3,
  rowsPassed: 14,
  centroids: 4,
  lists: 5,
  memtableRows: 6,
  rowsReranked: 7,
  waves: 8,
  rounds: 9,
  pagesHeld: 10,
  pagesRead: 11,
  requests: 12,
  bytesRead: 13,
};
const STAGES = { feed: 21, filter: 28, lists: 22, codes: 23, rerank: 24, exact: 25, names: 26, total: 27 };

export function failure(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

export class FakeCore implements QueryCore {
  readonly stored = new Map<string, Stored>();
  /** sizes of the batches that search was called with; checks (k = 0) are left out */
  readonly searches: number[] = [];
  readonly checks: number[] = [];
  readonly requests: SearchRequest[] = [];
  /** thrown by the next search */
  failing: Error | undefined;
  /** awaited by every search, so that a test can hold it */
  gate: Promise<void> = Promise.resolve();
  /** Names whose incarnation cannot be opened. */
  readonly damaged = new Set<string>();
  /** what metrics() says of live searches; nothing is compared here */
  recall: RecallCounts = { compared: 0, dropped: 0, failed: 0, sum: 0, bounds: [0.9, 1], byBound: [0, 0] };
  #created = 0;

  /** how often `gate` was come to */
  gated = 0;

  async search(requests: SearchRequest[]): Promise<SearchReply[]> {
    this.gated += 1;
    await this.gate;
    const { failing } = this;
    this.failing = undefined;
    if (failing !== undefined) throw failing;
    const asked = requests.filter((request) => request.k > 0).length;
    if (asked > 0) this.searches.push(asked);
    if (asked < requests.length) this.checks.push(requests.length - asked);
    this.requests.push(...requests);
    return requests.map((request) => this.#search(request));
  }

  #search(request: SearchRequest): SearchReply {
    const stored =
      request.collection === "" && request.k === 0 ? NOT_THERE_YET : this.stored.get(request.collection);
    if (stored === undefined) return failed("NOT_FOUND", `no incarnation ${request.collection}`);
    const query = this.#vector(stored, request.vector);
    if (query === undefined) return failed("NOT_FOUND", "element not found in set");
    if (query.some((value) => !Number.isFinite(value)))
      return failed("INVALID", "vector: value 1 is not finite");
    const hits = [...stored.rows]
      .map(([id, row]) => ({ id, attrs: row.attrs, distance: cosine(query, row.vector) }))
      .filter(({ distance }) => request.scoreMin === undefined || 1 - distance / 2 >= request.scoreMin)
      .sort((a, b) => a.distance - b.distance || (a.id < b.id ? -1 : 1))
      .slice(0, request.k);
    return {
      ...packed(hits.map((hit) => hit.id)),
      distances: Float64Array.from(hits, (hit) => hit.distance),
      scores: Float64Array.from(hits, (hit) => 1 - hit.distance / 2),
      version: 1n,
      rowsScanned: stored.rows.size,
      cost: { ...COST, rowsScanned: stored.rows.size },
      ...(request.explain === true ? { stages: STAGES } : {}),
      ...(request.withAttrs ? attrsOf(hits.map((hit) => hit.attrs)) : {}),
    };
  }

  #vector(stored: Stored, input: VectorArgument): number[] | undefined {
    switch (input.kind) {
      case "f32":
        return floats(input.bytes);
      case "text":
        return JSON.parse(Buffer.from(input.bytes).toString());
      case "values":
        return numbers(input.frame, input.spans);
      case "element":
        return stored.rows.get(Buffer.from(input.id).toString())?.vector;
    }
  }

  async get(request: GetRequest): Promise<GetReply> {
    const rows = this.stored.get(request.incarnation)?.rows;
    const found = request.ids.map((id) => rows?.get(Buffer.from(id).toString()));
    const texts = found.map((row) => {
      if (row === undefined || request.want === "exists") return Buffer.alloc(0);
      if (request.want === "text")
        return Buffer.from(`[${row.vector.map((value) => value.toFixed(6)).join(", ")}]`);
      if (request.want === "values") return Buffer.from(`[${row.vector.join(", ")}]`);
      if (request.want === "raw") return Buffer.from(Float32Array.from(row.vector).buffer);
      return Buffer.from(row.attrs);
    });
    let end = 0;
    return {
      bytes: Buffer.concat(texts),
      ends: Uint32Array.from(texts, (text) => (end += text.length)),
      present: Uint8Array.from(found, (row) => (row === undefined ? 0 : 1)),
      placed: Uint8Array.from(found, (record) => (record === undefined ? 0 : 1)),
      partitions: Uint32Array.from(found, (record) => record?.partition ?? 0),
      offsets: found.map(() => 0n),
    };
  }

  metrics(): string {
    return JSON.stringify({ recall: this.recall });
  }

  async describe(request: DescribeRequest): Promise<string> {
    // A commit a second since 1970.
    if (request.what === "version-at") return JSON.stringify({ version: Math.floor(request.ms / 1_000) });
    if (request.what === "incarnation") {
      const stored = this.stored.get(request.incarnation);
      if (stored === undefined) throw failure("NOT_FOUND", `no incarnation ${request.incarnation}`);
      return JSON.stringify(describeOne(stored).live);
    }
    if (request.what !== "collections") throw failure("INTERNAL", `describe ${request.what} is not faked`);
    const listing = (stored: Stored): object => {
      const { db, name, incarnation } = stored;
      const live = { incarnation, code: "CORRUPT", message: "segment gone" };
      return this.damaged.has(name) ? { db, name, live, fed: [] } : describeOne(stored);
    };
    return JSON.stringify([...this.stored.values()].map(listing));
  }

  async alter(command: AlterCommand): Promise<string> {
    if (command.op !== "create" && command.op !== "drop" && command.op !== "clear") {
      throw failure("INTERNAL", `${command.op} is not faked`);
    }
    const held = [...this.stored.values()].find(
      (view) => view.db === command.db && view.name === command.name,
    );
    if (command.op === "create") {
      if (held !== undefined) throw failure("CONFLICT", `collection ${command.name} exists`);
      const { source, ...shape } = command;
      this.#add({ ...shape, topic: source.topic, partitions: Object.keys(source.starts).length });
    } else {
      if (held === undefined) throw failure("NOT_FOUND", `no collection ${command.name}`);
      this.stored.delete(held.incarnation);
      if (command.op === "clear") this.#add(held);
    }
    return "{}";
  }

  #add(shape: Omit<Stored, "incarnation" | "rows">): void {
    this.#created += 1;
    const incarnation = `01JCFAKE${String(this.#created).padStart(3, "0")}000000000000000`;
    const { db, name, dim, metric, partitions, format, topic } = shape;
    const rows = new Map<string, StoredRecord>();
    this.stored.set(incarnation, { db, name, incarnation, dim, metric, partitions, format, topic, rows });
  }

  async refresh(_incarnation: string | null): Promise<string> {
    return "{}";
  }
}

/** As the core describes a collection. */
function describeOne({ db, name, incarnation, dim, metric, format, topic, partitions, rows }: Stored): {
  db: number;
  name: string;
  live: object;
  fed: object[];
} {
  const source = { rank: 100, epoch: 0, kind: "local", cluster: "test", topic, starts: {} };
  const ledger = { kept: "0", superseded: "0", dead_lettered: "0", not_records: "0", lost: "0" };
  const checkpoint = { start: "0", next: "0", log_time: 0, last: null, ledger };
  const numbers = {
    records: rows.size,
    committedRecords: 0,
    segments: 1,
    entries: 0,
    bytes: 100,
    feedBytes: 0,
  };
  return {
    db,
    name,
    live: {
      incarnation,
      schema: { dim, metric, format },
      sources: { 0: source },
      version: 7,
      versionWhenMs: 0,
      ...numbers,
      ledger,
      dropped: 0,
      pins: { tagged: 5 },
      retainFrom: 0,
      retired: false,
      partitions: Array.from({ length: partitions }, (_, partition) => ({
        source: 0,
        partition,
        applied: "0",
        checkpoint,
      })),
    },
    fed: [],
  };
}

/** A log whose records are applied at once, unless `holding`: then by `release`. */
export class FakeLog implements Visibility, LogSource {
  readonly kind = "local";
  readonly core: FakeCore;
  readonly topics = new Map<string, ProducedMessage[][]>();
  readonly batches: number[] = [];
  holding = false;
  compacted = false;
  refusing: string | undefined;
  failing: Error | undefined;
  readonly followed: string[] = [];
  #held: { topic: string; partition: number; message: ProducedMessage }[] = [];
  readonly #acks = new Map<string, { promise: Promise<WriteAck>; resolve: (ack: WriteAck) => void }>();

  constructor(core: FakeCore) {
    this.core = core;
  }

  async cluster(): Promise<string> {
    return "test";
  }

  async ensureTopic(topic: string, partitions: number): Promise<void> {
    if (!this.topics.has(topic))
      this.topics.set(
        topic,
        Array.from({ length: partitions }, () => []),
      );
  }

  async isCompacted(): Promise<boolean> {
    return this.compacted;
  }

  async ranges(topic: string): Promise<{ partition: number; low: bigint; high: bigint }[] | null> {
    const partitions = this.topics.get(topic);
    return (
      partitions?.map((records, partition) => ({ partition, low: 0n, high: BigInt(records.length) })) ?? null
    );
  }

  partitionFor(key: Buffer, partitions: number): number {
    return key.length % partitions;
  }

  async produce(topic: string, messages: ProducedMessage[]): Promise<ProducedOffset[]> {
    // A turn of the loop, as a real log takes: calls that came meanwhile must share the next batch.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.failing !== undefined) throw this.failing;
    this.batches.push(messages.length);
    return messages.map((message) => {
      const partition = message.partition ?? 0;
      const records = this.topics.get(topic)?.[partition] as ProducedMessage[];
      records.push(message);
      if (this.holding) this.#held.push({ topic, partition, message });
      else this.#apply(topic, partition, message);
      return { partition, offset: BigInt(records.length - 1) };
    });
  }

  /** Applies what was held, in the order of the log. */
  release(): void {
    this.holding = false;
    for (const { topic, partition, message } of this.#held.splice(0)) this.#apply(topic, partition, message);
  }

  /** The words of vexlake-op of a topic's records, in order. */
  operations(topic: string): string[] {
    const records = this.topics.get(topic)?.flat() ?? [];
    return records.map(({ headers }) => String(headers?.["vexlake-op"]));
  }

  #apply(topic: string, partition: number, { key, value, headers }: ProducedMessage): void {
    const stored = [...this.core.stored.values()].find((view) => view.topic === topic) as Stored;
    const id = String(key);
    const held = stored.rows.get(id);
    const existed = held !== undefined;
    const attrs = String(headers?.["vexlake-attrs"] ?? "");
    const op = String(headers?.["vexlake-op"]);
    let reason = op.startsWith("set-") ? this.#refusalOfPatch(held, partition) : undefined;
    if (op === "delete") stored.rows.delete(id);
    else if (op === "set-attrs") {
      if (held !== undefined && reason === undefined) held.attrs = attrs;
    } else if (reason === undefined) {
      const json = String(headers?.["vexlake-format"]) === "json";
      const vector = json ? JSON.parse(String(value)).vector : floats(value as Buffer);
      if (vector.length !== stored.dim) reason = "bad-dimension";
      const kept = op === "set-vector" ? (held?.attrs ?? "") : attrs;
      if (reason === undefined) stored.rows.set(id, { vector, attrs: kept, partition });
    }
    const write = String(headers?.["vexlake-write"]);
    const verdict = reason === undefined ? {} : { reason, message: "refused by the engine" };
    this.#acks.get(write)?.resolve({ existed, accepted: reason === undefined, ...verdict });
  }

  #refusalOfPatch(held: StoredRecord | undefined, partition: number): string | undefined {
    if (this.compacted) return "patch-on-compacted-topic";
    if (held === undefined) return "patch-without-record";
    return held.earlier === true || held.partition !== partition ? "patch-crosses-partitions" : undefined;
  }

  acknowledged(_incarnation: string, write: string): Promise<WriteAck> {
    const { promise, resolve } = Promise.withResolvers<WriteAck>();
    this.#acks.set(write, { promise, resolve });
    return promise;
  }

  forget(_incarnation: string, write: string): void {
    this.#acks.delete(write);
  }

  /** Writes that are waited for; none may be left behind. */
  get waiting(): number {
    return this.#acks.size;
  }

  async follow(incarnation: string): Promise<void> {
    this.followed.push(incarnation);
  }

  async hold<T>(_incarnation: string, work: () => Promise<T>): Promise<T> {
    return await work();
  }

  async offsetsAt(): Promise<never[]> {
    return [];
  }

  async consume(): Promise<never> {
    throw failure("INTERNAL", "consume is not faked");
  }

  async read(): Promise<void> {}

  async start(): Promise<void> {}

  async close(): Promise<void> {}

  refusal(): string | undefined {
    return this.refusing;
  }

  applied(incarnation: string): Map<number, bigint> {
    const ends = this.ends(incarnation);
    for (const { topic, partition } of this.#held) {
      if (topic === this.core.stored.get(incarnation)?.topic)
        ends.set(partition, (ends.get(partition) ?? 0n) - 1n);
    }
    return ends;
  }

  ends(incarnation: string): Map<number, bigint> {
    const records = this.topics.get(this.core.stored.get(incarnation)?.topic ?? "") ?? [];
    return new Map(records.map((partition, i) => [i, BigInt(partition.length)]));
  }

  async reached(incarnation: string, offsets: Map<number, bigint>): Promise<boolean> {
    const applied = this.applied(incarnation);
    return [...offsets].every(([partition, next]) => (applied.get(partition) ?? 0n) >= next);
  }
}

function floats(bytes: Uint8Array): number[] {
  const buffer = Buffer.from(bytes);
  return Array.from({ length: buffer.length / 4 }, (_, i) => buffer.readFloatLE(4 * i));
}

function numbers(frame: Uint8Array, spans: Uint32Array): number[] {
  const values: number[] = [];
  for (let i = 0; i < spans.length; i += 2) {
    const start = spans[i] as number;
    values.push(Number(Buffer.from(frame).toString("latin1", start, start + (spans[i + 1] as number))));
  }
  return values;
}

function cosine(a: number[], b: number[]): number {
  const dot = (x: number[], y: number[]): number =>
    x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

function packed(ids: string[]): { ids: Uint8Array; idEnds: Uint32Array } {
  let end = 0;
  const parts = ids.map((id) => Buffer.from(id));
  return { ids: Buffer.concat(parts), idEnds: Uint32Array.from(parts, (part) => (end += part.length)) };
}

function attrsOf(texts: string[]): { attrs: Uint8Array; attrEnds: Uint32Array } {
  const { ids, idEnds } = packed(texts);
  return { attrs: ids, attrEnds: idEnds };
}

function failed(code: ErrorCode, message: string): SearchReply {
  return {
    ids: new Uint8Array(0),
    idEnds: new Uint32Array(0),
    scores: new Float64Array(0),
    distances: new Float64Array(0),
    version: 0n,
    rowsScanned: 0,
    error: { code, message },
  };
}
