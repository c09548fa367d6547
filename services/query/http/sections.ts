/**
 * The top-level fields of a JSON object as byte ranges, so that a vector inside a body reaches the engine as
 * it was sent: its numbers are never parsed here. Small fields are read with JSON.parse from their own bytes.
 *
 * Only structure is looked at: strings with their escapes, and brackets outside of strings. What stands
 * inside a value is judged by whoever parses it. A field given twice is refused, because two readers could
 * take different ones.
 */
import { ReplyError } from "../errors.ts";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
/** Fields of one body: ours have at most a dozen. */
const FIELDS_MAX = 64;

export type Sections = ReadonlyMap<string, Buffer>;

export function readSections(body: Buffer): Sections {
  const sections = new Map<string, Buffer>();
  let at = skipBlanks(body, 0);
  if (body[at] !== OPEN_OBJECT) throw malformed("a JSON object is expected");
  at = skipBlanks(body, at + 1);
  if (body[at] === CLOSE_OBJECT) return finish(body, at, sections);
  while (true) {
    if (body[at] !== QUOTE) throw malformed(`a field name is expected at byte ${at}`);
    const nameEnd = stringEnd(body, at);
    const name = parse<string>(body.subarray(at, nameEnd));
    at = skipBlanks(body, nameEnd);
    if (body[at] !== COLON) throw malformed(`a colon is expected at byte ${at}`);
    at = skipBlanks(body, at + 1);
    const end = valueEnd(body, at);
    if (sections.has(name)) throw malformed(`field ${name} is given twice`);
    if (sections.size === FIELDS_MAX) throw malformed(`more than ${FIELDS_MAX} fields`);
    sections.set(name, body.subarray(at, end));
    at = skipBlanks(body, end);
    if (body[at] === CLOSE_OBJECT) return finish(body, at, sections);
    if (body[at] !== COMMA) throw malformed(`a comma is expected at byte ${at}`);
    at = skipBlanks(body, at + 1);
  }
}

/** The value of a small field, parsed. */
export function parse<T>(bytes: Buffer): T {
  try {
    return JSON.parse(bytes.toString()) as T;
  } catch {
    const shown = bytes.toString("utf8", 0, 40);
    throw malformed(`${shown} is not JSON`);
  }
}

function finish(body: Buffer, close: number, sections: Map<string, Buffer>): Sections {
  if (skipBlanks(body, close + 1) !== body.length) throw malformed("something follows the JSON object");
  return sections;
}

/** One past the value that starts at `at`. */
function valueEnd(body: Buffer, at: number): number {
  const first = body[at];
  if (first === QUOTE) return stringEnd(body, at);
  if (first === OPEN_OBJECT || first === OPEN_LIST) return nestedEnd(body, at);
  let end = at;
  while (end < body.length && !endsScalar(body[end] as number)) end += 1;
  if (end === at) throw malformed(`a value is expected at byte ${at}`);
  return end;
}

function nestedEnd(body: Buffer, start: number): number {
  let depth = 0;
  for (let at = start; at < body.length; at += 1) {
    const byte = body[at];
    if (byte === QUOTE) at = stringEnd(body, at) - 1;
    else if (byte === OPEN_OBJECT || byte === OPEN_LIST) depth += 1;
    else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
      depth -= 1;
      if (depth === 0) return at + 1;
    }
  }
  throw malformed("the JSON object ends early");
}

function stringEnd(body: Buffer, start: number): number {
  for (let at = start + 1; at < body.length; at += 1) {
    if (body[at] === BACKSLASH) at += 1;
    else if (body[at] === QUOTE) return at + 1;
  }
  throw malformed("a string is not closed");
}

function endsScalar(byte: number): boolean {
  return byte === COMMA || byte === CLOSE_OBJECT || byte === CLOSE_LIST || isBlank(byte);
}

function skipBlanks(body: Buffer, from: number): number {
  let at = from;
  while (at < body.length && isBlank(body[at] as number)) at += 1;
  return at;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function malformed(why: string): ReplyError {
  return new ReplyError("ERR", `body is malformed: ${why}`);
}
