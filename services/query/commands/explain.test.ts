import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Harness, startHarness, type TestClient, type Value } from "../testing/harness.ts";

let harness: Harness;
let client: TestClient;

beforeEach(async () => {
  harness = await startHarness();
  client = await harness.client();
  await client.pipeline([
    ["VADD", "docs", "VALUES", 2, 1, 0, "east"],
    ["VADD", "docs", "VALUES", 2, 0, 1, "north"],
    ["VADD", "docs", "VALUES", 2, 1, 1, "north-east"],
  ]);
});

afterEach(async () => {
  await harness.close();
});

/** What the fake core counts, in the order of the reply. */
const MEASURED = [
  ["segments-listed", 1],
  ["segments-exact", 2],
  ["segments-pruned", 3],
  ["rows-passed", 14],
  ["centroids", 4],
  ["lists", 5],
  ["rows-scanned", 3],
  ["memtable-rows", 6],
  ["rows-reranked", 7],
  ["waves", 8],
  ["rounds", 9],
  ["pages-held", 10],
  ["pages-read", 11],
  ["requests", 12],
  ["bytes-read", 13],
  ["us-feed", 21],
  ["us-filter", 28],
  ["us-lists", 22],
  ["us-codes", 23],
  ["us-rerank", 24],
  ["us-exact", 25],
  ["us-names", 26],
  ["us-total", 27],
] as const;

const explained = (scope: string, results: number): (readonly [string, string | number])[] => [
  ["version", 1],
  ["scope", scope],
  ["results", results],
  ...MEASURED,
];

async function refusal(...words: (string | number)[]): Promise<string> {
  const reply: Value = await client.call("LAKE.EXPLAIN", ...words);
  expect(reply).toBeInstanceOf(Error);
  return (reply as Error).message;
}

describe("LAKE.EXPLAIN", () => {
  it("should answer a flat array in RESP2 and a map in RESP3", async () => {
    const ask = ["LAKE.EXPLAIN", "VSIM", "docs", "ELE", "east", "COUNT", 2] as const;
    expect(await client.call(...ask)).toEqual(explained("fresh", 2).flat());
    await client.call("HELLO", 3);
    expect(await client.call(...ask)).toEqual(new Map(explained("fresh", 2)));
  });

  it("should ask for what VSIM with these arguments asks for", async () => {
    const searches: (string | number)[][] = [
      ["vsim", "docs", "VALUES", 2, "5e-1", 0, "TRUTH", "EF", 7, "SNAPSHOT", "WITHATTRIBS"],
      ["VSIM", "docs@tagged", "ELE", "east", "EPSILON", "0.2", "COUNT", 3, "WITHSCORES", "NOTHREAD"],
    ];
    for (const words of searches) {
      await client.call(...(words as [string]));
      const { vector: plainVector, ...plain } = harness.core.requests.at(-1) ?? {};
      await client.call("LAKE.EXPLAIN", ...words);
      const { vector, ...asked } = harness.core.requests.at(-1) ?? {};
      expect(asked).toEqual({ ...plain, explain: true });
      expect(vector?.kind).toBe(plainVector?.kind);
    }
    expect(await client.call("LAKE.EXPLAIN", "VSIM", "docs@tagged", "ELE", "east")).toContain("at");
  });

  it("should be answered in its place in a pipeline", async () => {
    const sim = ["VSIM", "docs", "ELE", "east", "COUNT", 1];
    const replies = await client.pipeline([sim, ["LAKE.EXPLAIN", ...sim], sim]);
    expect(replies).toEqual([["east"], explained("fresh", 1).flat(), ["east"]]);
  });

  it("should refuse what VSIM refuses, other commands, and keys that are not there", async () => {
    const sim = ["VSIM", "docs", "ELE", "east"];
    expect(await refusal(...sim, "COUNT", 0)).toBe("ERR invalid COUNT");
    expect(await refusal(...sim, "EF", 0)).toBe("ERR invalid EF");
    expect(await refusal(...sim, "NOPE")).toBe("ERR syntax error in VSIM command");
    expect(await refusal("VSIM", "docs", "NOPE", "east")).toContain("must be ELE, FP32 or VALUES");
    expect(await refusal("VSIM", "docs", "ELE", "nobody")).toBe("ERR element not found in set");
    expect(await refusal("VSIM", "docs", "VALUES", 3, 1, 2, 3)).toContain("got 3 but set has 2");
    expect(await refusal("VSIM", "nope", "ELE", "east")).toBe("ERR key does not exist");
    expect(await refusal("VGET", "docs", "ELE", "east")).toContain("only VSIM can be explained");
    expect(await refusal("VSIM", "docs", "ELE")).toContain("wrong number of arguments for 'lake.explain'");
    expect(await refusal()).toContain("wrong number of arguments for 'lake.explain'");
  });

  it("should say that its key is the second argument", async () => {
    const [row] = (await client.call("COMMAND", "INFO", "lake.explain")) as Value[][];
    expect(row?.slice(0, 6)).toEqual(["lake.explain", -5, ["readonly"], 2, 2, 1]);
  });
});

describe("counters of searches", () => {
  it("should add up what searches took, explained or not", async () => {
    const sim = ["VSIM", "docs", "ELE", "east"];
    await client.pipeline([sim, ["LAKE.EXPLAIN", ...sim], sim]);
    const { rowsScanned, rowsReranked, listsProbed } = harness.metrics;
    expect({ rowsScanned, rowsReranked, listsProbed }).toEqual({
      rowsScanned: 3 * 3,
      rowsReranked: 3 * 7,
      listsProbed: 3 * 5,
    });
  });
});
