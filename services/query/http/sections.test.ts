import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readSections } from "./sections.ts";

function read(body: string): Record<string, string> {
  return Object.fromEntries(
    [...readSections(Buffer.from(body))].map(([name, bytes]) => [name, bytes.toString()]),
  );
}

describe("readSections", () => {
  it("should find every kind of value as its bytes", () => {
    expect(read(' { "a" : 1 , "b":"x\\"}", "c":[1,[2,"]"]], "d":{"e":"}"},"f":null } ')).toEqual({
      a: "1",
      b: '"x\\"}"',
      c: '[1,[2,"]"]]',
      d: '{"e":"}"}',
      f: "null",
    });
    expect(read("{}")).toEqual({});
    expect(read('{"\\u0061":true}')).toEqual({ a: "true" });
  });

  it("should refuse what is no object, what is cut off, and what is given twice", () => {
    for (const body of [
      "",
      "[]",
      "x",
      "{",
      '{"a"',
      '{"a":',
      '{"a":1',
      '{"a":[1',
      '{"a":"x',
      '{"a" 1}',
      "{a:1}",
      '{"a":}',
    ]) {
      expect(() => readSections(Buffer.from(body)), body).toThrow("body is malformed");
    }
    expect(() => read('{"a":1,"a":2}')).toThrow("field a is given twice");
    expect(() => read('{"a":1} x')).toThrow("something follows");
    expect(() => read('{"a":1,}')).toThrow("a field name is expected");
  });

  it("should agree with JSON.parse on every object", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 8 }),
        fc.constantFrom(undefined, 2),
        (value, indent) => {
          const sections = readSections(Buffer.from(JSON.stringify(value, null, indent)));
          const back = Object.fromEntries(
            [...sections].map(([name, bytes]) => [name, JSON.parse(bytes.toString())]),
          );
          expect(back).toEqual(JSON.parse(JSON.stringify(value)));
        },
      ),
    );
  });
});
