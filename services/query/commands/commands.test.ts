import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CollectionView } from "../core.ts";
import { failure } from "../testing/fake-core.ts";
import { type Harness, startHarness, type TestClient, type Value } from "../testing/harness.ts";
import { implementations } from "./registry.ts";
import { commandTable } from "./table.ts";

let harness: Harness;
let client: TestClient;

beforeEach(async () => {
  harness = await startHarness();
  client = await harness.client();
});

afterEach(async () => {
  await harness.close();
});

function f32(...values: number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer);
}

function message(reply: Value): string {
  expect(reply).toBeInstanceOf(Error);
  return (reply as Error).message;
}

async function fill(): Promise<void> {
  await client.pipeline([
    ["VADD", "docs", "VALUES", 2, 1, 0, "east", "SETATTR", '{"side":"e"}'],
    ["VADD", "docs", "VALUES", 2, 0, 1, "north"],
    ["VADD", "docs", "FP32", f32(1, 1), "north-east", "SETATTR", '{"side":"ne"}'],
  ]);
}

describe("the command table", () => {
  it("should name exactly the commands that are implemented", () => {
    expect(commandTable.map((row) => row.name).sort()).toEqual([...implementations.keys()].sort());
  });
});

describe("connection commands", () => {
  it("should answer PING, ECHO and inline requests", async () => {
    expect(await client.call("PING")).toBe("PONG");
    expect(await client.call("ping", "hi")).toBe("hi");
    expect(await client.call("ECHO", "x\r\ny")).toBe("x\r\ny");
    client.send("PING\r\n");
    expect(await client.read()).toBe("PONG");
  });

  it("should refuse wrong arities and unknown commands with Redis's texts", async () => {
    expect(message(await client.call("PING", "x", "y"))).toBe(
      "ERR wrong number of arguments for 'ping' command",
    );
    expect(message(await client.call("ECHO"))).toBe("ERR wrong number of arguments for 'echo' command");
    expect(message(await client.call("FOO", "a", "b\r\nc"))).toBe(
      "ERR unknown command 'FOO', with args beginning with: 'a' 'b  c' ",
    );
  });

  it("should switch protocols with HELLO", async () => {
    expect(await client.call("HELLO")).toContain("vexlake");
    const resp3 = (await client.call("HELLO", 3, "SETNAME", "me")) as Map<string, Value>;
    expect(resp3.get("proto")).toBe(3);
    expect(await client.call("CLIENT", "GETNAME")).toBe("me");
    expect(message(await client.call("HELLO", 4))).toBe("NOPROTO unsupported protocol version");
    expect(message(await client.call("HELLO", "x"))).toContain("Protocol version is not an integer");
    expect(message(await client.call("HELLO", 3, "NOPE"))).toBe("ERR Syntax error in HELLO option 'NOPE'");
  });

  it("should refuse AUTH without a password as Redis does", async () => {
    expect(message(await client.call("AUTH", "secret"))).toContain("without any password configured");
    expect(await client.call("AUTH", "default", "anything")).toBe("OK");
  });

  it("should let nobody in without the password where one is set", async () => {
    const closed = await startHarness({ password: "secret" });
    const stranger = await closed.client();
    expect(message(await stranger.call("DBSIZE"))).toBe("NOAUTH Authentication required.");
    expect(message(await stranger.call("NOPE"))).toBe("NOAUTH Authentication required.");
    expect(message(await stranger.call("AUTH", "wrong"))).toContain("WRONGPASS");
    expect(message(await stranger.call("HELLO", 3))).toContain("NOAUTH HELLO must be called");
    expect(await stranger.call("AUTH", "secret")).toBe("OK");
    expect(await stranger.call("DBSIZE")).toBe(0);
    await closed.close();
  });

  it("should keep databases apart", async () => {
    await fill();
    expect(await client.call("DBSIZE")).toBe(1);
    expect(await client.call("SELECT", 3)).toBe("OK");
    expect(await client.call("DBSIZE")).toBe(0);
    expect(await client.call("VCARD", "docs")).toBe(0);
    expect(message(await client.call("SELECT", 16))).toBe("ERR DB index is out of range");
    expect(message(await client.call("SELECT", "x"))).toBe("ERR invalid DB index");
  });

  it("should tell about clients", async () => {
    const id = await client.call("CLIENT", "ID");
    expect(await client.call("CLIENT", "SETINFO", "LIB-NAME", "test")).toBe("OK");
    expect(await client.call("CLIENT", "INFO")).toMatch(new RegExp(`^id=${id} .*lib-name=test`));
    expect(
      String(await client.call("CLIENT", "LIST"))
        .trim()
        .split("\n"),
    ).toHaveLength(1);
    expect(await client.call("CLIENT", "LIST", "ID", 999)).toBe("");
    expect(await client.call("CLIENT", "LIST", "ID", 999, String(id))).toMatch(new RegExp(`^id=${id} `));
    expect(await client.call("CLIENT", "LIST", "TYPE", "normal")).toMatch(new RegExp(`^id=${id} `));
    expect(await client.call("CLIENT", "LIST", "TYPE", "pubsub")).toBe("");
    expect(message(await client.call("CLIENT", "LIST", "ID", "x"))).toBe("ERR Invalid client ID");
    expect(message(await client.call("CLIENT", "LIST", "FOO", "x"))).toBe("ERR syntax error");
    expect(await client.call("CLIENT", "NO-EVICT", "ON")).toBe("OK");
    expect(message(await client.call("CLIENT", "SETNAME", "a b"))).toContain("cannot contain spaces");
    expect(message(await client.call("CLIENT", "NOPE"))).toContain("unknown subcommand 'NOPE'");
  });

  it("should answer LOADING until the lake is open", async () => {
    const opening = await startHarness({ unopened: true });
    const early = await opening.client();
    expect(await early.call("PING")).toBe("PONG");
    expect(message(await early.call("VCARD", "docs"))).toBe("LOADING VexLake is opening the lake");
    await opening.collections.list();
    expect(await early.call("VCARD", "docs")).toBe(0);
    await opening.close();
  });
});

