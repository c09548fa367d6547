/**
 * Writes replies in RESP2 or RESP3 into one growing buffer, which the connection takes and sends.
 *
 * The protocol is a property of the connection and may change with HELLO between two replies; what a command
 * says (a map, a double, a boolean, null) stays the same, and this file alone knows how each protocol writes
 * it, as Redis's addReply* functions do.
 */

/** First size; most replies are a few bytes, a VSIM of 10 is ~300. */
const BUFFER_BYTES_MIN = 4 * 1024;
/**
 * A buffer larger than this is not kept for the next reply: one large answer must not stay in memory for
 * ever.
 */
const BUFFER_BYTES_KEPT = 64 * 1024;
/** Integers up to here have their reply line prepared: counts and lengths are small. */
const PREPARED_MAX = 1024;

export type Protocol = 2 | 3;

const OK = Buffer.from("+OK\r\n");
const CRLF = Buffer.from("\r\n");
const PREPARED = new Map(["*", "$", ":", "%"].map((type) => [type, prepare(type)]));

export class Encoder {
  protocol: Protocol = 2;
  #buffer: Buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES_MIN);
  #length = 0;

  /** Bytes written and not taken yet. */
  get length(): number {
    return this.#length;
  }

  /** Everything written since the last take; the caller owns it. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#length);
    const left = this.#buffer.length - this.#length;
    // The rest of the buffer serves the next replies; the socket only reads what was taken.
    this.#buffer =
      left >= BUFFER_BYTES_MIN / 4 && this.#buffer.length <= BUFFER_BYTES_KEPT
        ? this.#buffer.subarray(this.#length)
        : Buffer.allocUnsafeSlow(BUFFER_BYTES_MIN);
    this.#length = 0;
    return taken;
  }

  ok(): void {
    this.raw(OK);
  }

  simple(text: string): void {
    this.#line("+", text);
  }

  /** `-CODE message`; line breaks would end the reply early, so they become blanks as in Redis. */
  error(code: string, message: string): void {
    this.#line("-", `${code} ${message}`.replace(/[\r\n]/g, " "));
  }

  integer(value: number | bigint): void {
    this.#header(":", value);
  }

  bulk(value: Uint8Array | string): void {
    if (typeof value === "string") {
      const bytes = Buffer.byteLength(value);
      this.#header("$", bytes);
      this.#reserve(bytes + 2);
      this.#length += this.#buffer.write(value, this.#length);
    } else {
      this.#header("$", value.length);
      this.#reserve(value.length + 2);
      this.#buffer.set(value, this.#length);
      this.#length += value.length;
    }
    this.raw(CRLF);
  }

  /** A text for people: RESP3 marks it as plain text. */
  verbatim(text: string): void {
    if (this.protocol === 2) {
      this.bulk(text);
      return;
    }
    this.#header("=", Buffer.byteLength(text) + 4);
    this.#text(`txt:${text}\r\n`);
  }

  nil(): void {
    this.#text(this.protocol === 2 ? "$-1\r\n" : "_\r\n");
  }

  nilArray(): void {
    this.#text(this.protocol === 2 ? "*-1\r\n" : "_\r\n");
  }

  bool(value: boolean): void {
    if (this.protocol === 2) this.integer(value ? 1 : 0);
    else this.#text(value ? "#t\r\n" : "#f\r\n");
  }

  /** A number in its shortest exact form. */
  double(value: number): void {
    const text =
      value === Number.POSITIVE_INFINITY
        ? "inf"
        : value === Number.NEGATIVE_INFINITY
          ? "-inf"
          : Number.isNaN(value)
            ? "nan"
            : String(value);
    if (this.protocol === 2) this.bulk(text);
    else this.#line(",", text);
  }

  /** A number that is text already: the core writes the floats of vectors, JavaScript never reads them. */
  doubleText(text: Uint8Array): void {
    if (this.protocol === 2) {
      this.bulk(text);
      return;
    }
    this.#reserve(text.length + 3);
    this.#buffer[this.#length++] = 0x2c;
    this.#buffer.set(text, this.#length);
    this.#length += text.length;
    this.raw(CRLF);
  }

  array(count: number): void {
    this.#header("*", count);
  }

  /** A map of `pairs` entries; RESP2 has a flat array of twice as many. */
  map(pairs: number): void {
    if (this.protocol === 2) this.#header("*", 2 * pairs);
    else this.#header("%", pairs);
  }

  set(count: number): void {
    this.#header(this.protocol === 2 ? "*" : "~", count);
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #header(type: string, value: number | bigint): void {
    const prepared =
      typeof value === "number" && value >= 0 && value <= PREPARED_MAX
        ? PREPARED.get(type)?.[value]
        : undefined;
    if (prepared !== undefined) this.raw(prepared);
    else this.#line(type, String(value));
  }

  #line(type: string, text: string): void {
    this.#text(`${type}${text}\r\n`);
  }

  #text(text: string): void {
    // Three bytes is the most that one UTF-16 unit takes in UTF-8.
    this.#reserve(3 * text.length);
    this.#length += this.#buffer.write(text, this.#length);
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#buffer.length, BUFFER_BYTES_MIN));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

function prepare(type: string): Buffer[] {
  return Array.from({ length: PREPARED_MAX + 1 }, (_, value) => Buffer.from(`${type}${value}\r\n`));
}
