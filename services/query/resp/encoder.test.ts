import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Encoder, type Protocol } from "./encoder.ts";

function written(protocol: Protocol, write: (out: Encoder) => void): string {
  const out = new Encoder();
  out.protocol = protocol;
  write(out);
  return out.take().toString("latin1");
}

const replies: [name: string, write: (out: Encoder) => void, resp2: string, resp3: string][] = [
  ["OK", (out) => out.ok(), "+OK\r\n", "+OK\r\n"],
  ["a simple string", (out) => out.simple("PONG"), "+PONG\r\n", "+PONG\r\n"],
  ["an error on one line", (out) => out.error("ERR", "a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"],
  ["a small integer", (out) => out.integer(7), ":7\r\n", ":7\r\n"],
  ["a negative integer", (out) => out.integer(-7), ":-7\r\n", ":-7\r\n"],
  [
    "a big integer",
    (out) => out.integer(2n ** 63n - 1n),
    ":9223372036854775807\r\n",
    ":9223372036854775807\r\n",
  ],
  ["a bulk string", (out) => out.bulk("é"), "$2\r\nÃ©\r\n", "$2\r\nÃ©\r\n"],
  ["bulk bytes", (out) => out.bulk(Buffer.from([13, 10])), "$2\r\n\r\n\r\n", "$2\r\n\r\n\r\n"],
  ["an empty bulk", (out) => out.bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"],
  ["null", (out) => out.nil(), "$-1\r\n", "_\r\n"],
  ["a null array", (out) => out.nilArray(), "*-1\r\n", "_\r\n"],
  ["true", (out) => out.bool(true), ":1\r\n", "#t\r\n"],
  ["false", (out) => out.bool(false), ":0\r\n", "#f\r\n"],
  ["a double", (out) => out.double(0.5), "$3\r\n0.5\r\n", ",0.5\r\n"],
  ["infinity", (out) => out.double(Number.POSITIVE_INFINITY), "$3\r\ninf\r\n", ",inf\r\n"],
  ["a double as text", (out) => out.doubleText(Buffer.from("1e-7")), "$4\r\n1e-7\r\n", ",1e-7\r\n"],
  ["an array header", (out) => out.array(2), "*2\r\n", "*2\r\n"],
  ["a map header", (out) => out.map(2), "*4\r\n", "%2\r\n"],
  ["a set header", (out) => out.set(2), "*2\r\n", "~2\r\n"],
  ["a text for people", (out) => out.verbatim("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"],
];

describe("Encoder", () => {
  for (const [name, write, resp2, resp3] of replies) {
    it(`should write ${name} in both protocols`, () => {
      expect(written(2, write)).toBe(resp2);
      expect(written(3, write)).toBe(resp3);
    });
  }

  it("should keep what was taken unchanged while more is written", () => {
    const out = new Encoder();
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 6000 }), { maxLength: 8 }), (values) => {
        const taken = values.map((value) => {
          out.bulk(value);
          return out.take();
        });
        for (const [i, value] of values.entries()) {
          const expected = Buffer.concat([Buffer.from(`$${value.length}\r\n`), value, Buffer.from("\r\n")]);
          expect(taken[i]?.equals(expected)).toBe(true);
        }
      }),
    );
  });
});
