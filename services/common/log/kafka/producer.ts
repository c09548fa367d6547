/**
 * The idempotent producer of one topic: acks=all, one offset per message, no write sent twice by us.
 *
 * 1. `produce` splits a call into messages with a partition each and queues them by partition.
 * 2. Each partition has one request under way at a time, of that partition alone. While it is, messages
 *    gather and go together in the next one, up to the broker's limit of a record batch (group commit; 1
 *    client waits for nobody).
 * 3. kafkajs answers the base offset; a message's offset is that plus its place.
 * 4. A failed request fails every call with a message in it, and what those calls still had queued. A
 *    call is answered when nothing of it is under way any more: as refused for certain only if no part of
 *    it was written or may have been, else as `in doubt`. The client is then replaced: a new producer id
 *    starts new sequences.
 *
 * Why one partition a request: kafkajs sends a request to all leaders at once and, when one fails, again
 * to every leader that has not answered *yet*, whose first copy may still be written, under new sequences;
 * and it answers the first partition's refusal for the whole request. With one partition there is one
 * leader, kafkajs' own retries keep the sequence, and a refusal is about these messages.
 *
 * Why one at a time and why replaced: kafkajs rolls a sequence back when a request fails, so the next
 * request would reuse the sequence of one that may have been written; a broker that has it answers
 * "duplicate, already written" and the new records are lost though acknowledged. Other partitions finish
 * what they have under way on the old client.
 *
 * Why one per topic: a kafkajs client fails every metadata refresh once any topic it has used is gone.
 * Also, it drops messages to a partition that its metadata lacks without a word, so a client is
 * replaced before it writes to more partitions than there were when it connected.
 */
import type { Kafka, Message, Producer } from "kafkajs";
import { VexError } from "../../process/error.ts";
import type { Logger } from "../../process/logger.ts";
import type { ProducedMessage, ProducedOffset } from "../source.ts";
import { RETRY } from "./client.ts";
import { kafkaError, partlyWritten, produceError } from "./errors.ts";

/** Of one request: brokers take 1,048,588 bytes a batch, headers and framing included. */
export const REQUEST_BYTES_MAX = 900_000;
/** Queued and not yet sent; beyond, writes are refused before they are sent: ~70 requests. */
export const QUEUE_BYTES_MAX = 64 * 1024 * 1024;
/** Record framing, an upper bound for a record without headers. */
const MESSAGE_OVERHEAD_BYTES = 70;
/** The broker waits this long for its replicas. */
const ACK_TIMEOUT_MS = 8_000;

interface Call {
  offsets: ProducedOffset[];
  /** Messages without an outcome. */
  open: number;
  written: number;
  failure: VexError | null;
  resolve: (offsets: ProducedOffset[]) => void;
  reject: (error: VexError) => void;
}

interface Queued {
  call: Call;
  index: number;
  message: Message;
  bytes: number;
}

/** A connected kafkajs producer, that is a producer id, and what uses it. */
interface Client {
  producer: Producer;
  /** Of the topic when it connected. */
  partitions: number;
  requests: number;
  replaced: boolean;
}

export class KafkaProducer {
  readonly #kafka: Kafka;
  readonly #topic: string;
  readonly #logger: Logger;
  #client: Promise<Client> | null = null;
  #partitionsWanted = 0;
  readonly #queues = new Map<number, Queued[]>();
  #queuedBytes = 0;
  /** By partition. */
  readonly #pumps = new Map<number, Promise<void>>();
  #closed = false;

  constructor(kafka: Kafka, topic: string, logger: Logger) {
    this.#kafka = kafka;
    this.#topic = topic;
    this.#logger = logger;
  }

