/**
 * kafkajs messages as LogRecords. Key, value and header values stay views of the fetched buffer.
 *
 * A header given twice counts with its last value; kafkajs hands a header without value as null, which
 * is as good as absent.
 */
import type { KafkaMessage } from "kafkajs";
import { type LogRecord, NO_HEADERS } from "../source.ts";

export function recordsOf(messages: readonly KafkaMessage[]): LogRecord[] {
  const records = new Array<LogRecord>(messages.length);
  for (let i = 0; i < messages.length; i++) {
    const message = messages[i] as KafkaMessage;
    records[i] = {
      key: message.key,
      value: message.value,
      headers: headersOf(message.headers),
      timestamp: Number(message.timestamp),
      offset: BigInt(message.offset),
    };
  }
  return records;
}

/** What the records hold in memory, near enough for queue limits. */
export function bytesOf(records: readonly LogRecord[]): number {
  let bytes = 0;
  for (const { key, value } of records)
    bytes += RECORD_OVERHEAD_BYTES + (key?.length ?? 0) + (value?.length ?? 0);
  return bytes;
}

/** Objects and strings that kafkajs makes of one message. */
const RECORD_OVERHEAD_BYTES = 400;

function headersOf(headers: KafkaMessage["headers"]): LogRecord["headers"] {
  if (!headers) return NO_HEADERS;
  let result: LogRecord["headers"] | null = null;
  for (const name in headers) {
    const given = headers[name];
    const value = Array.isArray(given) ? given.at(-1) : given;
    if (value === undefined || value === null) continue;
    result ??= {};
    result[name] = typeof value === "string" ? Buffer.from(value) : value;
  }
  return result ?? NO_HEADERS;
}
