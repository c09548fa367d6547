/**
 * One partition of the local log: append with group commit, read what is synced.
 *
 * Append: messages that arrive while a group is on its way form the next one. A group is written at the
 * end of the newest segment, then fdatasync'ed; only then its offsets are acknowledged and readers see
 * it. A full segment is followed by a new one, whose name is made durable (fsync of the directory)
 * before a record goes in.
 *
 * Failure: when the write fails (disk full) the file is cut back to its synced size and the writers get
 * a plain error. When the cut or an fsync fails, what the disk holds is unknown: those writes are in
 * doubt and the partition refuses appends until the log is opened again. Reads go on.
 *
 * Invariants: offsets adjoin; timestamps never decrease; a reader never sees a byte before its fsync.
 */
import { type FileHandle, mkdir, open, readdir, rm } from "node:fs/promises";
import { VexError } from "../../process/error.ts";
import type { LogBatch, OffsetAtTime, PartitionRange, ProducedMessage, ProducedOffset } from "../source.ts";
import { frameBytes, writeFrame } from "./frame.ts";
import { GROUP_BYTES_MAX, type Recovered, recoverSegment } from "./recover.ts";
import {
  FILE_HEADER_BYTES,
  fileHeader,
  findPosition,
  INDEX_BYTES,
  noteIndex,
  readStretch,
  type Segment,
  segmentPath,
  syncDirectory,
  walk,
} from "./segment.ts";

/** Opening reads and checks the newest segment: 64 MiB take ~0.1 s. */
export const SEGMENT_BYTES_MAX = 64 * 1024 * 1024;
/** Appends that wait for the disk; beyond, writes are refused: eight groups. */
export const PENDING_BYTES_MAX = 8 * GROUP_BYTES_MAX;

interface Pending {
  messages: ProducedMessage[];
  bytes: number;
  resolve: (offsets: ProducedOffset[]) => void;
  reject: (error: VexError) => void;
}

/** Where a reader stands; it finds its place again by offset when the position is unknown. */
export interface Cursor {
  offset: bigint;
  base: bigint | null;
  position: number;
}

export interface PartitionOptions {
  now: () => number;
  segmentBytesMax?: number;
  /** A torn end was cut; its bytes lie at `kept` now. */
  onTornTail: (kept: string, bytes: number) => void;
}

export class LocalPartition {
  readonly partition: number;
  readonly #directory: string;
  readonly #options: PartitionOptions;
  readonly #segments: Segment[];
  #handle: FileHandle;
  #next: bigint;
  #timestamp: number;
  #pending: Pending[] = [];
  #pendingBytes = 0;
  #writing: Promise<void> | null = null;
  #broken: VexError | null = null;
  #closed = false;
  #watchers = new Set<() => void>();

  private constructor(
    partition: number,
    directory: string,
    options: PartitionOptions,
    segments: Segment[],
    handle: FileHandle,
    recovered: Recovered,
  ) {
    this.partition = partition;
    this.#directory = directory;
    this.#options = options;
    this.#segments = segments;
    this.#handle = handle;
    this.#next = recovered.next;
    this.#timestamp = recovered.timestamp ?? 0;
  }

  static async open(
    partition: number,
    directory: string,
    options: PartitionOptions,
  ): Promise<LocalPartition> {
    await mkdir(directory, { recursive: true });
    const bases = (await readdir(directory))
      .filter((name) => /^\d{20}\.log$/.test(name))
      .map((name) => BigInt(name.slice(0, 20)))
      .sort((a, b) => (a < b ? -1 : 1));
    if (bases.length === 0) bases.push(await createSegment(directory, 0n));
    const segments = await Promise.all(bases.map((base) => openSegment(directory, base)));
    const newest = segments.at(-1) as Segment;
    const recovered = await recoverSegment(newest);
    if (recovered.torn) options.onTornTail(recovered.torn.kept, recovered.torn.bytes);
    // An empty newest segment takes the clock's floor from the records before it.
    const before = segments.at(-2);
    if (recovered.timestamp === null && before) {
      await walk(before, ({ timestamp }) => {
        recovered.timestamp = timestamp;
        return true;
      });
    }
    return new LocalPartition(
      partition,
      directory,
      options,
      segments,
      await open(newest.path, "r+"),
      recovered,
    );
  }

