import { connect } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { ANSWER_BYTES_MAX } from "../commands/execute.ts";
import { encodeRequest, type Harness, type HarnessOptions, startHarness } from "../testing/harness.ts";

let harness: Harness;

async function start(options: HarnessOptions = {}): Promise<Harness> {
  harness = await startHarness(options);
  return harness;
}

afterEach(async () => {
  await harness.close();
});

function add(id: string): (string | number)[] {
  return ["VADD", "docs", "VALUES", 2, 1, 0, id];
}

const SIMILAR = ["VSIM", "docs", "ELE", "a", "COUNT", 1];

describe("Connection", () => {
  it("should answer pipelined searches of one read with one call into the engine", async () => {
    const { core } = await start();
    const client = await harness.client();
    await client.pipeline([add("a"), add("b")]);
    const replies = await client.pipeline(Array.from({ length: 50 }, () => SIMILAR));
    expect(replies).toEqual(Array.from({ length: 50 }, () => ["a"]));
    expect(core.searches).toEqual([50]);
  });

  it("should answer in order when kinds of commands alternate", async () => {
    const { core } = await start();
    const client = await harness.client();
    const replies = await client.pipeline([
      add("a"),
      SIMILAR,
      SIMILAR,
      ["PING"],
      ["VISMEMBER", "docs", "a"],
      ["VREM", "docs", "a"],
      ["VISMEMBER", "docs", "a"],
      SIMILAR,
      ["ECHO", "end"],
    ]);
    expect(replies.slice(0, 7)).toEqual([1, ["a"], ["a"], "PONG", 1, 1, 0]);
    expect(String(replies[7])).toContain("element not found");
    expect(replies[8]).toBe("end");
    expect(core.searches).toEqual([2, 1]);
  });

  it("should give each search of a group its own error", async () => {
    await start();
    const client = await harness.client();
    await client.call(...add("a"));
    const replies = await client.pipeline([
      SIMILAR,
      ["VSIM", "docs", "ELE", "nobody"],
      ["VSIM", "docs", "X", "y"],
      SIMILAR,
    ]);
    expect(replies[0]).toEqual(["a"]);
    expect(String(replies[1])).toContain("element not found");
    expect(String(replies[2])).toContain("must be ELE");
    expect(replies[3]).toEqual(["a"]);
  });

  it("should put pipelined writes into the log in order, in few batches, checked in one call", async () => {
    const { core, log } = await start();
    const client = await harness.client();
    const replies = await client.pipeline([
      ["VADD", "docs", "VALUES", 2, 1, 0, "x"],
      ["VADD", "docs", "VALUES", 2, 0, 1, "x"],
      ...Array.from({ length: 98 }, (_, i) => add(`y${i}`)),
    ]);
    expect(replies.slice(0, 3)).toEqual([1, 0, 1]);
    expect(await client.call("VEMB", "docs", "x")).toEqual(["0", "1"]);
    // The first one alone, before it makes the collection.
    expect(core.checks).toEqual([1, 99]);
    expect(log.batches).toEqual([100]);
    expect(log.waiting).toBe(0);
  });

  it("should keep answering others while one client waits for a search", async () => {
    const { core } = await start();
    const [slow, quick] = [await harness.client(), await harness.client()];
    await slow.call(...add("a"));
    const { promise, resolve } = Promise.withResolvers<void>();
    core.gate = promise;
    const waiting = slow.pipeline([SIMILAR, ["PING"]]);
    expect(await quick.call("PING")).toBe("PONG");
    resolve();
    expect(await waiting).toEqual([["a"], "PONG"]);
  });

  it("should say where a write lies that is not visible in time", async () => {
    const { log } = await start({ visibleMsMax: 20 });
    const client = await harness.client();
    await client.call(...add("a"));
    log.holding = true;
    expect(String(await client.call(...add("b")))).toContain("ERR written at 0:1, not yet visible");
    expect(log.waiting).toBe(0);
  });

  it("should answer a write in doubt and never send it again", async () => {
    const { log } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    log.failing = Object.assign(new Error("reply lost"), { code: "UNAVAILABLE", fields: { doubt: true } });
    expect(String(await client.call(...add("b")))).toContain("TRYAGAIN write in doubt, not sent again");
    expect(log.batches).toEqual([1]);
  });

  it("should refuse writes before producing while this node may not take them", async () => {
    const { log } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    log.refusing = "retention-passed";
    expect(String(await client.call(...add("b")))).toContain("takes no writes now: retention-passed");
    expect(log.batches).toEqual([1]);
  });

  it("should answer what came before a malformed request, then Redis's text, then end", async () => {
    await start();
    const client = await harness.client();
    client.send("PING\r\n*1\r\nfoo\r\nPING\r\n");
    expect(await client.untilEnd()).toBe("+PONG\r\n-ERR Protocol error: expected '$', got 'f'\r\n");
    expect(harness.metrics.closedBy("protocol-error")).toBe(1);
  });

  it("should end a connection that speaks HTTP before its body is taken for commands", async () => {
    await start();
    const client = await harness.client();
    client.send("POST / HTTP/1.1\r\nHost: x\r\n\r\nVSET a [1]\r\n");
    expect(await client.untilEnd()).toBe("");
  });

  it("should answer QUIT and run nothing after it", async () => {
    await start();
    const client = await harness.client();
    client.send("QUIT\r\nPING\r\n");
    expect(await client.untilEnd()).toBe("+OK\r\n");
  });

  it("should refuse clients beyond the limit and serve those that are there", async () => {
    await start({ clientsMax: 1 });
    const first = await harness.client();
    await first.call("PING");
    const second = await harness.client();
    expect(await second.untilEnd()).toBe("-ERR max number of clients reached\r\n");
    expect(await first.call("PING")).toBe("PONG");
  });

  it("should be closed at once though a client that was told goodbye keeps its side open", async () => {
    await start({ farewellMs: 3_600_000 });
    for (const [bytes, reason] of [
      ["*1\r\nfoo\r\n", "protocol-error"],
      ["QUIT\r\n", "quit"],
    ] as const) {
      const client = await harness.client({ allowHalfOpen: true });
      client.send(bytes);
      await expect.poll(() => harness.metrics.closedBy(reason)).toBe(1);
      await expect.poll(() => harness.server.connections).toBe(0);
    }
    expect(harness.server.leaving).toBe(2);
    await harness.server.close();
    await expect.poll(() => harness.server.leaving).toBe(0);
    expect(harness.metrics.closedBy("shutdown")).toBe(0);
  });

  it("should let go of a client that was told goodbye and does not hang up", async () => {
    await start({ farewellMs: 20 });
    const client = await harness.client({ allowHalfOpen: true });
    client.send("*1\r\nfoo\r\n");
    await expect.poll(() => harness.metrics.closedBy("protocol-error")).toBe(1);
    await expect.poll(() => harness.server.leaving).toBe(0);
  });

  it("should let go of refused clients that had sent something", async () => {
    await start({ clientsMax: 1 });
    const first = await harness.client();
    await first.call("PING");
    for (let i = 0; i < 20; i += 1) {
      const refused = await harness.client();
      refused.send(encodeRequest(["HELLO", 3]));
      expect(await refused.untilEnd()).toBe("-ERR max number of clients reached\r\n");
    }
    await expect.poll(() => harness.server.leaving).toBe(0);
    await harness.server.close();
  });

  it("should let go of clients whose malformed request came while an answer was awaited", async () => {
    const { core } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    for (let i = 0; i < 3; i += 1) {
      const { promise, resolve } = Promise.withResolvers<void>();
      core.gate = promise;
      const asked = core.gated;
      const leaver = await harness.client();
      leaver.send("VSIM docs ELE a\r\n*x\r\n");
      await expect.poll(() => core.gated).toBe(asked + 1);
      leaver.send("PING\r\n");
      resolve();
      expect(await leaver.untilEnd()).toContain("-ERR Protocol error");
    }
    await expect.poll(() => harness.server.leaving).toBe(0);
    expect(harness.server.connections).toBe(1);
  });

  it("should keep a client that reads slowly, and all the time", async () => {
    // It reads more at once than kernels buffer (some megabytes), then rests for a third of the limit.
    const slowReaderMs = 1_500;
    const [burst, bytes] = [8, 48].map((mib) => mib * 1024 * 1024) as [number, number];
    await start({ slowReaderMs });
    const socket = connect(harness.port, "127.0.0.1");
    const ended = new Promise((resolve) => socket.once("close", resolve));
    let read = 0;
    let rests = 0;
    socket.on("data", (chunk) => {
      read += chunk.length;
      if (read >= bytes) socket.end();
      if (read < (rests + 1) * burst) return;
      rests += 1;
      socket.pause();
      setTimeout(() => socket.resume(), slowReaderMs / 3);
    });
    const began = performance.now();
    socket.write(encodeRequest(["ECHO", "x".repeat(bytes)]));
    await ended;
    expect([read >= bytes, harness.metrics.closedBy("slow-reader")]).toEqual([true, 0]);
    expect(performance.now() - began, "too quick to say anything").toBeGreaterThan(1.5 * slowReaderMs);
  });

  it("should hold nothing for clients that are idle, whatever they asked before", async () => {
    await start();
    const client = await harness.client();
    const request = encodeRequest(["NOSUCH", Buffer.alloc(1024 * 1024, 65)]);
    client.send(request.subarray(0, -1));
    await expect.poll(() => harness.server.inputBytes).toBeGreaterThan(request.length - 2);
    client.send(request.subarray(-1));
    expect(String(await client.read())).toContain("unknown command");
    expect(harness.server.inputBytes).toBe(0);
    client.send(request.subarray(0, -1));
    await expect.poll(() => harness.server.inputBytes).toBeGreaterThan(0);
    client.socket.destroy();
    await expect.poll(() => harness.server.inputBytes).toBe(0);
  });

  it("should bound what all clients together have sent, and always take a small request", async () => {
    await start({ inputBytesMax: 2 * 1024 * 1024 });
    const large = encodeRequest(["NOSUCH", Buffer.alloc(700 * 1024, 65)]).subarray(0, -1);
    const [first, second] = [await harness.client(), await harness.client()];
    first.send(large);
    await expect.poll(() => harness.server.inputBytes).toBeGreaterThan(700 * 1024);
    second.send(large);
    await second.untilEnd();
    expect(harness.metrics.closedBy("input-limit")).toBe(1);
    const third = await harness.client();
    expect(await third.call("ECHO", "x".repeat(16 * 1024))).toHaveLength(16 * 1024);
  });

  it("should ask the engine for as many results at once as one search may have, and no more", async () => {
    const { core } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    const large = ["VSIM", "docs", "ELE", "a", "COUNT", 4_000];
    const replies = await client.pipeline([
      large,
      large,
      ["VSIM", "docs", "X", "y"],
      large,
      SIMILAR,
      large,
      ["PING"],
    ]);
    expect(core.searches).toEqual([2, 3]);
    expect(replies.filter((reply) => Array.isArray(reply))).toHaveLength(5);
    expect(String(replies[2])).toContain("must be ELE");
    expect(replies[6]).toBe("PONG");
  });

  it("should refuse an answer that is too large, and go on", async () => {
    const { core } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    const plain = core.search.bind(core);
    const attrs = new Uint8Array(ANSWER_BYTES_MAX);
    core.search = async (requests) => (await plain(requests)).map((reply) => ({ ...reply, attrs }));
    expect(String(await client.call(...SIMILAR))).toContain("ask for fewer");
    core.search = plain;
    expect(await client.call(...SIMILAR)).toEqual(["a"]);
  });

  it("should write the answers of a group as the client takes them", async () => {
    await start({ outputBytesMax: 2 * 1024 * 1024 });
    const client = await harness.client();
    const attrs = JSON.stringify({ text: "x".repeat(60_000) });
    await client.call(...add("a"), "SETATTR", attrs);
    const replies = await client.pipeline(Array.from({ length: 100 }, () => ["VGETATTR", "docs", "a"]));
    expect(replies).toEqual(Array.from({ length: 100 }, () => attrs));
  });

  it("should close a client that never reads its replies", async () => {
    await start({ slowReaderMs: 50 });
    const client = await harness.client();
    client.socket.pause();
    const text = "x".repeat(1024 * 1024);
    const request = encodeRequest(["ECHO", text]);
    for (let i = 0; i < 24; i += 1) client.send(request);
    await expect.poll(() => harness.metrics.closedBy("slow-reader"), { timeout: 10_000 }).toBe(1);
    const other = await harness.client();
    expect(await other.call("PING")).toBe("PONG");
  });

  it("should close a client whose waiting replies outgrow the limit", async () => {
    await start({ outputBytesMax: 1024 });
    const client = await harness.client();
    client.socket.pause();
    const request = encodeRequest(["ECHO", "x".repeat(8 * 1024 * 1024)]);
    client.send(request);
    client.send(request);
    await expect.poll(() => harness.metrics.closedBy("output-limit"), { timeout: 10_000 }).toBe(1);
  });

  it("should survive any bytes, and go on serving others", async () => {
    await start();
    const steady = await harness.client();
    const soup = fc.array(
      fc.oneof(
        fc.constantFrom(
          "*1\r\n$4\r\nPING\r\n",
          "*2\r\n",
          "$3\r\n",
          "\r\n",
          "VSIM docs ELE a\r\n",
          "HELLO 3\r\n",
          '"',
        ),
        fc.string({ maxLength: 20 }),
        fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("latin1")),
      ),
      { maxLength: 20 },
    );
    await fc.assert(
      fc.asyncProperty(soup, async (parts) => {
        const client = await harness.client();
        client.socket.end(Buffer.from(parts.join(""), "latin1"));
        await client.untilEnd();
        expect(await steady.call("PING")).toBe("PONG");
      }),
      { numRuns: 200 },
    );
    await expect.poll(() => harness.server.connections).toBe(1);
  });

  it("should survive a client that leaves in the middle of a search", async () => {
    const { core } = await start();
    const client = await harness.client();
    await client.call(...add("a"));
    const { promise, resolve } = Promise.withResolvers<void>();
    core.gate = promise;
    client.send(encodeRequest(SIMILAR));
    client.socket.destroy();
    await expect.poll(() => harness.server.connections).toBe(0);
    resolve();
    const other = await harness.client();
    expect(await other.call(...SIMILAR)).toEqual(["a"]);
  });
});
