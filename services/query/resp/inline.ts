/**
 * Splits an inline request into arguments by Redis's rules (sdssplitargs): blanks separate, "double quotes"
 * know \xHH \n \r \t \b \a and \<any>, 'single quotes' know only \', and a closing quote must be followed by
 * a blank or the end. A quote may open in the middle of a word. As in C, a NUL byte ends the text.
 */
import type { Request } from "./parser.ts";

const DOUBLE = 0x22;
const SINGLE = 0x27;
const BACKSLASH = 0x5c;
const ESCAPES = new Map<number, number>([
  [0x6e, 0x0a], // \n
  [0x72, 0x0d], // \r
  [0x74, 0x09], // \t
  [0x62, 0x08], // \b
  [0x61, 0x07], // \a
]);

/** The arguments as spans of a frame of their own; undefined when a quote is not closed as it must be. */
export function splitInline(line: Buffer): Request | undefined {
  const nul = line.indexOf(0);
  const text = nul === -1 ? line : line.subarray(0, nul);
  // Unescaping only ever shortens, so the arguments together fit into the length of the line.
  const frame = Buffer.allocUnsafe(text.length);
  const spans: number[] = [];
  let at = 0;
  let filled = 0;
  while (true) {
    while (at < text.length && isSpace(text[at] as number)) at += 1;
    if (at === text.length) return { frame: frame.subarray(0, filled), spans };
    const start = filled;
    let open = 0;
    for (; ; at += 1) {
      if (at === text.length) {
        if (open !== 0) return undefined;
        break;
      }
      const byte = text[at] as number;
      if (open === 0) {
        if (isSeparator(byte)) break;
        if (byte === DOUBLE || byte === SINGLE) open = byte;
        else frame[filled++] = byte;
      } else if (byte === open) {
        if (at + 1 < text.length && !isSpace(text[at + 1] as number)) return undefined;
        at += 1;
        break;
      } else if (byte === BACKSLASH && at + 1 < text.length) {
        const escaped = open === DOUBLE ? takeEscape(text, at) : takeSingleEscape(text, at);
        frame[filled++] = escaped.byte;
        at += escaped.skip;
      } else {
        frame[filled++] = byte;
      }
    }
    spans.push(start, filled - start);
  }
}

/** The byte that a backslash at `at` stands for, and how many bytes after the backslash it used. */
function takeEscape(text: Buffer, at: number): { byte: number; skip: number } {
  const next = text[at + 1] as number;
  if (next === 0x78 && at + 3 < text.length) {
    const high = hexDigit(text[at + 2] as number);
    const low = hexDigit(text[at + 3] as number);
    if (high >= 0 && low >= 0) return { byte: high * 16 + low, skip: 3 };
  }
  return { byte: ESCAPES.get(next) ?? next, skip: 1 };
}

function takeSingleEscape(text: Buffer, at: number): { byte: number; skip: number } {
  return text[at + 1] === SINGLE ? { byte: SINGLE, skip: 1 } : { byte: BACKSLASH, skip: 0 };
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** C's isspace in the "C" locale. */
function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** What ends an unquoted word: as in Redis fewer bytes than isspace knows (\v and \f belong to the word). */
function isSeparator(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
