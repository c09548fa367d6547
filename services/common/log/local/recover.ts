/**
 * Opens the newest segment of a partition after a stop of any kind: checks every frame, cuts a torn tail.
 *
 * Appends go out in groups of at most GROUP_BYTES_MAX and the next group starts only after the fsync of
 * the one before, so bytes that were never acknowledged are at most one group at the very end. A bad
 * frame with more than that behind it is not a torn tail but damage to acknowledged records: CORRUPT,
 * and nothing is cut.
 */
import { open } from "node:fs/promises";
import { VexError } from "../../process/error.ts";
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, frameLength, readFrame } from "./frame.ts";
import {
  checkHeader,
  FILE_HEADER_BYTES,
  fileHeader,
  noteIndex,
  READ_BYTES,
  readAt,
  type Segment,
} from "./segment.ts";

/** Bytes written between two fsyncs: one largest frame fits, 8 MiB take ~50 ms on a plain disk. */
export const GROUP_BYTES_MAX = FRAME_HEADER_BYTES + FRAME_BYTES_MAX;

export interface Recovered {
  /** First offset after the last good record. */
  next: bigint;
  /** Timestamp of the last good record, null without one. */
  timestamp: number | null;
  /** Bytes cut from the end. */
  cut: number;
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
      return { next: segment.base, timestamp: null, cut: size };
    }
    const good = await lastGood(handle, segment, size);
    const cut = size - good.position;
    if (cut > GROUP_BYTES_MAX) {
      const message = `local log ${segment.path}: bad frame at ${good.position} with ${cut} bytes behind it: ${good.fault}`;
      throw new VexError("CORRUPT", message, { fields: { path: segment.path, position: good.position } });
    }
    if (cut > 0) {
      await handle.truncate(good.position);
      await handle.sync();
    }
    segment.size = good.position;
    return { next: good.next, timestamp: good.timestamp, cut };
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

async function lastGood(handle: Parameters<typeof readAt>[0], segment: Segment, size: number): Promise<Good> {
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
