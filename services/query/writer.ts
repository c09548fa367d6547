/**
 * Writes from RESP and HTTP: records put into the collection's log, answered when this node shows them.
 *
 * Steps of one write: it gets an acknowledgement id (header vexlake-write) → joins the queue of its
 * incarnation → the queue sends everything that has gathered as one batch while no other batch of it is on
 * the way → the log says where the record lies → the node that reads the log here says that it is visible,
 * and whether its key existed.
 *
 * Invariants
 * - Records of one incarnation enter the log in the order of the calls: one batch is on the way at a time.
 * - A write in doubt (the log's answer was lost) is answered as such and never sent again by us.
 * - Nothing is put into a log that this node may not write (named state of the tail): refused before
 *   producing.
 * - Past the deadline the answer is "written at partition:offset, not yet visible", never a plain success.
 * - Visible means to whoever reads next: where the name has moved to another incarnation meanwhile, there too.
 * - The vector is bytes from start to end.
 *
 * A key goes to the partition of its newest record, live or deleted, because order is only kept inside a
 * partition; any other key goes where the partitioner says.
 *
 * `put-vector` keeps the attributes that the key has, and makes the record where there is none. The log has no
 * such word, so each is decided when its batch is: `set-vector` where there is a record, by the engine's view and
 * by what this node has in flight (in-flight.ts), else `upsert`. The engine judges a set-vector where it lies in
 * the log, so no attributes are lost to whoever writes at the same time. One that it refuses changed nothing (it
 * is a dead letter) and is decided again:
 * - the record went away in between: now there is none, so an upsert.
 * - the newest record lies in another partition or source, where no patch can build on it: an upsert that
 *   carries the attributes along.
 * - the topic is compacted and takes no patches: the same. There every put-vector begins so, but for one whose key
 *   is in flight, as its attributes are not known before that is shown.
 * What is left: two nodes, or a foreign producer, that make the same new key at the same moment. The later
 * record wins as a whole, as it does between any two producers.
 */
import { randomBytes } from "node:crypto";
import type { LogSource, ProducedMessage, ProducedOffset } from "../common/log/source.ts";
import { vexErrorFrom } from "../common/process/error.ts";
import { ATTRIBUTES_BYTES_MAX } from "./attributes.ts";
import { type CollectionView, type QueryCore, slice } from "./core.ts";
import { asReplyError, ReplyError } from "./errors.ts";
import { type Flight, InFlight } from "./in-flight.ts";
import type { Visibility, WriteAck } from "./visibility.ts";

export type { WriteAck } from "./visibility.ts";

/**
 * How long a write may take to become visible once the log has it: 50 polls of a consumer that waits 100 ms.
 */
export const VISIBLE_MS_MAX = 5_000;
/**
 * Most records of one batch: bounds the look-up of partitions; at 1.5 KiB each BATCH_BYTES_MAX comes first.
 */
const BATCH_RECORDS_MAX = 512;
/**
 * Most bytes of one batch; brokers refuse more than 1 MiB (message.max.bytes) in one record batch by default.
 */
const BATCH_BYTES_MAX = 768 * 1024;
/**
 * Most bytes that wait for their batch, over all collections: 64 batches and more. Beyond it clients are
 * told.
 */
export const QUEUE_BYTES_MAX = 64 * 1024 * 1024;
/** Headers and framing of one record, for the two sums above. */
const RECORD_OVERHEAD_BYTES = 256;
/** Each further attempt has seen another writer change the key in between; five in a row are a fight. */
const ATTEMPTS_MAX = 5;
/** What a refused set-vector is decided again for (schemas/records.md). */
const WITHOUT_RECORD = "patch-without-record";
const REFUSED_PATCHES: ReadonlySet<string | undefined> = new Set([
  WITHOUT_RECORD,
  "patch-crosses-partitions",
  "patch-on-compacted-topic",
]);

/** One change of one record, in the words of the record format. */
export interface Change {
  id: Uint8Array;
  op: "upsert" | "put-vector" | "set-attrs" | "delete";
  /** f32: the vector's bytes; json: an object with the vector; none for set-attrs and delete */
  format?: "f32" | "json";
  value?: Uint8Array;
  /** JSON object as text; empty: no attributes; none for put-vector */
  attrs?: Uint8Array;
}

/** The part of a log that writes need. */
export type RecordLog = Pick<LogSource, "produce" | "partitionFor">;

export interface WriterOptions {
  core: QueryCore;
  log: RecordLog;
  visibility: Visibility;
  /** What answers under a name now. */
  collections: { known(db: number, name: string): CollectionView | undefined };
  visibleMsMax?: number;
}

interface Pending {
  write: string;
  key: Buffer;
  op: Change["op"];
  /** of put-vector: no patch can build on the record */
  carries: boolean;
  message: ProducedMessage;
  bytes: number;
  /** from the moment the record has its place */
  flight?: Flight;
  written(position: ProducedOffset): void;
  failed(error: unknown): void;
}

