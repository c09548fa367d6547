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
 * - The vector is bytes from start to end.
 *
 * A key goes to the partition of its live record, because order is only kept inside a partition; any other
 * key goes where the partitioner says. (The core does not tell where a deleted key's newest position lies.)
 */
import { randomBytes } from "node:crypto";
import type { LogSource, ProducedMessage, ProducedOffset } from "../common/log/source.ts";
import { vexErrorFrom } from "../common/process/error.ts";
import type { CollectionView, QueryCore } from "./core.ts";
import { asReplyError, ReplyError } from "./errors.ts";
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

/** One change of one record, in the words of the record format. */
export interface Change {
  id: Uint8Array;
  op: "upsert" | "set-attrs" | "delete";
  /** f32: the vector's bytes; json: an object with the vector; none for set-attrs and delete */
  format?: "f32" | "json";
  value?: Uint8Array;
  /** JSON object as text; empty: no attributes */
  attrs?: Uint8Array;
}

/** The part of a log that writes need. */
export type RecordLog = Pick<LogSource, "produce" | "partitionFor">;

export interface WriterOptions {
  core: QueryCore;
  log: RecordLog;
  visibility: Visibility;
  visibleMsMax?: number;
}

interface Pending {
  write: string;
  key: Buffer;
  message: ProducedMessage;
  bytes: number;
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
   * log.
   */
  async write(collection: CollectionView, change: Change): Promise<WriteAck> {
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
    const bytes =
      (message.value?.length ?? 0) + change.id.length + (change.attrs?.length ?? 0) + RECORD_OVERHEAD_BYTES;
    if (this.#queuedBytes + bytes > QUEUE_BYTES_MAX) {
      throw new ReplyError("TRYAGAIN", `${this.#queuedBytes} bytes of writes wait for the log already`);
    }
    const write = this.#nextId();
    (message.headers as Record<string, string | Buffer>)["vexlake-write"] = write;
    const visible = visibility.acknowledged(incarnation, write);
    // It may be refused before the log has answered; the race below tells the client.
    visible.catch(() => undefined);
    try {
      const position = await this.#enqueue(collection, { write, key: message.key as Buffer, message, bytes });
      return await this.#until(visible, position);
    } finally {
      visibility.forget(incarnation, write);
    }
  }

  async #until(visible: Promise<WriteAck>, position: ProducedOffset): Promise<WriteAck> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const where = `${position.partition}:${position.offset}`;
        reject(new ReplyError("ERR", `written at ${where}, not yet visible`, 202));
      }, this.#options.visibleMsMax ?? VISIBLE_MS_MAX);
    });
    try {
      return await Promise.race([visible, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #enqueue(collection: CollectionView, entry: Omit<Pending, "written" | "failed">): Promise<ProducedOffset> {
    let queue = this.#queues.get(collection.incarnation);
    if (queue === undefined) {
      queue = { collection, waiting: [], sending: false };
      this.#queues.set(collection.incarnation, queue);
    }
    const { waiting } = queue;
    const result = new Promise<ProducedOffset>((written, failed) => {
      waiting.push({ ...entry, written, failed });
    });
    this.#queuedBytes += entry.bytes;
    if (!queue.sending) {
      queue.sending = true;
      // A microtask later, so that the writes of one pipeline share a batch.
      queueMicrotask(() => void this.#send(queue));
    }
    return result;
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

  /** Chooses the partition of each record of a batch. */
  async #place(collection: CollectionView, batch: Pending[]): Promise<void> {
    const { core, log } = this.#options;
    if (collection.partitions === 1) {
      for (const pending of batch) pending.message.partition = 0;
      return;
    }
    const known = await core.get({
      incarnation: collection.incarnation,
      ids: batch.map((pending) => pending.key),
      want: "exists",
      scope: "fresh",
    });
    for (const [i, pending] of batch.entries()) {
      // Live or deleted: order is only kept inside the partition that has the key's newest record.
      pending.message.partition = known.placed[i]
        ? known.partitions[i]
        : log.partitionFor(pending.key, collection.partitions);
    }
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
