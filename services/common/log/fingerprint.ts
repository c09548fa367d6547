/**
 * The fingerprint of a record: timestamp + CRC-32C over key and value (layout: schemas/records.md).
 *
 * A checkpoint keeps that of the last record it covers. On a claim the record is read again; a record
 * that is gone proves nothing (retention, compaction), one that differs proves another topic, which
 * Kafka's metadata up to v6 would not tell us (no topic ids).
 */
import { crc32c } from "./crc32c.ts";
import type { LogRecord, LogSource } from "./source.ts";

export interface Fingerprint {
  offset: bigint;
  timestamp: number;
  crc32c: number;
}

const NULL_LENGTH = 0xffffffff;

export function fingerprintOf(record: LogRecord): Fingerprint {
  let crc = 0;
  for (const part of [record.key, record.value]) {
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(part === null ? NULL_LENGTH : part.length);
    crc = crc32c(length, crc);
    if (part !== null) crc = crc32c(part, crc);
  }
  return { offset: record.offset, timestamp: record.timestamp, crc32c: crc };
}

/** What the log holds at the fingerprint's offset: the same record, another one, or none. */
export async function compareFingerprint(
  source: LogSource,
  topic: string,
  partition: number,
  expected: Fingerprint,
): Promise<"same" | "different" | "gone"> {
  let found: LogRecord | undefined;
  await source.read(topic, partition, expected.offset, expected.offset + 1n, (batch) => {
    found ??= batch.records.find((record) => record.offset === expected.offset);
  });
  if (!found) return "gone";
  const actual = fingerprintOf(found);
  const same = actual.timestamp === expected.timestamp && actual.crc32c === expected.crc32c;
  return same ? "same" : "different";
}
