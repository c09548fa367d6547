/**
 * One file of a partition: `<first offset, 20 digits>.log`, a 16-byte header, then frames.
 *
 * Header: "VXLOG2\0\0" · u64 first offset. Frames carry adjoining offsets from there on. A sparse index
 * in memory (a position every INDEX_BYTES) finds an offset; it is built while the file is checked at
 * open or on the first search, and extended by appends.
 */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { VexError } from "../../process/error.ts";
import type { LogRecord } from "../source.ts";
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, readFrame } from "./frame.ts";

export const FILE_HEADER_BYTES = 16;
/** A search reads at most this much before the offset; 1,024 entries for a full segment. */
export const INDEX_BYTES = 64 * 1024;
/** One read of the disk; a frame larger than it is read on its own. */
export const READ_BYTES = 1024 * 1024;
const MAGIC = Buffer.from("VXLOG2\0\0", "latin1");

export interface IndexEntry {
  offset: bigint;
  position: number;
}

export interface Segment {
  readonly base: bigint;
  readonly path: string;
  /** Synced bytes; nothing beyond is read. */
  size: number;
  /** null until the file was walked. */
  index: IndexEntry[] | null;
}

export function segmentPath(directory: string, base: bigint): string {
  return join(directory, `${base.toString().padStart(20, "0")}.log`);
}

export function fileHeader(base: bigint): Buffer {
  const header = Buffer.alloc(FILE_HEADER_BYTES);
  MAGIC.copy(header);
  header.writeBigUInt64LE(base, 8);
  return header;
}

/** False when the header is cut short; CORRUPT when it is another file's. */
export async function checkHeader(handle: FileHandle, segment: Segment): Promise<boolean> {
  const header = Buffer.alloc(FILE_HEADER_BYTES);
  const { bytesRead } = await handle.read(header, 0, FILE_HEADER_BYTES, 0);
  if (bytesRead < FILE_HEADER_BYTES) return false;
  if (!header.equals(fileHeader(segment.base))) {
    throw new VexError("CORRUPT", `local log ${segment.path}: header is not that of this segment`);
  }
  return true;
}

export interface Stretch {
  records: LogRecord[];
  /** Position after the last record. */
  position: number;
}

/** The frames from `position` on, up to one read of the disk; none at the end of the synced bytes. */
export async function readStretch(segment: Segment, position: number, bytes = READ_BYTES): Promise<Stretch> {
  const left = segment.size - position;
  if (left <= 0) return { records: [], position };
  const handle = await open(segment.path, "r");
  try {
    let buffer = await readAt(handle, position, Math.min(left, bytes));
    let stretch = parse(segment, buffer, position);
    if (stretch.records.length === 0 && left > buffer.length) {
      buffer = await readAt(handle, position, Math.min(left, FRAME_HEADER_BYTES + FRAME_BYTES_MAX));
      stretch = parse(segment, buffer, position);
    }
    if (stretch.records.length === 0) {
      throw new VexError(
        "CORRUPT",
        `local log ${segment.path}: synced bytes end inside the frame at ${position}`,
      );
    }
    return stretch;
  } finally {
    await handle.close();
  }
}

/** The position of `offset`, which the segment holds or ends before. */
export async function findPosition(segment: Segment, offset: bigint): Promise<number> {
  if (segment.index === null) await walk(segment);
  let position = nearest(segment.index ?? [], offset);
  while (position < segment.size) {
    const { records, position: after } = await readStretch(segment, position, INDEX_BYTES);
    const last = records.at(-1) as LogRecord;
    if (last.offset < offset) {
      position = after;
      continue;
    }
    return positionOf(segment, position, offset);
  }
  return position;
}

/** Reads the whole segment frame by frame; `visit` returning false ends the walk. */
export async function walk(segment: Segment, visit?: (record: LogRecord) => boolean): Promise<void> {
  const index: IndexEntry[] = [];
  let position = FILE_HEADER_BYTES;
  while (position < segment.size) {
    const stretch = await readStretch(segment, position);
    noteIndex(index, (stretch.records[0] as LogRecord).offset, position);
    position = stretch.position;
    if (visit) for (const record of stretch.records) if (!visit(record)) return;
  }
  segment.index ??= index;
}

export function noteIndex(index: IndexEntry[], offset: bigint, position: number): void {
  const last = index.at(-1);
  if (!last || position - last.position >= INDEX_BYTES) index.push({ offset, position });
}

function nearest(index: IndexEntry[], offset: bigint): number {
  let low = 0;
  let high = index.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((index[middle] as IndexEntry).offset <= offset) low = middle + 1;
    else high = middle;
  }
  return index[low - 1]?.position ?? FILE_HEADER_BYTES;
}

async function positionOf(segment: Segment, from: number, offset: bigint): Promise<number> {
  const handle = await open(segment.path, "r");
  try {
    let position = from;
    const bytes = Math.min(segment.size - from, INDEX_BYTES + FRAME_HEADER_BYTES + FRAME_BYTES_MAX);
    const buffer = await readAt(handle, from, bytes);
    for (let at = 0; ; ) {
      const frame = readFrame(buffer, at, () => `${segment.path} at ${from + at}`);
      if (!frame || frame.record.offset >= offset) return position;
      at = frame.end;
      position = from + at;
    }
  } finally {
    await handle.close();
  }
}

function parse(segment: Segment, buffer: Buffer, start: number): Stretch {
  const records: LogRecord[] = [];
  let at = 0;
  for (;;) {
    const frame = readFrame(buffer, at, () => `${segment.path} at ${start + at}`);
    if (!frame) return { records, position: start + at };
    records.push(frame.record);
    at = frame.end;
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A buffer of its own, as the records of a batch are views of it and may outlive the next read. */
export async function readAt(handle: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(bytes);
  let filled = 0;
  while (filled < bytes) {
    const { bytesRead } = await handle.read(buffer, filled, bytes - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled === bytes ? buffer : buffer.subarray(0, filled);
}