interface Queue {
  collection: CollectionView;
  waiting: Pending[];
  sending: boolean;
}

export class Writer {
  readonly #options: WriterOptions;
  readonly #queues = new Map<string, Queue>();
  /** by incarnation */
  readonly #flying = new Map<string, InFlight>();
  /** Ids are unique over processes: 8 random bytes, then a counter. */
  readonly #prefix = randomBytes(8).toString("hex");
  #counter = 0;
  #queuedBytes = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /** Bytes of records that have not reached the log yet. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /**
   * Puts one change into the log; resolves when this node shows it. The order of calls is the order in the
   * log; a put-vector that is decided again takes its place then.
   */
  async write(collection: CollectionView, change: Change): Promise<WriteAck> {
    let carries = collection.source.compacted;
    for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
      const ack = await this.#write(collection, change, carries);
      if (change.op !== "put-vector" || !REFUSED_PATCHES.has(ack.reason)) return ack;
      carries = ack.reason !== WITHOUT_RECORD;
    }
    throw new ReplyError("TRYAGAIN", `others change this key of ${collection.name} all the time`);
  }

  async #write(collection: CollectionView, change: Change, carries: boolean): Promise<WriteAck> {
    const { visibility } = this.#options;
    const { incarnation } = collection;
    const refusal = visibility.refusal(incarnation);
    if (refusal !== undefined) {
      throw new ReplyError("TRYAGAIN", `collection ${collection.name} takes no writes now: ${refusal}`);
    }
    if (change.op === "set-attrs" && collection.source.compacted) {
      // The engine would refuse it as well, after it has been written.
      throw new ReplyError(
        "ERR",
        `attributes cannot be set alone: ${collection.source.topic} is a compacted topic, which takes no patches`,
      );
    }
    const message = toMessage(change);
    const attributes = carries ? ATTRIBUTES_BYTES_MAX : (change.attrs?.length ?? 0);
    const bytes = (message.value?.length ?? 0) + change.id.length + attributes + RECORD_OVERHEAD_BYTES;
    if (this.#queuedBytes + bytes > QUEUE_BYTES_MAX) {
      throw new ReplyError("TRYAGAIN", `${this.#queuedBytes} bytes of writes wait for the log already`);
    }
    const write = this.#nextId();
    headersOf(message)["vexlake-write"] = write;
    const visible = visibility.acknowledged(incarnation, write);
    // It may be refused before the log has answered; the race below tells the client.
    visible.catch(() => undefined);
    const { promise: placed, resolve: written, reject: failed } = Promise.withResolvers<ProducedOffset>();
    const key = message.key as Buffer;
    const pending: Pending = { write, key, op: change.op, carries, message, bytes, written, failed };
    try {
      this.#enqueue(collection, pending);
      const position = await placed;
      const shown = visible.then((ack) => this.#shown(collection, position, ack));
      return await this.#until(shown, position, (at) => this.#drift(incarnation, pending, at));
    } finally {
      visibility.forget(incarnation, write);
      this.#land(incarnation, pending);
    }
  }

  /** The name may have flipped to an incarnation that has not consumed the record yet. */
  async #shown(
    { db, name, incarnation }: CollectionView,
    { partition, offset }: ProducedOffset,
    ack: WriteAck,
  ): Promise<WriteAck> {
    const { collections, visibility, visibleMsMax = VISIBLE_MS_MAX } = this.#options;
    const answering = collections.known(db, name)?.incarnation ?? incarnation;
    if (answering === incarnation) return ack;
    const next = new Map([[partition, BigInt(offset) + 1n]]);
    if (await visibility.reached(answering, next, visibleMsMax)) return ack;
    // Not consumed here: the deadline in `#until` answers.
    return await new Promise<never>(() => undefined);
  }

  async #until(
    visible: Promise<WriteAck>,
    { partition, offset }: ProducedOffset,
    onLate: (at: ProducedOffset) => void,
  ): Promise<WriteAck> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        onLate({ partition, offset });
        reject(new ReplyError("ERR", `written at ${partition}:${offset}, not yet visible`, 202));
      }, this.#options.visibleMsMax ?? VISIBLE_MS_MAX);
    });
    try {
      return await Promise.race([visible, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #enqueue(collection: CollectionView, pending: Pending): void {
    let queue = this.#queues.get(collection.incarnation);
    if (queue === undefined) {
      queue = { collection, waiting: [], sending: false };
      this.#queues.set(collection.incarnation, queue);
    }
    queue.waiting.push(pending);
    this.#queuedBytes += pending.bytes;
    if (queue.sending) return;
    queue.sending = true;
    const started = queue;
    // A microtask later, so that the writes of one pipeline share a batch.
    queueMicrotask(() => void this.#send(started));
  }

  /** Sends batch after batch until nothing waits. */
  async #send(queue: Queue): Promise<void> {
    while (queue.waiting.length > 0) {
      const batch = takeBatch(queue.waiting);
      try {
        await this.#place(queue.collection, batch);
        const messages = batch.map((pending) => pending.message);
        const positions = await this.#produce(queue.collection, messages);
        for (const [i, pending] of batch.entries()) pending.written(positions[i] as ProducedOffset);
      } catch (error) {
        for (const pending of batch) pending.failed(error);
      }
      for (const pending of batch) this.#queuedBytes -= pending.bytes;
    }
    queue.sending = false;
    this.#queues.delete(queue.collection.incarnation);
  }

  async #produce(collection: CollectionView, messages: ProducedMessage[]): Promise<ProducedOffset[]> {
    try {
      return await this.#options.log.produce(collection.source.topic, messages);
    } catch (thrown) {
      const error = vexErrorFrom(thrown);
      if (!error.doubt) throw asReplyError(error);
      const message = `write in doubt, not sent again: the log of ${collection.name} did not confirm it`;
      throw new ReplyError("TRYAGAIN", `${message}: ${error.message}`);
    }
  }

  /** Chooses the partition of each record of a batch, and what a put-vector is. */
  async #place(collection: CollectionView, batch: Pending[]): Promise<void> {
    const { core, log, visibility } = this.#options;
    const { incarnation, partitions } = collection;
    const flying = this.#flyingOf(incarnation);
    flying.sweep(visibility.applied(incarnation));
    const ids = batch.map((pending) => pending.key);
    const asked = { incarnation, ids, scope: "fresh" } as const;
    const blind = partitions === 1 && batch.every(({ op }) => op !== "put-vector");
    const known = blind ? undefined : await core.get({ ...asked, want: "exists" });
    const held = batch.some(({ carries }) => carries)
      ? await core.get({ ...asked, want: "attrs" })
      : undefined;
    for (const [i, pending] of batch.entries()) {
      const { key, message, op, carries } = pending;
      const before = flying.find(key);
      message.partition = before?.partition ?? 0;
      if (before === undefined && partitions > 1) {
        message.partition = known?.placed[i] ? known.partitions[i] : log.partitionFor(key, partitions);
      }
      if (op === "put-vector") {
        const present = before?.present ?? known?.present[i] !== 0;
        const patches = present && (!carries || before !== undefined);
        headersOf(message)["vexlake-op"] = patches ? "set-vector" : "upsert";
        const attrs = patches || !present || held === undefined ? undefined : slice(held.bytes, held.ends, i);
        if (attrs !== undefined && attrs.length > 0) headersOf(message)["vexlake-attrs"] = asBuffer(attrs);
      }
      const present = op === "set-attrs" ? undefined : op !== "delete";
      pending.flight = flying.start(key, message.partition as number, present);
    }
  }

  #flyingOf(incarnation: string): InFlight {
    const flying = this.#flying.get(incarnation) ?? new InFlight();
    this.#flying.set(incarnation, flying);
    return flying;
  }

  /** The client is told, the record is on its way all the same. */
  #drift(incarnation: string, pending: Pending, { partition, offset }: ProducedOffset): void {
    const { flight } = pending;
    if (flight === undefined) return;
    this.#flyingOf(incarnation).drift(flight, partition, offset);
    delete pending.flight;
  }

  /** This node has applied the write, or it never comes. */
  #land(incarnation: string, { flight }: Pending): void {
    const flying = this.#flying.get(incarnation);
    if (flying === undefined) return;
    if (flight !== undefined) flying.land(flight);
    if (flying.size === 0) this.#flying.delete(incarnation);
  }

  #nextId(): string {
    this.#counter += 1;
    return `${this.#prefix}-${this.#counter.toString(36)}`;
  }
}

function takeBatch(waiting: Pending[]): Pending[] {
  let count = 0;
  let bytes = 0;
  while (count < waiting.length && count < BATCH_RECORDS_MAX) {
    bytes += (waiting[count] as Pending).bytes;
    if (count > 0 && bytes > BATCH_BYTES_MAX) break;
    count += 1;
  }
  return waiting.splice(0, count);
}

function headersOf(message: ProducedMessage): Record<string, string | Buffer> {
  return message.headers as Record<string, string | Buffer>;
}

function toMessage(change: Change): ProducedMessage {
  const headers: Record<string, string | Buffer> = { "vexlake-op": change.op };
  if (change.format !== undefined) headers["vexlake-format"] = change.format;
  if (change.attrs !== undefined) headers["vexlake-attrs"] = asBuffer(change.attrs);
  const empty = change.op === "delete" ? null : Buffer.alloc(0);
  const value = change.value === undefined ? empty : asBuffer(change.value);
  return { key: asBuffer(change.id), value, headers };
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
