/*
 * Records as foreign producers write them, straight from schemas/records.md: none of our own encoders is
 * used, so that a test that produces with these and reads through us checks the format from outside.
 */
import kafkajs, { type IHeaders, type Kafka, type Message, type Producer } from "kafkajs";

export { seeded } from "../../services/common/seeded.ts";

export type Format = "f32" | "protobuf" | "json";
export type Op = "upsert" | "set-vector" | "set-attrs" | "delete";

/** One change of one key. */
export interface Change {
  id: string;
  /** Absent: not written, so the reader's default is tested. */
  op?: Op;
  vector?: Float32Array;
  /** JSON text. */
  attrs?: string;
  eventTime?: number;
}

const OP_NUMBERS: Record<Op, number> = { upsert: 1, "set-vector": 2, "set-attrs": 3, delete: 4 };

/** The Kafka message of a change; `header` writes the vexlake-format header too. */
export function encode(format: Format, change: Change, header = false): Message {
  const headers: IHeaders = header ? { "vexlake-format": format } : {};
  if (format === "f32") {
    if (change.op !== undefined) headers["vexlake-op"] = change.op;
    if (change.attrs !== undefined) headers["vexlake-attrs"] = change.attrs;
    if (change.eventTime !== undefined) headers["vexlake-event-time"] = String(change.eventTime);
    return { key: change.id, value: change.vector ? floatBytes(change.vector) : Buffer.alloc(0), headers };
  }
  const value = format === "protobuf" ? protobufOf(change) : Buffer.from(jsonOf(change));
  return { key: change.id, value, headers };
}

/** The message that deletes a key whatever else it says. */
export function tombstone(id: string, headers: IHeaders = {}): Message {
  return { key: id, value: null, headers };
}

export function floatBytes(vector: Float32Array): Buffer {
  const bytes = Buffer.alloc(4 * vector.length);
  vector.forEach((value, i) => void bytes.writeFloatLE(value, 4 * i));
  return bytes;
}

function jsonOf({ id, op, vector, attrs, eventTime }: Change): string {
  const fields = [`"id":${JSON.stringify(id)}`];
  if (op !== undefined) fields.push(`"op":${JSON.stringify(op)}`);
  if (vector !== undefined) fields.push(`"vector":[${Array.from(vector).join(",")}]`);
  if (attrs !== undefined) fields.push(`"attrs":${attrs}`);
  if (eventTime !== undefined) fields.push(`"event_time":${eventTime}`);
  return `{${fields.join(",")}}`;
}

/** record.proto by hand: a tag is field number × 8 + wire type (0 = varint, 2 = bytes). */
function protobufOf({ id, op, vector, attrs, eventTime }: Change): Buffer {
  const parts = [field(1, Buffer.from(id))];
  if (vector !== undefined) parts.push(field(2, floatBytes(vector)));
  if (attrs !== undefined) parts.push(field(3, Buffer.from(attrs)));
  if (op !== undefined) parts.push(varint(4 * 8), varint(OP_NUMBERS[op]));
  if (eventTime !== undefined) parts.push(varint(5 * 8), varint(eventTime));
  return Buffer.concat(parts);
}

function field(number: number, bytes: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = BigInt(value);
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

/** Components in [-1, 1). */
export function randomVector(dim: number, random: () => number): Float32Array {
  return Float32Array.from({ length: dim }, () => 2 * random() - 1);
}

/** A Kafka client of the tests' own. */
export function kafkaClient(brokers: string): Kafka {
  return new kafkajs.Kafka({
    brokers: brokers.split(","),
    clientId: "test",
    logLevel: kafkajs.logLevel.NOTHING,
    retry: { initialRetryTime: 50, retries: 20 },
  });
}

/** An idempotent producer that places keys as Kafka's own clients do. */
export async function startProducer(brokers: string): Promise<Producer> {
  const producer = kafkaClient(brokers).producer({
    idempotent: true,
    maxInFlightRequests: 1,
    createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  return producer;
}
