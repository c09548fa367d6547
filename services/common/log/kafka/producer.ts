/**
 * The idempotent producer of one topic: acks=all, one offset per message, no write sent twice by us.
 *
 * 1. `produce` splits a call into messages with a partition each and queues them.
 * 2. One request is under way at a time. While it is, messages gather and go together in the next one,
 *    up to the broker's limit of a record batch (group commit; 1 client waits for nobody).
 * 3. kafkajs answers a base offset per partition; a message's offset is that plus its place.
 * 4. A failed request fails every call with a message in it, and what those calls still had queued.
 *    Unless the broker refused for certain, the error is `in doubt`. The producer is then replaced: a
 *    new producer id starts new sequences.
 *
 * Why one at a time and why replaced: kafkajs rolls a sequence back when a request fails, so the next
 * request would reuse the sequence of one that may have been written; a broker that has it answers
 * "duplicate, already written" and the new records are lost though acknowledged. kafkajs' own retries
 * of the request under way are safe: same records, same sequence.
 *
 * Why one per topic: a kafkajs client fails every metadata refresh once any topic it has used is gone.
 * Also, it drops messages to a partition that its metadata lacks without a word, so a producer is
 * replaced before it writes to more partitions than there were when it connected.
 */
import type { Kafka, Message, Producer, RecordMetadata } from "kafkajs";
import { VexError } from "../../process/error.ts";
import type { Logger } from "../../process/logger.ts";
import type { ProducedMessage, ProducedOffset } from "../source.ts";
import { RETRY } from "./client.ts";
import { kafkaError, produceError } from "./errors.ts";

/** Of one partition in one request: brokers take 1,048,588 bytes, headers and framing included. */
export const PARTITION_BYTES_MAX = 900_000;
/** Of one request over all partitions: 8 partitions' worth, ~80 ms at 100 MB/s. */
export const REQUEST_BYTES_MAX = 8 * PARTITION_BYTES_MAX;
/** Queued and not yet sent; beyond, writes are refused before they are sent: ~8 requests. */
export const QUEUE_BYTES_MAX = 64 * 1024 * 1024;
/** Record framing, an upper bound for a record without headers. */
const MESSAGE_OVERHEAD_BYTES = 70;
/** The broker waits this long for its replicas. */
const ACK_TIMEOUT_MS = 8_000;

interface Call {
  offsets: ProducedOffset[];
  open: number;
  failed: boolean;
  resolve: (offsets: ProducedOffset[]) => void;
  reject: (error: VexError) => void;
}

interface Queued {
  call: Call;
  index: number;
  partition: number;
  message: Message;
  bytes: number;
}

export class KafkaProducer {
  readonly #kafka: Kafka;
  readonly #topic: string;
  readonly #logger: Logger;
  #producer: Producer | null = null;
  #partitions = 0;
  #partitionsWanted = 0;
  #queue: Queued[] = [];
  #queuedBytes = 0;
  #pump: Promise<void> | null = null;
  #closed = false;

  constructor(kafka: Kafka, topic: string, logger: Logger) {
    this.#kafka = kafka;
    this.#topic = topic;
    this.#logger = logger;
  }

  get idle(): boolean {
    return this.#pump === null;
  }

