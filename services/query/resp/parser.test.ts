import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ARGUMENTS_MAX,
  argumentBytes,
  argumentCount,
  BULK_BYTES_MAX,
  LINE_BYTES_MAX,
  ProtocolError,
  type Request,
  RequestParser,
} from "./parser.ts";

function words(request: Request): string[] {
  return Array.from({ length: argumentCount(request) }, (_, i) =>
    argumentBytes(request, i).toString("latin1"),
  );
}

function drain(parser: RequestParser): string[][] {
  const requests: string[][] = [];
  for (let request = parser.next(); request !== undefined; request = parser.next())
    requests.push(words(request));
  return requests;
}

function parseWhole(input: Buffer, options = {}): string[][] {
  const parser = new RequestParser(options);
  parser.push(Buffer.from(input));
  return drain(parser);
}

/** Pieces end at the given positions; words are read only at the end, when every buffer has moved on. */
function parsePieces(input: Buffer, cuts: number[], options = {}): string[][] {
  const parser = new RequestParser(options);
  const requests: Request[] = [];
  let from = 0;
  for (const to of [...cuts, input.length]) {
    parser.push(Buffer.from(input.subarray(from, to)));
    from = to;
    for (let request = parser.next(); request !== undefined; request = parser.next()) requests.push(request);
  }
  return requests.map(words);
}

function parseByteByByte(input: Buffer, options = {}): string[][] {
  return parsePieces(
    input,
    Array.from({ length: Math.max(0, input.length - 1) }, (_, i) => i + 1),
    options,
  );
}

