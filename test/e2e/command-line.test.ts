/*
 * Which lake a command acts on, what a password protects, and how commands end. Two `vexlake up` on local
 * logs: one open, one with a password; every command runs from the data directory of one of them.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bearer } from "../../services/common/process/admission.ts";
import { startVexlake, type Vexlake, vexlake, vexlakeJson } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/services.ts";
import { call, rawCall, redisOf } from "./client.ts";

const folder = temporaryFolder("vexlake-command-line-");
const config = {
  log: { kind: "local" },
  query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
  ingest: { http: "127.0.0.1:0" },
  compactor: { http: "127.0.0.1:0" },
};
const PASSWORD = { VEXLAKE_PASSWORD: "secret" };
let open: Vexlake;
let closed: Vexlake;
let redis: Redis;

beforeAll(async () => {
  [open, closed] = await Promise.all([
    startVexlake("up", { dir: folder.path, name: "open", config }),
    startVexlake("up", { dir: folder.path, name: "closed", config, env: PASSWORD }),
  ]);
  redis = redisOf(open);
  await redis.call("VADD", "docs", "VALUES", "2", "1", "0", "in-open");
});

afterAll(async () => {
  redis?.disconnect();
  await Promise.all([open?.stop(), closed?.stop()]);
  folder.remove();
});

const inOpen = (...words: string[]): string[] => [...words, "--data-dir", open.dataDir];
const inClosed = (...words: string[]): string[] => [...words, "--data-dir", closed.dataDir];
const nowhere = (...words: string[]): string[] => [...words, "--data-dir", join(folder.path, "nowhere")];
const portOf = (address: string | undefined): string => String(address).split(":").at(-1) as string;

describe("a password", () => {
  it("should protect every path but the probes, whoever mounted it", async () => {
    const paths = ["/", "/metrics", "/jobs", "/jobs/list.json", "/api/v1/collections"];
    for (const path of paths) {
      expect((await fetch(closed.http + path)).status, path).toBe(401);
      const headers = { authorization: bearer("secret") };
      expect((await fetch(closed.http + path, { headers })).status, path).toBe(200);
    }
    for (const path of ["flush", "verify", "replay", "accept"]) {
      const { status } = await rawCall(closed, "POST", `/api/v1/${path}?collection=docs`);
      expect(status, path).toBe(401);
    }
    expect((await rawCall(closed, "POST", "/jobs/pause")).status).toBe(401);
    for (const path of ["/livez", "/readyz"]) expect((await fetch(closed.http + path)).status).toBe(200);
  });

  it("should be sent by the commands, and its lack be a configuration error", async () => {
    await vexlakeJson(inClosed("collection", "create", "docs", "--dim", "2"), PASSWORD);
    await vexlakeJson(inClosed("flush", "docs"), PASSWORD);
    expect(await vexlakeJson(inClosed("search", "docs", "[1, 0]"), PASSWORD)).toEqual([]);
    for (const command of [inClosed("flush", "docs"), inClosed("search", "docs", "[1, 0]")]) {
      for (const env of [{}, { VEXLAKE_PASSWORD: "wrong" }] as Record<string, string>[]) {
        const { code, stderr } = await vexlake(command, env);
        expect(code, stderr).toBe(2);
        expect(stderr).toContain("UNAUTHENTICATED");
      }
    }
  });

  it("should protect an ingest process of its own as well", async () => {
    const ingest = await startVexlake("ingest", { dir: folder.path, name: "alone", config, env: PASSWORD });
    expect(Object.keys(ingest.ready)).toEqual(["http", "log", "store", "version"]);
    expect((await rawCall(ingest, "POST", "/api/v1/flush?collection=docs")).status).toBe(401);
    expect((await fetch(`${ingest.http}/livez`)).status).toBe(200);
    expect(await ingest.stop()).toBe(0);
  });
});

describe("a page of another site", () => {
  it("should be refused whatever it sends, whoever mounted the path", async () => {
    const headers = { origin: "http://evil.example", "sec-fetch-site": "cross-site" };
    const paths = ["collections", "records", "snapshots", "flush", "verify", "replay", "accept"];
    for (const path of paths) {
      const init = { method: "POST", headers, body: '{"name":"planted","dim":2}' };
      expect((await fetch(`${open.http}/api/v1/${path}?collection=docs`, init)).status, path).toBe(403);
    }
    expect(await redis.call("EXISTS", "planted")).toBe(0);
  });
});

describe("which lake a command acts on", () => {
  it("should be the one that runs in the data directory", async () => {
    // The configuration says port 0, which names nobody.
    for (const file of [[], ["--config", open.configFile]])
      expect(await vexlakeJson(inOpen("search", "docs", "[1, 0]", ...file))).toMatchObject([
        { id: "in-open" },
      ]);
  });

  it("should be the one whose port is named, even where another one runs", async () => {
    const resp = ["--port", portOf(closed.ready.resp)];
    const http = ["--http-port", portOf(closed.ready.http)];
    await vexlakeJson(inOpen("collection", "create", "named", "--dim", "2", ...http), PASSWORD);
    expect(await redis.call("EXISTS", "named")).toBe(0);
    expect(await vexlakeJson(inOpen("search", "named", "[1, 0]", ...resp), PASSWORD)).toEqual([]);
    for (const command of [
      ["flush", "named"],
      ["verify", "named"],
      ["source", "accept", "named"],
    ])
      await vexlakeJson(inOpen(...command, ...http), PASSWORD);
  });

  it("should be found by the named port alone, where none runs", async () => {
    const named = nowhere("search", "docs", "[1, 0]", "--port", portOf(open.ready.resp));
    expect(await vexlakeJson(named)).toMatchObject([{ id: "in-open" }]);
    const { code, stderr } = await vexlake(nowhere("search", "docs", "[1, 0]"));
    expect([code, stderr]).toEqual([5, expect.stringContaining("give --port")]);
  });

  it("should not be one whose announcement outlived it, or is damaged", async () => {
    const run = join(folder.path, "stale", "run");
    mkdirSync(run, { recursive: true });
    const address = { resp: open.ready.resp, http: open.ready.http };
    const up = { pid: process.pid, started: "1", ...address, log: { kind: "local" }, store: { url: "x" } };
    for (const text of [JSON.stringify({ up }), '{"up": {', "7"]) {
      writeFileSync(join(run, "ports.json"), text);
      const { code, stderr } = await vexlake(["flush", "docs", "--data-dir", join(folder.path, "stale")]);
      expect(code, stderr).toBe(5);
      expect(stderr).toContain("no running lake");
    }
  });
});

describe("explain", () => {
  it("should say what a search of the running lake takes, for programs and for people", async () => {
    const ask = inOpen("explain", "docs", "[1, 0]", "--count", "3", "--ef", "200");
    const explained = await vexlakeJson<Record<string, number | string>>(ask);
    expect(explained).toMatchObject({ scope: "fresh", results: 1, lists: 0, "rows-scanned": 1 });
    expect(explained["us-total"]).toBeGreaterThan(0);
    const { code, stdout } = await vexlake(inOpen("explain", "docs", "[1, 0]", "--truth"));
    expect(code).toBe(0);
    expect(stdout).toContain("fresh: 1 results\n");
    expect(stdout).toMatch(/^rows scanned +1$/m);
    expect(stdout).toMatch(/^the whole search +\d+$/m);
  });

  it("should refuse what is not a query, an effort or a collection", async () => {
    const refused: [words: string[], says: string][] = [
      [["explain", "docs"], "<text or [vector]> is missing"],
      [["explain", "docs", "[1, 0]", "--ef", "0"], "--ef is a whole number from 1 to 1000000"],
      [["explain", "docs", "[1, 0, 0]"], "got 3 but set has 2"],
      [["explain", "nope", "[1, 0]"], "key does not exist"],
    ];
    for (const [words, says] of refused) {
      const { code, stderr } = await vexlake(inOpen(...words));
      expect([code, stderr]).toEqual([2, expect.stringContaining(says)]);
    }
  });
});

describe("how a command ends", () => {
  it("should say what the server refused, without a stack, as HTTP would", async () => {
    const { code, stderr } = await vexlake(inOpen("search", "docs", "[1, 0, 0]"));
    expect(code).toBe(2);
    expect(stderr).toBe("vexlake: INVALID: Vector dimension mismatch - got 3 but set has 2\n");
  });

  it("should be 5 where nothing listens", async () => {
    for (const command of ["search docs [1,0]", "bench docs -n 1 -c 2"]) {
      const { code, stderr } = await vexlake(nowhere(...command.split(" "), "--port", "1"));
      expect(code, stderr).toBe(5);
      expect(stderr).toMatch(/^vexlake: UNREACHABLE: 127.0.0.1:1 does not answer: .*ECONNREFUSED.*\n$/);
    }
  });

  it("should be 2 for a log level that does not exist", async () => {
    const { code, stderr } = await vexlake(inOpen("flush", "docs"), { VEXLAKE_LOGGING: "loud" });
    expect([code, stderr]).toEqual([2, expect.stringContaining("VEXLAKE_LOGGING")]);
  });

  it("should be 1 for a collection that is not there, in gc too", async () => {
    const { code, stderr } = await vexlake(inOpen("gc", "no-such-name"));
    expect([code, stderr]).toEqual([1, expect.stringContaining("no collection 0/no-such-name")]);
  });

  it("should keep to the database that is given without a name", async () => {
    await call(open, "POST", "/api/v1/collections", { db: 3, name: "third", dim: 2 });
    expect(Object.keys(await vexlakeJson<object>(inOpen("verify", "--db", "3")))).toEqual(["3/third"]);
    const { collected } = await vexlakeJson<{ collected: object }>(inOpen("gc", "--db", "3"));
    expect(Object.keys(collected)).toEqual([expect.stringMatching(/^3\/third\//)]);
    expect(Object.keys(await vexlakeJson<object>(inOpen("verify")))).toEqual(["0/docs", "3/third"]);
  });

  it("should answer one JSON value for dlq replay, too", async () => {
    const dir = join(folder.path, "letters");
    const node = await startVexlake("up", { dir: folder.path, name: "letters", config });
    await call(node, "POST", "/api/v1/collections", { name: "docs", dim: 2 });
    await node.stop();
    expect(await vexlakeJson(["dlq", "replay", "docs", "--data-dir", dir])).toEqual({
      topic: "vexlake.0.docs",
      produced: 0,
    });
  });
});
