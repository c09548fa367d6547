/**
 * Opens the newest segment of a partition after a stop of any kind: checks every frame, cuts a torn end.
 *
 * Appends go out in groups of at most GROUP_BYTES_MAX and the next group starts only after the fsync of
 * the one before, so bytes that were never acknowledged are at most one group at the very end. The
 * reverse is what decides at a bad frame: if a whole frame of a group that began later lies behind it, or
 * more bytes than a group has, then the bad frame was synced, and this is damage to acknowledged
 * records: CORRUPT, and nothing is cut. Else it is the last group, whose loss nobody can tell from a write
 * that was cut off: its bytes are put aside, as `<file>.<position>.torn`, and the log goes on before them.
 */
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { VexError } from "../../process/error.ts";
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, frameLength, isLaterFrame, readFrame } from "./frame.ts";
import {
  checkHeader,
  FILE_HEADER_BYTES,
  fileHeader,
  noteIndex,
  READ_BYTES,
  readAt,
  type Segment,
  syncDirectory,
} from "./segment.ts";

/** Bytes written between two fsyncs: one largest frame fits, 8 MiB take ~50 ms on a plain disk. */
export const GROUP_BYTES_MAX = FRAME_HEADER_BYTES + FRAME_BYTES_MAX;

export interface Recovered {
  /** First offset after the last good record. */
  next: bigint;
  /** Timestamp of the last good record, null without one. */
  timestamp: number | null;
  /** What was cut from the end and where it lies now. */
  torn: { bytes: number; kept: string } | null;
}

export async function recoverSegment(segment: Segment): Promise<Recovered> {
  const handle = await open(segment.path, "r+");
  try {
    const { size } = await handle.stat();
    if (!(await checkHeader(handle, segment))) {
      // Created, but not even its header reached the disk: nothing in it was acknowledged.
      await handle.truncate(0);
      await handle.write(fileHeader(segment.base), 0, FILE_HEADER_BYTES, 0);
      await handle.sync();
      segment.size = FILE_HEADER_BYTES;
      segment.index = [];
      return { next: segment.base, timestamp: null, torn: null };
    }
    const good = await lastGood(handle, segment, size);
    const bytes = size - good.position;
    const torn = bytes > 0 ? await putAside(handle, segment, good, bytes) : null;
    // What is whole now counts, also what a killed process had written and not synced yet.
    await handle.sync();
    segment.size = good.position;
    return { next: good.next, timestamp: good.timestamp, torn };
  } finally {
    await handle.close();
  }
}

interface Good {
  position: number;
  next: bigint;
  timestamp: number | null;
  fault: string;
}

/** Cuts the segment at the bad frame and keeps what was there; CORRUPT when that had been acknowledged. */
async function putAside(
  handle: FileHandle,
  segment: Segment,
  { position, next, fault }: Good,
  bytes: number,
): Promise<Recovered["torn"]> {
  const tail = bytes > GROUP_BYTES_MAX ? null : await readAt(handle, position, bytes);
  if (tail === null || hasLaterGroup(tail, position, next)) {
    const message = `local log ${segment.path}: bad frame at ${position} with ${bytes} bytes behind it: ${fault}`;
    throw new VexError("CORRUPT", message, { fields: { path: segment.path, position } });
  }
  const kept = `${segment.path}.${position}.torn`;
  const aside = await open(kept, "w");
  try {
    await aside.writeFile(tail);
    await aside.sync();
  } finally {
    await aside.close();
  }
  await syncDirectory(dirname(segment.path));
  await handle.truncate(position);
  return { bytes, kept };
}

/** `tail` begins with the bad frame, which would have the offset `next`. */
function hasLaterGroup(tail: Buffer, position: number, next: bigint): boolean {
  for (let at = 1; at < tail.length; at++) {
    if (isLaterFrame(tail, at, { base: position, from: position, offset: next })) return true;
  }
  return false;
}

async function lastGood(handle: FileHandle, segment: Segment, size: number): Promise<Good> {
  const index: Segment["index"] = [];
  segment.index = index;
  const good: Good = { position: FILE_HEADER_BYTES, next: segment.base, timestamp: null, fault: "cut off" };
  while (good.position < size) {
    let buffer = await readAt(handle, good.position, Math.min(size - good.position, READ_BYTES));
    const where = () => `${segment.path} at ${good.position}`;
    try {
      const needed = frameLength(buffer, 0, where);
      if (needed === null || good.position + needed > size) return good;
      if (needed > buffer.length) buffer = await readAt(handle, good.position, needed);
      for (let at = 0; ; ) {
        const frame = readFrame(buffer, at, where);
        if (!frame) break;
        if (frame.record.offset !== good.next) {
          good.fault = `offset is ${frame.record.offset}, expected ${good.next}`;
          return good;
        }
        noteIndex(index, frame.record.offset, good.position);
        good.position += frame.end - at;
        good.next += 1n;
        good.timestamp = frame.record.timestamp;
        at = frame.end;
      }
    } catch (error) {
      if (!(error instanceof VexError)) throw error;
      good.fault = error.message;
      return good;
    }
  }
  return good;
}