  get idle(): boolean {
    return this.#pumps.size === 0;
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
    if (this.#queuedBytes > 0 && this.#queuedBytes + total > QUEUE_BYTES_MAX) {
      const message = `${this.#queuedBytes} bytes wait for the log already; nothing was sent`;
      return Promise.reject(new VexError("UNAVAILABLE", message, { fields: { topic: this.#topic } }));
    }
    return new Promise((resolve, reject) => {
      const offsets = new Array<ProducedOffset>(messages.length);
      const call: Call = { offsets, open: messages.length, written: 0, failure: null, resolve, reject };
      messages.forEach((message, index) => {
        this.#queue(message.partition).push({
          call,
          index,
          message: kafkaMessage(message),
          bytes: bytes[index] as number,
        });
      });
      this.#queuedBytes += total;
      for (const { partition } of messages) {
        if (!this.#pumps.has(partition)) this.#pumps.set(partition, this.#pump(partition));
      }
    });
  }

  /** Sends what is queued, then disconnects. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#pumps.values());
    const client = await this.#client?.catch(() => null);
    if (client) await this.#replace(client);
  }

  #queue(partition: number): Queued[] {
    const queue = this.#queues.get(partition) ?? [];
    this.#queues.set(partition, queue);
    return queue;
  }

  async #pump(partition: number): Promise<void> {
    // Messages of one turn of the event loop, a pipeline of commands for example, share a request.
    await Promise.resolve();
    while (this.#queue(partition).length > 0) {
      const request = this.#take(partition);
      try {
        await this.#send(partition, request);
      } catch (error) {
        this.#fail(request, error as VexError);
      }
    }
    // In the same turn as the check above: whoever queues next starts the pump again.
    this.#pumps.delete(partition);
    this.#queues.delete(partition);
  }

  /** The queue's head up to the limit; a message that is larger than it goes alone. */
  #take(partition: number): Queued[] {
    const queue = this.#queue(partition);
    let total = 0;
    let count = 0;
    for (const { bytes } of queue) {
      total += bytes;
      if (count > 0 && total > REQUEST_BYTES_MAX) break;
      count += 1;
    }
    const request = queue.splice(0, count);
    for (const { bytes } of request) this.#queuedBytes -= bytes;
    return request;
  }

  async #send(partition: number, request: Queued[]): Promise<void> {
    const client = await this.#borrow();
    try {
      const answers = await client.producer.send({
        topic: this.#topic,
        acks: -1,
        timeout: ACK_TIMEOUT_MS,
        messages: request.map(({ message }) => message),
      });
      // An acknowledged batch always has an offset; -1 would be acks=0.
      const answer = answers.find((one) => one.partition === partition && one.errorCode === 0);
      const base = answer?.baseOffset ?? "-1";
      if (base === "-1") throw new Error(`no answer for partition ${partition}`);
      request.forEach(({ call, index }, place) => {
        call.offsets[index] = { partition, offset: BigInt(base) + BigInt(place) };
        call.written += 1;
        this.#settle(call);
      });
    } catch (error) {
      void this.#replace(client);
      throw produceError(this.#topic, error);
    } finally {
      client.requests -= 1;
      if (client.replaced && client.requests === 0) void this.#disconnect(client);
    }
  }

  /** A client that may be used for one request, which is counted. */
  async #borrow(): Promise<Client> {
    for (;;) {
      this.#client ??= this.#connect();
      const client = await this.#client;
      if (client.replaced) continue;
      if (client.partitions < this.#partitionsWanted) {
        void this.#replace(client);
        continue;
      }
      client.requests += 1;
      return client;
    }
  }

  async #connect(): Promise<Client> {
    const partitions = this.#partitionsWanted;
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      retry: RETRY,
    });
    try {
      await producer.connect();
    } catch (error) {
      this.#client = null;
      await producer.disconnect().catch(() => undefined);
      throw kafkaError("the log cannot be reached, nothing was sent", error);
    }
    return { producer, partitions, requests: 0, replaced: false };
  }

  /** No new request uses this client; it disconnects when those under way are answered. */
  async #replace(client: Client): Promise<void> {
    if (client.replaced) return;
    client.replaced = true;
    this.#client = null;
    if (client.requests === 0) await this.#disconnect(client);
  }

  async #disconnect({ producer }: Client): Promise<void> {
    await producer.disconnect().catch((error: unknown) => {
      this.#logger.debug({ err: error }, "the producer did not disconnect cleanly");
    });
  }

  #fail(request: Queued[], error: VexError): void {
    for (const { call } of request) {
      // What may have been written says more than what was refused.
      if (call.failure === null || error.doubt) call.failure = error;
      this.#settle(call);
    }
    const failed = new Set(request.map(({ call }) => call));
    for (const [partition, queue] of this.#queues) {
      const dropped = queue.filter(({ call }) => failed.has(call));
      if (dropped.length === 0) continue;
      this.#queues.set(
        partition,
        queue.filter(({ call }) => !failed.has(call)),
      );
      for (const { call, bytes } of dropped) {
        this.#queuedBytes -= bytes;
        this.#settle(call);
      }
    }
  }

  /** One message of the call has its outcome; the last one answers the call. */
  #settle(call: Call): void {
    call.open -= 1;
    if (call.open > 0) return;
    if (call.failure === null) call.resolve(call.offsets);
    else if (call.written > 0 && !call.failure.doubt) call.reject(partlyWritten(this.#topic, call.failure));
    else call.reject(call.failure);
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