  /** Every message names its partition, below `partitions`, which the topic has now. */
  produce(
    messages: (ProducedMessage & { partition: number })[],
    partitions: number,
  ): Promise<ProducedOffset[]> {
    if (this.#closed) return Promise.reject(new VexError("UNAVAILABLE", "the producer is closed"));
    this.#partitionsWanted = Math.max(this.#partitionsWanted, partitions);
    if (messages.length === 0) return Promise.resolve([]);
    const bytes = messages.map(messageBytes);
    const total = bytes.reduce((sum, size) => sum + size, 0);
    if (this.#queue.length > 0 && this.#queuedBytes + total > QUEUE_BYTES_MAX) {
      const message = `${this.#queuedBytes} bytes wait for the log already; nothing was sent`;
      return Promise.reject(new VexError("UNAVAILABLE", message, { fields: { topic: this.#topic } }));
    }
    return new Promise((resolve, reject) => {
      const call: Call = {
        offsets: new Array(messages.length),
        open: messages.length,
        failed: false,
        resolve,
        reject,
      };
      messages.forEach((message, index) => {
        this.#queue.push({
          call,
          index,
          partition: message.partition,
          message: kafkaMessage(message),
          bytes: bytes[index] as number,
        });
      });
      this.#queuedBytes += total;
      this.#pump ??= this.#run();
    });
  }

  /** Sends what is queued, then disconnects. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#pump;
    await this.#discard();
  }

  async #run(): Promise<void> {
    // Messages of one turn of the event loop, a pipeline of commands for example, share a request.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const request = this.#take();
      try {
        const producer = await this.#connected();
        await this.#send(producer, request);
      } catch (error) {
        this.#fail(request, error as VexError);
      }
    }
    // In the same turn as the check above: whoever queues next starts the pump again.
    this.#pump = null;
  }

  /** The queue's head up to the limits; a message that is larger than them goes alone. */
  #take(): Queued[] {
    const bytesOf = new Map<number, number>();
    let total = 0;
    let count = 0;
    for (const { partition, bytes } of this.#queue) {
      const ofPartition = (bytesOf.get(partition) ?? 0) + bytes;
      total += bytes;
      if (count > 0 && (ofPartition > PARTITION_BYTES_MAX || total > REQUEST_BYTES_MAX)) break;
      bytesOf.set(partition, ofPartition);
      count += 1;
    }
    const request = this.#queue.slice(0, count);
    this.#queue = this.#queue.slice(count);
    for (const { bytes } of request) this.#queuedBytes -= bytes;
    return request;
  }

  async #connected(): Promise<Producer> {
    if (this.#partitionsWanted > this.#partitions) await this.#discard();
    if (this.#producer) return this.#producer;
    this.#partitions = this.#partitionsWanted;
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      retry: RETRY,
    });
    try {
      await producer.connect();
    } catch (error) {
      await producer.disconnect().catch(() => undefined);
      throw kafkaError("the log cannot be reached, nothing was sent", error);
    }
    this.#producer = producer;
    return producer;
  }

  async #send(producer: Producer, request: Queued[]): Promise<void> {
    let answers: RecordMetadata[];
    try {
      answers = await producer.send({
        topic: this.#topic,
        acks: -1,
        timeout: ACK_TIMEOUT_MS,
        messages: request.map(({ message }) => message),
      });
    } catch (error) {
      await this.#discard();
      throw produceError(this.#topic, error);
    }
    const next = new Map<number, bigint>();
    for (const { partition, baseOffset, errorCode } of answers) {
      // An acknowledged batch always has an offset; -1 would be acks=0.
      if (errorCode === 0 && baseOffset !== undefined && baseOffset !== "-1")
        next.set(partition, BigInt(baseOffset));
    }
    const unanswered = request.find(({ partition }) => !next.has(partition));
    if (unanswered) {
      // kafkajs forgets partitions whose leader moved between its tries; their outcome is unknown.
      await this.#discard();
      throw produceError(this.#topic, new Error(`no answer for partition ${unanswered.partition}`));
    }
    for (const { call, index, partition } of request) {
      const offset = next.get(partition) as bigint;
      next.set(partition, offset + 1n);
      call.offsets[index] = { partition, offset };
      call.open -= 1;
      if (call.open === 0) call.resolve(call.offsets);
    }
  }

  #fail(request: Queued[], error: VexError): void {
    const calls = new Set(request.map(({ call }) => call));
    for (const call of calls) {
      call.failed = true;
      call.reject(error);
    }
    this.#queue = this.#queue.filter((queued) => {
      if (!queued.call.failed) return true;
      this.#queuedBytes -= queued.bytes;
      return false;
    });
  }

  async #discard(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.disconnect().catch((error: unknown) => {
      this.#logger.debug({ err: error }, "the producer did not disconnect cleanly");
    });
  }
}

function kafkaMessage({ key, value, headers, partition, timestamp }: ProducedMessage): Message {
  return {
    key,
    value,
    ...(partition === undefined ? {} : { partition }),
    ...(headers === undefined ? {} : { headers }),
    ...(timestamp === undefined ? {} : { timestamp: String(timestamp) }),
  };
}

function messageBytes({ key, value, headers }: ProducedMessage): number {
  let bytes = MESSAGE_OVERHEAD_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  for (const name in headers)
    bytes += 10 + name.length * 3 + Buffer.byteLength(headers[name] as Buffer | string);
  return bytes;
}
