/**
 * Packs a LogBatch into what the core's `append` takes: the fetched buffers and a table of 100-byte
 * record entries that point into them (layout: schemas/records.md, "Batch table").
 *
 * Values are never copied or read: an entry names an ArrayBuffer of the fetch by index, a start and a
 * length. Buffers of one fetch share their ArrayBuffer, so the index is usually that of the record
 * before, and only a change costs a map look-up.
 *
 * Written through a Uint32Array (100 is a multiple of 4), which is little endian on every platform that
 * Node has builds for; the constructor check below refuses the others.
 */
import { type LogBatch, type LogRecord, NO_HEADERS } from "./source.ts";

export const RECORD_ENTRY_BYTES = 100;
const ENTRY_WORDS = RECORD_ENTRY_BYTES / 4;
const NULL_BUFFER = 0xffffffff;
const TWO_32 = 2 ** 32;
/** Words of the spans inside an entry. */
const KEY = 4;
const VALUE = 7;
const HEADERS: readonly (readonly [name: string, word: number])[] = [
  ["vexlake-format", 10],
  ["vexlake-attrs", 13],
  ["vexlake-op", 16],
  ["vexlake-event-time", 19],
  ["vexlake-write", 22],
];

if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) {
  throw new Error("VexLake needs a little-endian machine");
}

export interface PackedBatch {
  buffers: Uint8Array[];
  table: Uint8Array;
}

export function packBatch(batch: LogBatch): PackedBatch {
  const { records } = batch;
  const words = new Uint32Array(records.length * ENTRY_WORDS);
  const packer = new Packer(words);
  for (let i = 0; i < records.length; i++) packer.entry(i * ENTRY_WORDS, records[i] as LogRecord);
  return { buffers: packer.buffers, table: new Uint8Array(words.buffer) };
}

class Packer {
  readonly buffers: Uint8Array[] = [];
  readonly #words: Uint32Array;
  readonly #indexes = new Map<ArrayBufferLike, number>();
  #lastBuffer: ArrayBufferLike | null = null;
  #lastIndex = 0;

  constructor(words: Uint32Array) {
    this.#words = words;
  }

  entry(at: number, record: LogRecord): void {
    const words = this.#words;
    // Offsets and milliseconds stay below 2^53 for longer than any log lives, so doubles split exactly.
    const offset = Number(record.offset);
    words[at] = offset;
    words[at + 1] = Math.floor(offset / TWO_32);
    words[at + 2] = record.timestamp;
    words[at + 3] = Math.floor(record.timestamp / TWO_32);
    this.#span(at + KEY, record.key);
    this.#span(at + VALUE, record.value);
    const { headers } = record;
    if (headers === NO_HEADERS) {
      for (const [, word] of HEADERS) words[at + word] = NULL_BUFFER;
      return;
    }
    for (const [name, word] of HEADERS) this.#span(at + word, headers[name] ?? null);
  }

  #span(word: number, bytes: Buffer | null): void {
    const words = this.#words;
    if (bytes === null) {
      words[word] = NULL_BUFFER;
      return;
    }
    const buffer = bytes.buffer;
    words[word] = buffer === this.#lastBuffer ? this.#lastIndex : this.#indexOf(buffer);
    words[word + 1] = bytes.byteOffset;
    words[word + 2] = bytes.length;
  }

  #indexOf(buffer: ArrayBufferLike): number {
    let index = this.#indexes.get(buffer);
    if (index === undefined) {
      index = this.buffers.length;
      this.buffers.push(new Uint8Array(buffer));
      this.#indexes.set(buffer, index);
    }
    this.#lastBuffer = buffer;
    this.#lastIndex = index;
    return index;
  }
}