describe("server commands", () => {
  it("should answer what redis-benchmark and tools ask first", async () => {
    expect(await client.call("CONFIG", "GET", "save")).toEqual(["save", ""]);
    expect(await client.call("CONFIG", "GET", "app*")).toEqual(["appendonly", "yes"]);
    expect(message(await client.call("CONFIG", "SET", "save", ""))).toContain("CONFIG SET is refused");
    expect(await client.call("COMMAND", "COUNT")).toBe(commandTable.length);
    expect(message(await client.call("COMMAND", "COUNT", "zz"))).toContain("wrong number of arguments");
    expect(message(await client.call("COMMAND", "LIST", "FILTERBY", "MODULE", "x"))).toContain("no filters");
    const [known, unknown] = (await client.call("COMMAND", "INFO", "vadd", "nope")) as Value[];
    expect(known).toEqual(["vadd", -5, ["write", "denyoom"], 1, 1, 1, ["@vector_set"], [], [], []]);
    expect(unknown).toBeNull();
    const docs = (await client.call("COMMAND", "DOCS", "vsim")) as Value[];
    expect(docs[0]).toBe("vsim");
    expect(JSON.stringify(docs[1])).toContain("Redis' expressions over attributes");
    expect(await client.call("INFO")).toContain("redis_version:8.");
    expect(await client.call("INFO", "keyspace")).not.toContain("redis_version");
    expect(await client.call("STATS")).toContain("records");
    expect(await client.call("TIME")).toHaveLength(2);
  });

  it("should count commands by outcome", async () => {
    await client.call("PING");
    await client.call("ECHO");
    expect(await client.call("INFO", "commandstats")).toMatch(/cmdstat_ping:calls=1,.*failed_calls=0/);
    expect(await client.call("INFO", "commandstats")).toMatch(/cmdstat_echo:calls=1,.*failed_calls=1/);
  });
});

