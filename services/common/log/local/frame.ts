/**
 * Frames of the local log. All integers little endian.
 *
 * Frame: u32 length of the body · u32 CRC-32C of all that follows · u32 position in the file at which the
 *        frame's group begins · body.
 * Body:  i64 offset · i64 timestamp (ms) · i32 key length (-1: null) · key · i32 value length (-1: null)
 *        · value · u16 headers · per header: u16 name length · name (UTF-8) · i32 value length · value.
 *
 * Decoding makes views of the buffer it is given, never copies; a frame that is cut off by the buffer's
 * end is left for the next read. A frame whose checksum or lengths are wrong is CORRUPT.
 *
 * The group is what recovery needs to tell a torn end from damage: see recover.ts.
 */
import { VexError } from "../../process/error.ts";
import { crc32c } from "../crc32c.ts";
import { type LogRecord, NO_HEADERS, type ProducedMessage } from "../source.ts";

export const FRAME_HEADER_BYTES = 12;
/** Where the checksum begins. */
const CHECKED = 8;
/** Largest body: a 65,536-dimensional JSON vector (~1.5 MiB) with 64 KiB of attributes, four times over. */
export const FRAME_BYTES_MAX = 8 * 1024 * 1024;
/** Offset, timestamp, two lengths, header count. */
const BODY_BYTES_MIN = 8 + 8 + 4 + 4 + 2;
const HEADERS_MAX = 0xffff;

/** What the log adds to a message. */
export interface FramePlace {
  offset: bigint;
  timestamp: number;
  /** Position in the file at which the group begins; a segment is far below 4 GiB. */
  group: number;
}

/** Bytes of the whole frame; INVALID when it is too large for the log. */
export function frameBytes(message: ProducedMessage): number {
  let bytes = BODY_BYTES_MIN + (message.key?.length ?? 0) + (message.value?.length ?? 0);
  let count = 0;
  for (const [name, value] of Object.entries(message.headers ?? {})) {
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > 0xffff)
      throw new VexError("INVALID", `header name has ${nameBytes} bytes, at most 65535 fit`);
    bytes += 2 + nameBytes + 4 + Buffer.byteLength(value);
    count += 1;
  }
  if (count > HEADERS_MAX)
    throw new VexError("INVALID", `record has ${count} headers, at most ${HEADERS_MAX} fit`);
  if (bytes > FRAME_BYTES_MAX) {
    throw new VexError("INVALID", `record needs ${bytes} bytes, the log takes ${FRAME_BYTES_MAX}`);
  }
  return FRAME_HEADER_BYTES + bytes;
}

/** Writes one frame at `at` and returns the position after it; room was made by `frameBytes`. */
export function writeFrame(
  target: Buffer,
  at: number,
  message: ProducedMessage,
  { offset, timestamp, group }: FramePlace,
): number {
  const body = at + FRAME_HEADER_BYTES;
  let end = target.writeBigInt64LE(offset, body);
  end = target.writeBigInt64LE(BigInt(timestamp), end);
  end = writeBytes(target, end, message.key);
  end = writeBytes(target, end, message.value);
  const headers = Object.entries(message.headers ?? {});
  end = target.writeUInt16LE(headers.length, end);
  for (const [name, value] of headers) {
    end = target.writeUInt16LE(Buffer.byteLength(name), end);
    end += target.write(name, end);
    end = writeBytes(target, end, typeof value === "string" ? Buffer.from(value) : value);
  }
  target.writeUInt32LE(end - body, at);
  target.writeUInt32LE(group, at + CHECKED);
  target.writeUInt32LE(crc32c(target.subarray(at + CHECKED, end)), at + 4);
  return end;
}

export interface Frame {
  record: LogRecord;
  /** Position after the frame. */
  end: number;
}

/** The frame at `at`, or null when the buffer ends inside it. `where` names file and position in errors. */
export function readFrame(source: Buffer, at: number, where: () => string): Frame | null {
  const length = frameLength(source, at, where);
  if (length === null) return null;
  const end = at + length;
  if (end > source.length) return null;
  const body = source.subarray(at + FRAME_HEADER_BYTES, end);
  const stored = source.readUInt32LE(at + 4);
  const actual = crc32c(source.subarray(at + CHECKED, end));
  if (stored !== actual) throw corrupt(where, `checksum is ${actual}, stored is ${stored}`);
  return { record: decodeBody(body, where), end };
}

/** Whole length of the frame at `at`, null when the buffer ends inside its header. */
export function frameLength(source: Buffer, at: number, where: () => string): number | null {
  if (at + FRAME_HEADER_BYTES > source.length) return null;
  const body = source.readUInt32LE(at);
  if (body < BODY_BYTES_MIN || body > FRAME_BYTES_MAX) throw corrupt(where, `frame length is ${body}`);
  return FRAME_HEADER_BYTES + body;
}

/**
 * Whether a whole frame of a group that begins behind `from` lies at `at` of a buffer that itself lies at
 * `base` of its file, with an offset above `offset`. Cheap where there is none: the scan asks this of
 * every byte.
 */
export function isLaterFrame(
  source: Buffer,
  at: number,
  { base, from, offset }: { base: number; from: number; offset: bigint },
): boolean {
  if (at + FRAME_HEADER_BYTES + BODY_BYTES_MIN > source.length) return false;
  const length = source.readUInt32LE(at);
  if (length < BODY_BYTES_MIN || at + FRAME_HEADER_BYTES + length > source.length) return false;
  const group = source.readUInt32LE(at + CHECKED);
  if (group <= from || group > base + at) return false;
  if (source.readBigInt64LE(at + FRAME_HEADER_BYTES) <= offset) return false;
  const end = at + FRAME_HEADER_BYTES + length;
  return source.readUInt32LE(at + 4) === crc32c(source.subarray(at + CHECKED, end));
}

function decodeBody(body: Buffer, where: () => string): LogRecord {
  let at = 16;
  const bytes = (): Buffer | null => {
    const length = body.readInt32LE(at);
    at += 4;
    if (length === -1) return null;
    if (length < 0 || at + length > body.length) throw corrupt(where, `field length is ${length}`);
    at += length;
    return body.subarray(at - length, at);
  };
  try {
    const key = bytes();
    const value = bytes();
    const count = body.readUInt16LE(at);
    at += 2;
    const headers: LogRecord["headers"] = count === 0 ? NO_HEADERS : {};
    for (let i = 0; i < count; i++) {
      const nameLength = body.readUInt16LE(at);
      const name = body.toString("utf8", at + 2, at + 2 + nameLength);
      at += 2 + nameLength;
      headers[name] = bytes() ?? undefined;
    }
    return { key, value, headers, timestamp: Number(body.readBigInt64LE(8)), offset: body.readBigInt64LE(0) };
  } catch (error) {
    if (error instanceof VexError) throw error;
    throw corrupt(where, "a field ends beyond its frame");
  }
}

function writeBytes(target: Buffer, at: number, bytes: Buffer | null): number {
  const end = target.writeInt32LE(bytes === null ? -1 : bytes.length, at);
  return bytes === null ? end : end + bytes.copy(target, end);
}

function corrupt(where: () => string, what: string): VexError {
  return new VexError("CORRUPT", `local log ${where()}: ${what}`);
}