  get range(): PartitionRange {
    return { partition: this.partition, low: (this.#segments[0] as Segment).base, high: this.#next };
  }

  append(messages: ProducedMessage[]): Promise<ProducedOffset[]> {
    const sizes = messages.map(frameBytes);
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    const refusal = this.#refusal(bytes);
    if (refusal) return Promise.reject(refusal);
    // A group is the unit that a crash may cut; a call larger than that is several groups in a row.
    if (bytes > GROUP_BYTES_MAX) return this.#appendParts(messages, sizes);
    return new Promise((resolve, reject) => {
      this.#pending.push({ messages, bytes, resolve, reject });
      this.#pendingBytes += bytes;
      this.#writing ??= this.#write();
    });
  }

  /** The stretch at the cursor, which moves behind it; null at the end. */
  async read(cursor: Cursor): Promise<LogBatch | null> {
    if (cursor.offset >= this.#next) return null;
    const segment = this.#segments.findLast(({ base }) => base <= cursor.offset);
    if (!segment) {
      const message = `local log ${this.#directory} starts at ${this.range.low}, after offset ${cursor.offset}`;
      throw new VexError("NOT_FOUND", message);
    }
    if (cursor.base !== segment.base) {
      cursor.position = await findPosition(segment, cursor.offset);
      cursor.base = segment.base;
    }
    const { records, position } = await readStretch(segment, cursor.position);
    const last = records.at(-1);
    if (!last) {
      const message = `local log ${segment.path}: offset ${cursor.offset} is missing, the next segment starts behind it`;
      throw new VexError("CORRUPT", message, { fields: { path: segment.path } });
    }
    const from = cursor.offset;
    cursor.position = position;
    cursor.offset = last.offset + 1n;
    return { partition: this.partition, from, to: cursor.offset, records };
  }

  /** First offset at or after the time. */
  async offsetAt(timeMs: number): Promise<OffsetAtTime> {
    const { range } = this;
    for (const [place, segment] of this.#segments.entries()) {
      // Timestamps never decrease: one read of the next segment may save reading all of this one.
      const next = this.#segments[place + 1];
      const [after] = next ? (await readStretch(next, FILE_HEADER_BYTES, INDEX_BYTES)).records : [];
      if (after && after.timestamp < timeMs) continue;
      let found: bigint | null = null;
      await walk(segment, ({ timestamp, offset }) => {
        if (timestamp >= timeMs) found = offset;
        return found === null;
      });
      if (found !== null) return { ...range, offset: found };
    }
    return { ...range, offset: range.high };
  }

  /** Calls `changed` after each synced group until the returned function is called. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    return () => this.#watchers.delete(changed);
  }

  /** Writes what is pending, then closes. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#writing;
    await this.#handle.close();
  }

  #refusal(bytes: number): VexError | null {
    if (this.#closed) return new VexError("UNAVAILABLE", "the local log is closed");
    if (this.#broken) return this.#broken;
    if (this.#pending.length > 0 && this.#pendingBytes + bytes > PENDING_BYTES_MAX) {
      return new VexError(
        "UNAVAILABLE",
        `${this.#pendingBytes} bytes wait for the disk already; nothing was written`,
      );
    }
    return null;
  }

  async #appendParts(messages: ProducedMessage[], sizes: number[]): Promise<ProducedOffset[]> {
    const offsets: ProducedOffset[] = [];
    for (let start = 0; start < messages.length; ) {
      let end = start;
      for (let bytes = 0; end < messages.length; end++) {
        bytes += sizes[end] as number;
        if (end > start && bytes > GROUP_BYTES_MAX) break;
      }
      try {
        offsets.push(...(await this.append(messages.slice(start, end))));
      } catch (error) {
        throw start === 0 ? error : partlyWritten(this.#directory, error);
      }
      start = end;
    }
    return offsets;
  }

  async #write(): Promise<void> {
    // Appends of one turn of the event loop share a group.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const group = this.#takeGroup();
      try {
        if (this.#broken) throw this.#broken;
        await this.#writeGroup(group);
      } catch (error) {
        const failure = error instanceof VexError ? error : notWritten(error);
        for (const { reject } of group) reject(failure);
      }
    }
    // In the same turn as the check above: the next append starts the writer again.
    this.#writing = null;
  }

  #takeGroup(): Pending[] {
    let bytes = 0;
    let count = 0;
    for (const pending of this.#pending) {
      bytes += pending.bytes;
      if (count > 0 && bytes > GROUP_BYTES_MAX) break;
      count += 1;
    }
    const group = this.#pending.splice(0, count);
    for (const pending of group) this.#pendingBytes -= pending.bytes;
    return group;
  }

  async #writeGroup(group: Pending[]): Promise<void> {
    const segment = await this.#roomy();
    const bytes = group.reduce((sum, pending) => sum + pending.bytes, 0);
    const buffer = Buffer.allocUnsafe(bytes);
    // The log's own clock: it never runs backwards inside a partition.
    const timestamp = Math.max(this.#options.now(), this.#timestamp);
    const entries: [bigint, number][] = [];
    let at = 0;
    let offset = this.#next;
    const answers = group.map(({ messages }) =>
      messages.map((message) => {
        entries.push([offset, segment.size + at]);
        at = writeFrame(buffer, at, message, { offset, timestamp, group: segment.size });
        offset += 1n;
        return { partition: this.partition, offset: offset - 1n };
      }),
    );
    await this.#persist(segment, buffer);
    segment.size += bytes;
    if (segment.index) for (const [first, position] of entries) noteIndex(segment.index, first, position);
    this.#timestamp = timestamp;
    this.#next = offset;
    group.forEach(({ resolve }, index) => {
      resolve(answers[index] as ProducedOffset[]);
    });
    for (const changed of this.#watchers) changed();
  }

  async #persist(segment: Segment, buffer: Buffer): Promise<void> {
    try {
      for (let written = 0; written < buffer.length; ) {
        const { bytesWritten } = await this.#handle.write(
          buffer,
          written,
          buffer.length - written,
          segment.size + written,
        );
        written += bytesWritten;
      }
    } catch (error) {
      await this.#cutBack(segment, error);
      throw notWritten(error);
    }
    try {
      await this.#handle.datasync();
    } catch (error) {
      throw this.#breaks("fsync failed", error);
    }
  }

  async #cutBack(segment: Segment, cause: unknown): Promise<void> {
    try {
      await this.#handle.truncate(segment.size);
      await this.#handle.datasync();
    } catch (error) {
      throw this.#breaks(`cannot cut back after ${(cause as Error).message}`, error);
    }
  }

  #breaks(what: string, cause: unknown): VexError {
    const message = `write to the local log in doubt, ${what} (${this.#directory}); open the log again`;
    this.#broken = new VexError("UNAVAILABLE", `local log refuses writes: ${what}`, {
      cause,
      retriable: false,
    });
    return new VexError("UNAVAILABLE", message, { cause, retriable: false, fields: { doubt: true } });
  }

  async #roomy(): Promise<Segment> {
    const newest = this.#segments.at(-1) as Segment;
    if (newest.size < (this.#options.segmentBytesMax ?? SEGMENT_BYTES_MAX)) return newest;
    await createSegment(this.#directory, this.#next);
    const segment = await openSegment(this.#directory, this.#next);
    segment.index = [];
    const handle = await open(segment.path, "r+");
    await this.#handle.close();
    this.#handle = handle;
    this.#segments.push(segment);
    return segment;
  }
}

/** A failed write of which another part is durable: what failed of it does not make the whole certain. */
export function partlyWritten(what: string, cause: unknown): VexError {
  const message = `write to ${what} in doubt, a part of it is written: ${(cause as Error).message}`;
  return new VexError("UNAVAILABLE", message, { cause, retriable: false, fields: { doubt: true } });
}

function notWritten(cause: unknown): VexError {
  return new VexError("UNAVAILABLE", `nothing was written to the local log: ${(cause as Error).message}`, {
    cause,
  });
}

async function openSegment(directory: string, base: bigint): Promise<Segment> {
  const path = segmentPath(directory, base);
  const handle = await open(path, "r");
  try {
    return { base, path, size: (await handle.stat()).size, index: null };
  } finally {
    await handle.close();
  }
}

/** A file with a synced header under a durable name; one that a failed try left is replaced. */
async function createSegment(directory: string, base: bigint): Promise<bigint> {
  const path = segmentPath(directory, base);
  await rm(path, { force: true });
  const handle = await open(path, "wx");
  try {
    await handle.write(fileHeader(base), 0, FILE_HEADER_BYTES, 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(directory);
  return base;
}