describe("keyspace commands", () => {
  it("should see collections as keys", async () => {
    await fill();
    expect(await client.call("EXISTS", "docs", "nope", "docs")).toBe(2);
    expect(await client.call("TYPE", "docs")).toBe("vectorset");
    expect(await client.call("TYPE", "nope")).toBe("none");
    expect(await client.call("KEYS", "d*")).toEqual(["docs"]);
    expect(await client.call("SCAN", 0, "MATCH", "x*", "COUNT", 5)).toEqual(["0", []]);
    expect(await client.call("SCAN", 0)).toEqual(["0", ["docs"]]);
    expect(await client.call("DEL", "docs", "nope")).toBe(1);
    expect(await client.call("EXISTS", "docs")).toBe(0);
  });
});

describe("seed commands", () => {
  it("should write, read, search and delete in the collection default", async () => {
    expect(await client.call("VGET", "vec:1")).toBeNull();
    expect(await client.call("VSEARCH", "[1, 0]", 3)).toEqual([]);
    expect(await client.call("VDEL", "vec:1")).toBe(0);
    expect(await client.call("VSET", "vec:1", "[0.1, 0.2, 0.3]")).toBe("OK");
    expect(await client.call("VSET", "vec:2", "[-1,1e-3,0]")).toBe("OK");
    expect(await client.call("VGET", "vec:1")).toBe("[0.100000, 0.200000, 0.300000]");
    expect(await client.call("VSEARCH", "[0.1, 0.2, 0.3]", 10)).toEqual(["vec:1", "vec:2"]);
    expect(await client.call("VDEL", "vec:1")).toBe(1);
    expect(await client.call("VDEL", "vec:1")).toBe(0);
    expect(await client.call("CLEAR")).toBe("OK");
    expect(await client.call("VCARD", "default")).toBe(0);
    expect(await client.call("VDIM", "default")).toBe(3);
    expect(harness.log.waiting).toBe(0);
  });

  it("should refuse what is no vector, before it reaches the log", async () => {
    await client.call("VSET", "a", "[1, 2]");
    for (const text of ["hello", "[]", "[1,,2]", '[1],"x":[2]', "[1,2", '["1"]', "[1,2]]x"]) {
      expect(message(await client.call("VSET", "a", text))).toContain("vector is not an array of numbers");
    }
    expect(message(await client.call("VSET", "a", "[1,2,3]"))).toBe(
      "ERR Vector dimension mismatch - got 3 but set has 2",
    );
    expect(message(await client.call("VSET", "a", "[1,1e999]"))).toContain("not finite");
    expect(message(await client.call("VSET", "", "[1,2]"))).toContain("id has 0 bytes");
    expect(harness.log.batches).toEqual([1]);
  });
});

