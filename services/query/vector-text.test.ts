import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countNumbers, recordFromText, recordFromValues } from "./vector-text.ts";

function fromValues(...values: string[]): string | undefined {
  const spans: number[] = [];
  let at = 0;
  for (const value of values) {
    spans.push(at, value.length);
    at += value.length;
  }
  return recordFromValues(Buffer.from(values.join("")), Uint32Array.from(spans))?.toString();
}

describe("countNumbers", () => {
  it("should count what may be an array of numbers", () => {
    expect(countNumbers(Buffer.from("[1]"))).toBe(1);
    expect(countNumbers(Buffer.from(" [ -0.1,\n2e5 , 3E-7 ]\r\n"))).toBe(3);
  });

  it("should take nothing that could change a record it is put into", () => {
    for (const text of [
      "",
      "[]",
      "[ ]",
      "[,]",
      "[1,]",
      "[,1]",
      "1,2",
      '[1],"a":[2]',
      "[1]]",
      "[[1]]",
      "[null]",
      "[1;2]",
    ]) {
      expect(countNumbers(Buffer.from(text)), text).toBeUndefined();
    }
  });

  it("should count every array of numbers that JSON can write", () => {
    const numbers = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), {
      minLength: 1,
      maxLength: 50,
    });
    fc.assert(
      fc.property(numbers, (values) => {
        const text = Buffer.from(JSON.stringify(values));
        expect(countNumbers(text)).toBe(values.length);
        expect(JSON.parse(recordFromText(text).toString())).toEqual({ vector: JSON.parse(text.toString()) });
      }),
    );
  });
});

describe("recordFromValues", () => {
  it("should put the numbers into the record as they are written", () => {
    expect(fromValues("1", "-0.25", "1e5", "2E+3")).toBe('{"vector":[1,-0.25,1e5,2E+3]}');
  });

  it("should refuse bytes that no number has", () => {
    for (const text of ["", "1 ", " 1", "0x1", "nan", "inf", "1,2", "1]", '"1"', "1\n", "\u00b2"]) {
      expect(fromValues(text), text).toBeUndefined();
    }
  });

  it("should keep the value of every number", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 1 }),
        (values) => {
          const record = fromValues(...values.map(String)) as string;
          expect(JSON.parse(record).vector).toEqual(values.map((value) => Number(String(value))));
        },
      ),
    );
  });
});