function encode(args: (string | Buffer)[]): Buffer {
  return Buffer.concat([
    Buffer.from(`*${args.length}\r\n`),
    ...args.flatMap((arg) => {
      const bytes = Buffer.from(arg);
      return [Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n")];
    }),
  ]);
}

const complete: [name: string, input: string | Buffer, expected: string[][]][] = [
  ["one multibulk request", "*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", [["ECHO", "hi"]]],
  ["an empty argument", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", [["ECHO", ""]]],
  [
    "binary arguments with line breaks",
    encode(["A", Buffer.from([0, 13, 10, 255])]),
    [["A", "\x00\r\n\xff"]],
  ],
  ["several requests in one read", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPONG\r\n", [["PING"], ["PONG"]]],
  ["an inline request", "PING\r\n", [["PING"]]],
  ["an inline request that ends in a bare line feed", "PING hi\n", [["PING", "hi"]]],
  ["inline between multibulk", "*1\r\n$1\r\nA\r\nB c\r\n*1\r\n$1\r\nD\r\n", [["A"], ["B", "c"], ["D"]]],
  ["empty lines", "\r\n\n\r\nPING\r\n", [["PING"]]],
  ["blank lines", "   \r\nPING\r\n", [["PING"]]],
  ["empty and negative multibulk counts", "*0\r\n*-10\r\n*-1\r\nPING\r\n", [["PING"]]],
  ["double quotes", 'SET a "x y\\x41\\n\\q" \r\n', [["SET", "a", "x yA\nq"]]],
  ["single quotes", "SET a 'x \\n \\' y'\r\n", [["SET", "a", "x \\n ' y"]]],
  ["an empty quoted argument", 'ECHO ""\r\n', [["ECHO", ""]]],
  ["a quote that opens inside a word", 'ECHO a"b c"\r\n', [["ECHO", "ab c"]]],
  ["a broken hex escape as its letters", 'ECHO "\\xZ1"\r\n', [["ECHO", "xZ1"]]],
  ["text up to a NUL byte", "PING\x00 x\r\n", [["PING"]]],
  ["an incomplete request as nothing", "*2\r\n$4\r\nECHO\r\n$2\r\nh", []],
  ["an incomplete header as nothing", "*2", []],
  ["an incomplete inline request as nothing", "PIN", []],
];

const malformed: [name: string, input: string | Buffer, message: string][] = [
  ["a count out of range", "*3000000000\r\n", "Protocol error: invalid multibulk length"],
  ["a count above the limit", `*${ARGUMENTS_MAX + 1}\r\n`, "Protocol error: invalid multibulk length"],
  ["a count that is no number", "*x\r\n", "Protocol error: invalid multibulk length"],
  ["an empty count", "*\r\n", "Protocol error: invalid multibulk length"],
  ["a count with a plus sign", "*+1\r\n", "Protocol error: invalid multibulk length"],
  ["a count with a leading zero", "*01\r\n", "Protocol error: invalid multibulk length"],
  ["an argument without its type", "*1\r\nfoo\r\n", "Protocol error: expected '$', got 'f'"],
  ["a later argument without its type", "*2\r\n$1\r\nx\r\nfooz\r\n", "Protocol error: expected '$', got 'f'"],
  ["a negative length", "*1\r\n$-10\r\n", "Protocol error: invalid bulk length"],
  ["a length above the limit", `*1\r\n$${BULK_BYTES_MAX + 1}\r\n`, "Protocol error: invalid bulk length"],
  ["a length of many digits", `*1\r\n$${"9".repeat(40)}\r\n`, "Protocol error: invalid bulk length"],
  ["a length that is no number", "*1\r\n$blabla\r\n", "Protocol error: invalid bulk length"],
  ["quotes that stay open", 'set "a\r\n', "Protocol error: unbalanced quotes in request"],
  ["quotes closed inside a word", 'set """test-key""" x\r\n', "Protocol error: unbalanced quotes in request"],
  ["an endless inline request", "A".repeat(LINE_BYTES_MAX + 1), "Protocol error: too big inline request"],
  ["an endless count", `*${"1".repeat(LINE_BYTES_MAX + 1)}`, "Protocol error: too big mbulk count string"],
  [
    "an endless length",
    `*1\r\n$${"1".repeat(LINE_BYTES_MAX + 1)}`,
    "Protocol error: too big bulk count string",
  ],
];

describe("RequestParser", () => {
  for (const [name, input, expected] of complete) {
    it(`should read ${name}, whole and byte by byte`, () => {
      expect(parseWhole(Buffer.from(input as string, "latin1"))).toEqual(expected);
      expect(parseByteByByte(Buffer.from(input as string, "latin1"))).toEqual(expected);
    });
  }

  for (const [name, input, message] of malformed) {
    it(`should refuse ${name} with Redis's text, whole and byte by byte`, () => {
      const bytes = Buffer.from(input as string, "latin1");
      expect(() => parseWhole(bytes)).toThrow(new ProtocolError(message));
      expect(() => parseByteByByte(bytes)).toThrow(new ProtocolError(message));
    });
  }

  it("should refuse what an unauthenticated client may not send", () => {
    const options = { authenticated: () => false };
    expect(() => parseWhole(Buffer.from("*11\r\n"), options)).toThrow(
      "Protocol error: unauthenticated multibulk length",
    );
    expect(() => parseByteByByte(Buffer.from("*1\r\n$16385\r\n"), options)).toThrow(
      "Protocol error: unauthenticated bulk length",
    );
    expect(parseWhole(encode(["AUTH", "x".repeat(16_384)]), options)[0]?.[1]).toHaveLength(16_384);
  });

  it("should refuse an incomplete request that outgrows its buffer limit", () => {
    const parser = new RequestParser({ requestBytesMax: 1000 });
    parser.push(Buffer.from("*2\r\n$100000\r\n"));
    expect(parser.next()).toBeUndefined();
    parser.push(Buffer.alloc(1001));
    expect(() => parser.next()).toThrow("query buffer limit exceeded");
  });

  it("should still answer the requests that came before a malformed one", () => {
    const parser = new RequestParser();
    parser.push(Buffer.from("*1\r\n$4\r\nPING\r\n*x\r\n"));
    expect(words(parser.next() as Request)).toEqual(["PING"]);
    expect(() => parser.next()).toThrow(ProtocolError);
  });

  it("should not allocate what a client only announces", () => {
    const parser = new RequestParser();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 100; i += 1) {
      const announcing = new RequestParser();
      announcing.push(Buffer.from(`*1\r\n$${BULK_BYTES_MAX}\r\nx`));
      expect(announcing.next()).toBeUndefined();
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * 1024 * 1024);
    expect(parser.pendingBytes).toBe(0);
  });

  it("should read any requests back, however the bytes are cut", () => {
    const argument = fc.uint8Array({ maxLength: 40 });
    const request = fc.array(argument, { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(
        fc.array(request, { maxLength: 6 }),
        fc.array(fc.nat(400), { maxLength: 12 }),
        (sent, at) => {
          const input = Buffer.concat(sent.map((args) => encode(args.map((arg) => Buffer.from(arg)))));
          const cuts = at.map((cut) => cut % (input.length + 1)).sort((a, b) => a - b);
          const expected = sent.map((args) => args.map((arg) => Buffer.from(arg).toString("latin1")));
          expect(parsePieces(input, cuts)).toEqual(expected);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("should answer any bytes the same, whole and byte by byte, and throw nothing but ProtocolError", () => {
    const token = fc.constantFrom(
      "*",
      "$",
      "\r\n",
      "\n",
      "1",
      "3",
      "-1",
      "0",
      "PING",
      '"',
      "'",
      "\\",
      " ",
      "\0",
      "x",
    );
    const soup = fc.array(fc.oneof(token, fc.string({ maxLength: 3 })), { maxLength: 30 });
    const outcome = (run: () => string[][]): unknown => {
      try {
        return run();
      } catch (error) {
        expect(error).toBeInstanceOf(ProtocolError);
        return (error as Error).message;
      }
    };
    fc.assert(
      fc.property(soup, (tokens) => {
        const input = Buffer.from(tokens.join(""));
        expect(outcome(() => parseByteByByte(input))).toEqual(outcome(() => parseWhole(input)));
      }),
      { numRuns: 2000 },
    );
  });
});