describe("VADD and its readers", () => {
  it("should add, replace and count", async () => {
    expect(await client.call("VADD", "docs", "VALUES", 2, "1.0", "5e-1", "a")).toBe(1);
    expect(await client.call("VADD", "docs", "FP32", f32(3, 4), "a", "CAS", "NOQUANT", "EF", 100)).toBe(0);
    expect(await client.call("VCARD", "docs")).toBe(1);
    expect(await client.call("VDIM", "docs")).toBe(2);
    expect(await client.call("VEMB", "docs", "a")).toEqual(["3", "4"]);
    expect(await client.call("VISMEMBER", "docs", "a")).toBe(1);
    expect(await client.call("VREM", "docs", "a")).toBe(1);
    expect(await client.call("VREM", "docs", "a")).toBe(0);
    expect(await client.call("VEMB", "docs", "a")).toBeNull();
  });

  it("should answer RESP3 types", async () => {
    await client.call("HELLO", 3);
    expect(await client.call("VADD", "docs", "VALUES", 2, 1, 2, "a")).toBe(true);
    expect(await client.call("VEMB", "docs", "a")).toEqual([1, 2]);
    expect(await client.call("VEMB", "docs", "a", "RAW")).toEqual(["f32", f32(1, 2).toString(), 1]);
    expect(await client.call("VISMEMBER", "docs", "b")).toBe(false);
    expect(await client.call("VGETATTR", "docs", "a")).toBeNull();
    const facts = (await client.call("VINFO", "docs")) as Map<string, Value>;
    expect(facts.get("vector-dim")).toBe(2);
    expect(facts.get("size")).toBe(1);
    expect(facts.get("quant-type")).toBe("f32");
    expect(facts.get("incarnation")).toBe(harness.collections.known(0, "docs")?.incarnation);
    const uid = facts.get("vset-uid");
    expect(Number.isSafeInteger(uid), String(uid)).toBe(true);
    await client.call("VADD", "other", "VALUES", 2, 1, 2, "a");
    const others = (await client.call("VINFO", "other")) as Map<string, Value>;
    expect(others.get("vset-uid")).not.toBe(uid);
    client.send("CLIENT INFO\r\n");
    expect(await client.read()).toMatch(/^txt:id=/);
    expect(await client.call("VINFO", "nope")).toBeNull();
  });

  it("should keep attributes", async () => {
    await fill();
    expect(await client.call("VGETATTR", "docs", "east")).toBe('{"side":"e"}');
    expect(await client.call("VSETATTR", "docs", "east", '{"side":"E"}')).toBe(1);
    expect(await client.call("VGETATTR", "docs", "east")).toBe('{"side":"E"}');
    expect(await client.call("VSETATTR", "docs", "east", "")).toBe(1);
    expect(await client.call("VGETATTR", "docs", "east")).toBeNull();
    expect(await client.call("VSETATTR", "docs", "nobody", "{}")).toBe(0);
    expect(await client.call("VSETATTR", "nope", "east", "{}")).toBe(0);
    expect(message(await client.call("VSETATTR", "docs", "east", "[1]"))).toContain(
      "attributes are an array",
    );
    expect(message(await client.call("VSETATTR", "docs", "east", "{"))).toContain("attributes are not JSON");
  });

  it("should keep the attributes of an element that VADD gives a new vector, as Redis does", async () => {
    await fill();
    const side = async () => await client.call("VGETATTR", "docs", "east");
    expect(await client.call("VADD", "docs", "VALUES", 2, 0, 1, "east")).toBe(0);
    expect([await side(), await client.call("VEMB", "docs", "east")]).toEqual(['{"side":"e"}', ["0", "1"]]);
    expect(await client.call("VADD", "docs", "FP32", f32(1, 0), "east", "SETATTR", '{"n":1}')).toBe(0);
    expect(await side()).toBe('{"n":1}');
    expect(await client.call("VADD", "docs", "FP32", f32(1, 0), "east", "SETATTR", "")).toBe(0);
    expect(await side()).toBeNull();
  });

  it("should leave nothing behind when it refuses the first vector of a collection", async () => {
    const wrong = [
      ["VADD", "junk", "VALUES", 2, "1e999", 1, "x"],
      ["VADD", "junk", "FP32", f32(Number.NaN, 1), "x"],
    ];
    for (const command of wrong) expect(message(await client.call(...command))).toContain("not finite");
    expect(await client.call("TYPE", "junk")).toBe("none");
    expect(message(await client.call("VSET", "a", "[1e999, 1]"))).toContain("not finite");
    expect(await client.call("TYPE", "default")).toBe("none");
    const replies = await client.pipeline([
      ...wrong,
      ["VADD", "junk", "VALUES", 3, 1, 0, 0, "x"],
      ["VADD", "junk", "VALUES", 2, 1, 0, "y"],
      ["VREM", "junk", "x"],
    ]);
    expect(replies.slice(2, 3)).toEqual([1]);
    expect(message(replies[3] as Value)).toContain("got 2 but set has 3");
    expect(replies[4]).toBe(1);
  });

  it("should see a VADD of the same pipeline in VSETATTR", async () => {
    const replies = await client.pipeline([
      ["VADD", "docs", "VALUES", 2, 1, 0, "a"],
      ["VSETATTR", "docs", "a", '{"n":1}'],
      ["VGETATTR", "docs", "a"],
    ]);
    expect(replies).toEqual([1, 1, '{"n":1}']);
  });

  it("should refuse what cannot be kept, and say why", async () => {
    const add = ["VADD", "docs", "VALUES", 2, 1, 0, "a"];
    expect(message(await client.call(...add, "Q8"))).toContain("Q8 is refused: vectors are kept exactly");
    expect(message(await client.call(...add, "BIN"))).toContain("BIN is refused");
    expect(message(await client.call(...add, "M", 16))).toContain("M is refused");
    expect(message(await client.call("VADD", "docs", "REDUCE", 1, "VALUES", 2, 1, 0, "a"))).toContain(
      "REDUCE is refused",
    );
    expect(message(await client.call(...add, "EF", 0))).toBe("ERR invalid EF");
    expect(message(await client.call(...add, "NOPE"))).toBe("ERR invalid option after element");
    expect(message(await client.call("VADD", "docs", "FP32", Buffer.alloc(5), "a"))).toBe(
      "ERR invalid vector specification",
    );
    expect(message(await client.call("VADD", "docs", "VALUES", 2, "x", 0, "a"))).toBe(
      "ERR invalid vector specification",
    );
    expect(message(await client.call("VADD", "docs", "VALUES", 9, 1, 0, "a"))).toBe(
      "ERR invalid vector specification",
    );
    expect(message(await client.call("VADD", "docs", "VALUES", 70000, 1))).toContain("invalid vector");
    expect(await client.call("EXISTS", "docs")).toBe(0);
    expect(message(await client.call("VRANDMEMBER", "docs"))).toContain("VRANDMEMBER is not there yet");
    expect(message(await client.call("VLINKS", "docs", "a"))).toContain("not there yet");
    expect(message(await client.call("VDIM", "docs"))).toBe("ERR key does not exist");
  });

  it("should not let a VALUES number add fields to the record", async () => {
    for (const number of ["1],", '0,"x":1', "1 2", "", "1e", "--1", "0x1", "nan", "inf"]) {
      expect(message(await client.call("VADD", "docs", "VALUES", 1, number, "a"))).toMatch(
        /^ERR (invalid vector specification|vector: value 1 is not finite)$/,
      );
    }
    expect(harness.log.batches).toEqual([]);
  });
});

