import { describe, expect, it } from "vitest";
import { matchGlob } from "./glob.ts";

function matches(pattern: string, text: string): boolean {
  return matchGlob(Buffer.from(pattern), Buffer.from(text));
}

describe("matchGlob", () => {
  it("should know runs, single bytes, sets and escapes", () => {
    for (const [pattern, text, expected] of [
      ["*", "", true],
      ["", "", true],
      ["", "a", false],
      ["a*c", "abbc", true],
      ["a*c", "abb", false],
      ["a**c*", "abcx", true],
      ["h?llo", "hello", true],
      ["h?llo", "hllo", false],
      ["h[ae]llo", "hallo", true],
      ["h[ae]llo", "hillo", false],
      ["h[^e]llo", "hallo", true],
      ["h[^e]llo", "hello", false],
      ["[a-c]1", "b1", true],
      ["[c-a]1", "b1", true],
      ["[a-c]1", "d1", false],
      ["a\\*", "a*", true],
      ["a\\*", "ab", false],
      ["[\\]]", "]", true],
      ["*.*.", "a.b.", true],
    ] as const) {
      expect(matches(pattern, text), `${pattern} on ${text}`).toBe(expected);
    }
  });

  it("should not take exponential time for many stars", () => {
    expect(matches(`${"a*".repeat(1000)}b`, "a".repeat(10_000))).toBe(false);
  });
});
