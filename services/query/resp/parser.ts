/**
 * Incremental parser of Redis requests (RESP multibulk and inline).
 *
 * Steps: bytes are pushed as they arrive; `next()` answers one request, or undefined while it is incomplete,
 * and remembers where it stood, so that a request that arrives byte by byte is scanned once, not once a byte.
 *
 * Invariants
 * - Incomplete is not an error; malformed is a `ProtocolError` with Redis's own text, after which the
 *   connection has to be closed: nothing is known about where the next request would start.
 * - An argument is a span of the request's frame, never a copy. The bytes of a frame that was handed out are
 *   never written again: when room is missing a new buffer is made, and the old one is left to its readers.
 * - No length that a client announces is ever allocated; the buffer only grows with bytes that really came,
 *   and is let go of when the last of them belongs to a complete request.
 * - As in Redis, the byte after a '\r' that ends a length, and the two bytes after a bulk, are skipped
 *   unseen.
 *
 * Left out on purpose: replies and RESP3 types (clients only send arrays of bulk strings).
 */
import { splitInline } from "./inline.ts";

/** Redis's PROTO_INLINE_MAX_SIZE: longest inline request and longest "*count" or "$length" line. */
export const LINE_BYTES_MAX = 64 * 1024;
/**
 * Most arguments of one request. Redis documents 1024 × 1024; the largest useful request is a VADD VALUES of
 * 65,536 numbers plus a dozen words, so this is 16 times what is needed.
 */
export const ARGUMENTS_MAX = 1024 * 1024;
/**
 * What Redis allows a client that has not authenticated: enough for AUTH, HELLO, and nothing that costs
 * memory.
 */
export const UNAUTHENTICATED_ARGUMENTS_MAX = 10;
export const UNAUTHENTICATED_BULK_BYTES_MAX = 16_384;
/**
 * Most bytes of one incomplete request (Redis: client-query-buffer-limit, 1 GiB). The largest useful request
 * is 65,536 numbers of ~30 bytes (2 MiB) plus 64 KiB of attributes; 64 MiB is 30 times that.
 */
export const REQUEST_BYTES_MAX = 64 * 1024 * 1024;
/** What Redis calls proto-max-bulk-len (512 MiB there): no argument is longer than its request. */
export const BULK_BYTES_MAX = REQUEST_BYTES_MAX;
/** First size of a buffer of our own: one read of a socket is rarely larger than 64 KiB. */
const BUFFER_BYTES_MIN = 16 * 1024;
const EMPTY = Buffer.alloc(0);

const CR = 0x0d;
const LF = 0x0a;
const STAR = 0x2a;
const DOLLAR = 0x24;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
/** Fifteen digits stay exact in a double; more can only be a length that is refused anyway. */
const LENGTH_DIGITS_MAX = 15;

/** One request: `spans` holds start and length of each argument inside `frame`. */
export interface Request {
  frame: Buffer;
  spans: number[];
}

/** How many arguments a request has, its name included. */
export function argumentCount(request: Request): number {
  return request.spans.length >> 1;
}

/** The bytes of one argument, as a view of the frame. */
export function argumentBytes(request: Request, index: number): Buffer {
  const start = request.spans[2 * index] as number;
  return request.frame.subarray(start, start + (request.spans[2 * index + 1] as number));
}

/** The request cannot be understood, and neither can anything after it. The message is Redis's. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

export interface RequestParserOptions {
  /** asked before each length is believed; a client that is not authenticated gets the smaller limits */
  authenticated?: () => boolean;
  requestBytesMax?: number;
}

export class RequestParser {
  readonly #authenticated: () => boolean;
  readonly #requestBytesMax: number;
  #buffer: Buffer = EMPTY;
  /** start of the unfinished request, next byte to look at, end of what has arrived */
  #begin = 0;
  #at = 0;
  #end = 0;
  /** where the search for the end of the current line goes on */
  #scan = 0;
  #argumentsLeft = 0;
  #bulkLength = -1;
  #spans: number[] = [];

  constructor(options: RequestParserOptions = {}) {
    this.#authenticated = options.authenticated ?? (() => true);
    this.#requestBytesMax = options.requestBytesMax ?? REQUEST_BYTES_MAX;
  }

  /** Bytes that have come and belong to no complete request yet. */
  get pendingBytes(): number {
    return this.#end - this.#begin;
  }

  /** Memory that is held for them. */
  get heldBytes(): number {
    return this.#buffer.length;
  }