describe("VSIM", () => {
  it("should answer the nearest first, by element, blob and values", async () => {
    await fill();
    const expected = ["east", "north-east", "north"];
    expect(await client.call("VSIM", "docs", "ELE", "east")).toEqual(expected);
    expect(await client.call("VSIM", "docs", "FP32", f32(2, 0))).toEqual(expected);
    expect(await client.call("VSIM", "docs", "VALUES", 2, "5e-1", 0)).toEqual(expected);
    expect(await client.call("VSIM", "docs", "ELE", "east", "COUNT", 1)).toEqual(["east"]);
    expect(await client.call("VSIM", "docs", "ELE", "east", "EPSILON", "0.2")).toEqual([
      "east",
      "north-east",
    ]);
    expect(await client.call("VSIM", "nope", "ELE", "east")).toEqual([]);
  });

  it("should shape scores and attributes as Redis does in RESP2", async () => {
    await fill();
    expect(await client.call("VSIM", "docs", "ELE", "east", "WITHSCORES", "COUNT", 1)).toEqual(["east", "1"]);
    expect(await client.call("VSIM", "docs", "ELE", "north", "WITHATTRIBS", "COUNT", 1)).toEqual([
      "north",
      null,
    ]);
    expect(await client.call("VSIM", "docs", "ELE", "east", "WITHATTRIBS", "WITHSCORES", "COUNT", 1)).toEqual(
      ["east", "1", '{"side":"e"}'],
    );
  });

  it("should shape scores and attributes as Redis does in RESP3", async () => {
    await fill();
    await client.call("HELLO", 3);
    expect(await client.call("VSIM", "docs", "ELE", "east", "COUNT", 1)).toEqual(["east"]);
    expect(await client.call("VSIM", "docs", "ELE", "east", "WITHSCORES", "COUNT", 1)).toEqual(
      new Map([["east", 1]]),
    );
    expect(await client.call("VSIM", "docs", "ELE", "north", "WITHATTRIBS", "COUNT", 1)).toEqual(
      new Map([["north", null]]),
    );
    expect(await client.call("VSIM", "docs", "ELE", "east", "WITHATTRIBS", "WITHSCORES", "COUNT", 1)).toEqual(
      new Map([["east", [1, '{"side":"e"}']]]),
    );
  });

  it("should hand on scope and version", async () => {
    await fill();
    await client.call("VSIM", "docs", "ELE", "east", "TRUTH", "SNAPSHOT", "NOTHREAD", "EF", 200);
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "snapshot", k: 10 });
    await client.call("VSIM", "docs", "ELE", "east");
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "fresh" });
    await client.call("VSIM", "docs@3", "ELE", "east", "SNAPSHOT");
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "at", version: 3n });
    await client.call("VSIM", "docs@tagged", "ELE", "east");
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "at", version: 5n });
    expect(message(await client.call("VSIM", "docs@nope", "ELE", "east"))).toContain(
      "has no version or tag nope",
    );
    await client.call("VSIM", "docs@1970-01-01T00:00:02Z", "ELE", "east");
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "at", version: 2n });
    expect(await client.call("VSIM", "nope@3", "ELE", "east")).toEqual([]);
  });

  it("should not make a collection whose name reads a version of another one", async () => {
    await fill();
    expect(message(await client.call("VADD", "docs@tagged", "VALUES", 2, 1, 0, "a"))).toContain(
      "docs@tagged names a version of collection docs",
    );
    await client.call("VSIM", "docs@tagged", "ELE", "east");
    expect(harness.core.requests.at(-1)).toMatchObject({ scope: "at", version: 5n });
    expect(await client.call("VADD", "me@example.org", "VALUES", 2, 1, 0, "a")).toBe(1);
  });

  it("should refuse bad options with Redis's texts", async () => {
    await fill();
    const sim = ["VSIM", "docs", "ELE", "east"];
    expect(message(await client.call(...sim, "COUNT", 0))).toBe("ERR invalid COUNT");
    expect(message(await client.call(...sim, "COUNT", 10_001))).toContain("at most 10000");
    expect(message(await client.call(...sim, "EPSILON", "-1"))).toBe("ERR invalid EPSILON");
    expect(message(await client.call(...sim, "FILTER", Buffer.from([0xff])))).toBe("ERR FILTER is not UTF-8");
    expect(message(await client.call(...sim, "FILTER-EF", "-1"))).toBe("ERR invalid FILTER-EF");
    expect(message(await client.call(...sim, "NOPE"))).toBe("ERR syntax error in VSIM command");
    expect(message(await client.call("VSIM", "docs", "NOPE", "east"))).toContain(
      "must be ELE, FP32 or VALUES",
    );
    expect(message(await client.call("VSIM", "docs", "ELE", "nobody"))).toBe("ERR element not found in set");
    expect(message(await client.call("VSIM", "docs", "VALUES", 3, 1, 2, 3))).toBe(
      "ERR Vector dimension mismatch - got 3 but set has 2",
    );
  });

  it("should map the engine's codes to Redis's words", async () => {
    await fill();
    for (const [code, word] of [
      ["INVALID", "ERR"],
      ["CORRUPT", "ERR"],
      ["INTERNAL", "ERR"],
      ["CONFLICT", "TRYAGAIN"],
      ["UNAVAILABLE", "TRYAGAIN"],
      ["FENCED", "READONLY"],
    ] as const) {
      harness.core.failing = failure(code, "why");
      expect(message(await client.call("VSIM", "docs", "ELE", "east"))).toBe(`${word} why`);
    }
  });
});

describe("LAKE commands", () => {
  it("should carry visibility in a token", async () => {
    await fill();
    const token = String(await client.call("LAKE.TOKEN", "docs"));
    const { incarnation } = harness.collections.known(0, "docs") as CollectionView;
    expect(token).toBe(`${incarnation}:0=3`);
    expect(await client.call("LAKE.WAIT", "docs", token, 10)).toBe(1);
    expect(await client.call("LAKE.WAIT", "docs", `${incarnation}:0=4`, 10)).toBe(0);
    expect(message(await client.call("LAKE.WAIT", "docs", "other:0=4", 10))).toContain(
      "token is of incarnation other",
    );
    expect(message(await client.call("LAKE.WAIT", "docs", "nonsense", 10))).toContain(
      "not one of LAKE.TOKEN",
    );
  });
});
