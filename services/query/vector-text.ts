/**
 * Vectors written as text, handled as bytes. Numbers are never read here: the engine does that. What is done
 * here is looking at bytes, so that a text can be put into a JSON record without changing what the record
 * says.
 *
 * A text vector is one JSON array of plain numbers: brackets, digits, signs, dots, exponents, commas, blanks;
 * a number of VALUES has the same bytes without brackets, commas and blanks. As no other byte is let through,
 * nothing can close the array early and add fields to the record.
 */
const OPEN = 0x5b;
const CLOSE = 0x5d;
const COMMA = 0x2c;
const PLUS = 0x2b;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const PREFIX = Buffer.from('{"vector":');
const SUFFIX = Buffer.from("}");

/** How many numbers a text vector has, or undefined when it is not an array of numbers by its bytes. */
export function countNumbers(text: Uint8Array): number | undefined {
  let from = 0;
  let to = text.length;
  while (from < to && isBlank(text[from] as number)) from += 1;
  while (to > from && isBlank(text[to - 1] as number)) to -= 1;
  if (to - from < 3 || text[from] !== OPEN || text[to - 1] !== CLOSE) return undefined;
  let numbers = 1;
  let digits = 0;
  for (let at = from + 1; at < to - 1; at += 1) {
    const byte = text[at] as number;
    if (byte === COMMA) {
      if (digits === 0) return undefined;
      numbers += 1;
      digits = 0;
    } else if (isDigit(byte)) {
      digits += 1;
    } else if (!isBlank(byte) && !isNumberMark(byte)) {
      return undefined;
    }
  }
  return digits === 0 ? undefined : numbers;
}

/** The value of a JSON record with a vector that is text already. */
export function recordFromText(text: Uint8Array): Buffer {
  return Buffer.concat([PREFIX, text, SUFFIX]);
}

/**
 * The value of a JSON record from VALUES; undefined when one of them has other bytes than a number. Whether
 * they are numbers is for the engine to say, which checks the vector before the record is put into the log.
 */
export function recordFromValues(frame: Uint8Array, spans: Uint32Array): Buffer | undefined {
  let bytes = PREFIX.length + SUFFIX.length + 2;
  for (let i = 1; i < spans.length; i += 2) bytes += (spans[i] as number) + 1;
  const body = Buffer.allocUnsafe(bytes);
  let at = PREFIX.copy(body);
  body[at++] = OPEN;
  for (let i = 0; i < spans.length; i += 2) {
    if (i > 0) body[at++] = COMMA;
    const start = spans[i] as number;
    const end = start + (spans[i + 1] as number);
    if (start === end) return undefined;
    for (let read = start; read < end; read += 1) {
      const byte = frame[read] as number;
      if (!isDigit(byte) && !isNumberMark(byte)) return undefined;
      body[at++] = byte;
    }
  }
  body[at++] = CLOSE;
  at += SUFFIX.copy(body, at);
  return body.subarray(0, at);
}

function isDigit(byte: number): boolean {
  return byte >= ZERO && byte <= NINE;
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** What stands in a JSON number beside digits: + - . e E */
function isNumberMark(byte: number): boolean {
  return byte === PLUS || byte === MINUS || byte === DOT || byte === 0x65 || byte === 0x45;
}