  /** Takes the bytes of one read. The parser keeps the buffer; the caller must not write to it again. */
  push(chunk: Buffer): void {
    if (this.#begin === this.#end) {
      this.#buffer = chunk;
      this.#shift(this.#begin);
      this.#end = chunk.length;
      return;
    }
    const pending = this.#end - this.#begin;
    // A buffer that came from the socket ends where its bytes end, so the first append always moves to our
    // own.
    if (this.#end + chunk.length > this.#buffer.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(BUFFER_BYTES_MIN, 2 * (pending + chunk.length)));
      this.#buffer.copy(grown, 0, this.#begin, this.#end);
      this.#buffer = grown;
      this.#end = pending;
      this.#shift(this.#begin);
    }
    chunk.copy(this.#buffer, this.#end);
    this.#end += chunk.length;
  }

  /** The next complete request, or undefined until more bytes come. Throws ProtocolError. */
  next(): Request | undefined {
    while (this.#begin < this.#end) {
      const inRequest = this.#argumentsLeft > 0;
      if (!inRequest && this.#buffer[this.#begin] !== STAR) {
        const request = this.#inline();
        if (request === undefined) return undefined;
        if (request.spans.length > 0) return request;
        continue;
      }
      if (!inRequest && !this.#header()) return undefined;
      if (this.#argumentsLeft === 0) continue; // "*0" and negative counts are skipped without an answer
      if (!this.#bulks()) {
        this.#checkPending();
        return undefined;
      }
      const request = { frame: this.#buffer.subarray(this.#begin, this.#at), spans: this.#spans };
      this.#spans = [];
      this.#finish(this.#at);
      return request;
    }
    return undefined;
  }

  /** Reads "*count\r\n". False while the line is incomplete. */
  #header(): boolean {
    const count = this.#length("too big mbulk count string");
    if (count === undefined) return false;
    if (Number.isNaN(count) || count > ARGUMENTS_MAX) {
      throw new ProtocolError("Protocol error: invalid multibulk length");
    }
    if (count > UNAUTHENTICATED_ARGUMENTS_MAX && !this.#authenticated()) {
      throw new ProtocolError("Protocol error: unauthenticated multibulk length");
    }
    if (count <= 0) {
      this.#finish(this.#at);
      return true;
    }
    this.#argumentsLeft = count;
    this.#bulkLength = -1;
    return true;
  }

  /** Reads the arguments that are missing. False while one is incomplete. */
  #bulks(): boolean {
    while (this.#argumentsLeft > 0) {
      if (this.#bulkLength === -1) {
        const length = this.#length("too big bulk count string", DOLLAR);
        if (length === undefined) return false;
        if (Number.isNaN(length) || length < 0 || length > BULK_BYTES_MAX) {
          throw new ProtocolError("Protocol error: invalid bulk length");
        }
        if (length > UNAUTHENTICATED_BULK_BYTES_MAX && !this.#authenticated()) {
          throw new ProtocolError("Protocol error: unauthenticated bulk length");
        }
        this.#bulkLength = length;
      }
      if (this.#end - this.#at < this.#bulkLength + 2) return false;
      this.#spans.push(this.#at - this.#begin, this.#bulkLength);
      this.#at += this.#bulkLength + 2;
      this.#scan = this.#at;
      this.#bulkLength = -1;
      this.#argumentsLeft -= 1;
    }
    return true;
  }

  /**
   * Reads a type byte, a decimal integer and "\r\n". Undefined while incomplete, NaN when it is no integer as
   * Redis writes them: no sign but '-', no leading zero, no blank.
   */
  #length(tooBig: string, type?: number): number | undefined {
    const buffer = this.#buffer;
    let stop = this.#scan;
    while (stop < this.#end && buffer[stop] !== CR) stop += 1;
    this.#scan = stop;
    if (stop + 1 >= this.#end) {
      if (this.#end - this.#at > LINE_BYTES_MAX) throw new ProtocolError(`Protocol error: ${tooBig}`);
      return undefined;
    }
    if (type !== undefined && buffer[this.#at] !== type) {
      const got = String.fromCharCode(buffer[this.#at] as number);
      throw new ProtocolError(`Protocol error: expected '${String.fromCharCode(type)}', got '${got}'`);
    }
    const value = parseLength(buffer, this.#at + 1, stop);
    this.#at = stop + 2;
    this.#scan = this.#at;
    return value;
  }

  /**
   * Reads one line and splits it as a shell would. Undefined while incomplete; no spans for an empty line.
   */
  #inline(): Request | undefined {
    const buffer = this.#buffer;
    let stop = this.#scan;
    while (stop < this.#end && buffer[stop] !== LF) stop += 1;
    this.#scan = stop;
    if (stop === this.#end) {
      if (this.#end - this.#begin > LINE_BYTES_MAX) {
        throw new ProtocolError("Protocol error: too big inline request");
      }
      return undefined;
    }
    const textEnd = stop > this.#begin && buffer[stop - 1] === CR ? stop - 1 : stop;
    const request = splitInline(buffer.subarray(this.#begin, textEnd));
    if (request === undefined) throw new ProtocolError("Protocol error: unbalanced quotes in request");
    this.#finish(stop + 1);
    return request;
  }

  #checkPending(): void {
    if (this.pendingBytes > this.#requestBytesMax) {
      throw new ProtocolError("Protocol error: query buffer limit exceeded");
    }
  }

  /** The next request starts at `position`. Without one nothing is kept: an idle client costs no buffer. */
  #finish(position: number): void {
    if (position === this.#end) {
      this.#buffer = EMPTY;
      this.#end = 0;
      position = 0;
    }
    this.#begin = position;
    this.#at = position;
    this.#scan = position;
    this.#argumentsLeft = 0;
    this.#bulkLength = -1;
  }

  /** The buffer was replaced by one that starts `by` bytes later. */
  #shift(by: number): void {
    this.#begin -= by;
    this.#at -= by;
    this.#scan -= by;
  }
}

function parseLength(buffer: Buffer, from: number, to: number): number {
  const negative = from < to && buffer[from] === MINUS;
  const first = negative ? from + 1 : from;
  const digits = to - first;
  if (digits < 1 || digits > LENGTH_DIGITS_MAX) return Number.NaN;
  if (buffer[first] === ZERO && (digits > 1 || negative)) return Number.NaN;
  let value = 0;
  for (let at = first; at < to; at += 1) {
    const byte = buffer[at] as number;
    if (byte < ZERO || byte > NINE) return Number.NaN;
    value = value * 10 + (byte - ZERO);
  }
  return negative ? -value : value;
}
