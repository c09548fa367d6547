import { describe, expect, it } from "vitest";
import { render } from "./commands/explain.ts";

describe("the report of vexlake explain", () => {
  it("should align counts and times under their titles, and show what it has no words for", () => {
    const fields = {
      version: 12,
      scope: "fresh",
      results: 10,
      "segments-listed": 3,
      "bytes-read": 123_456,
      "new-here": 1,
      "us-codes": 250,
      "us-total": 1_033,
    };
    expect(render("docs", fields)).toBe(
      [
        "docs at version 12, fresh: 10 results",
        "",
        "what it took                      count",
        "segments searched through lists       3",
        "bytes read                       123456",
        "new-here                              1",
        "",
        "where the time went    µs",
        "scan codes            250",
        "the whole search     1033",
      ].join("\n"),
    );
  });
});
