import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../common/process/logger.ts";
import { createRegistry } from "../../common/process/metrics.ts";
import { type Query, startQuery } from "../main.ts";
import { REQUEST_BYTES_MAX } from "../resp/parser.ts";
import { FakeCore, FakeLog } from "../testing/fake-core.ts";
import { TestClient } from "../testing/harness.ts";

let core: FakeCore;
let log: FakeLog;
let query: Query;

async function start(password?: string): Promise<void> {
  core = new FakeCore();
  log = new FakeLog(core);
  query = await startQuery(
    {
      query: {
        resp: "127.0.0.1:0",
        http: "127.0.0.1:0",
        tail_bytes: 0,
        cache_bytes_max: 0,
        recall_sample_ratio: 0,
      },
    },
    {
      lake: core,
      log,
      visibility: log,
      logger: silentLogger(),
      registry: createRegistry("query"),
      version: "0.0.0",
      password,
      given: () => true,
      mounts: [{ path: "/jobs", title: "jobs", handler: (_, response) => response.end("the board") }],
    },
  );
}

beforeEach(async () => await start());

afterEach(async () => {
  await query.close();
});

interface Result {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of many shapes
  body: any;
}

async function http(method: string, path: string, body?: unknown, headers = {}): Promise<Result> {
  const response = await fetch(`http://127.0.0.1:${query.http.port}${path}`, {
    method,
    headers,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const json = response.headers.get("content-type")?.includes("json") === true;
  return { status: response.status, body: json ? JSON.parse(text) : text };
}

async function create(name = "docs"): Promise<void> {
  expect((await http("POST", "/api/v1/collections", { name, dim: 2 })).status).toBe(201);
}

describe("/api/v1/collections", () => {
  it("should create, list, show and drop", async () => {
    const created = await http("POST", "/api/v1/collections", {
      name: "a b/é",
      dim: 2,
      metric: "l2",
      partitions: 3,
    });
    expect(created).toMatchObject({
      status: 201,
      body: { name: "a b/é", dim: 2, metric: "l2", partitions: 3 },
    });
    expect(created.body.source.topic).toBe("vexlake.0.a.20b.2f.c3.a9");
    const path = `/api/v1/collections/${encodeURIComponent("a b/é")}`;
    expect((await http("GET", path)).body).toMatchObject({ records: 0 });
    expect((await http("GET", "/api/v1/collections")).body.collections).toHaveLength(1);
    expect((await http("GET", "/api/v1/collections?db=1")).body.collections).toHaveLength(0);
    expect((await http("POST", "/api/v1/collections", { name: "a b/é", dim: 2 })).status).toBe(409);
    expect((await http("DELETE", path)).status).toBe(200);
    expect(await http("GET", path)).toMatchObject({ status: 404, body: { code: "NOT_FOUND" } });
    expect(log.followed).toHaveLength(1);
  });

  it("should name the field that is wrong, and both values", async () => {
    const refuse = async (body: unknown): Promise<string> => {
      const { status, body: answer } = await http("POST", "/api/v1/collections", body);
      expect(status).toBe(400);
      return answer.message;
    };
    expect(await refuse({ name: "x" })).toBe("dim is missing");
    expect(await refuse({ dim: 2 })).toBe("name is missing");
    expect(await refuse({ name: "x", dim: 70_000 })).toBe(
      "dim is 70000, expected a whole number from 1 to 65536",
    );
    expect(await refuse({ name: "x", dim: 2, metric: "hamming" })).toBe(
      'metric is "hamming", expected cosine, l2, ip, l1',
    );
    expect(await refuse({ name: "x", dim: 2, metrc: "l2" })).toContain("field metrc is unknown");
    expect(await refuse("nonsense")).toContain("body is malformed");
    expect(core.stored.size).toBe(0);
  });
});

describe("/api/v1/records and /api/v1/search", () => {
  it("should write, read, patch, search and delete", async () => {
    await create();
    const put = (id: string, vector: unknown, attrs?: unknown): Promise<Result> =>
      http("PUT", "/api/v1/records", { collection: "docs", id, vector, attrs });
    expect((await put("a", [1, 0], { side: "e" })).body).toEqual({ existed: false });
    expect((await put("a", [1, 0.5])).body).toEqual({ existed: true });
    const blob = Buffer.from(Float32Array.from([0, 1]).buffer).toString("base64");
    expect((await put("b", blob)).status).toBe(200);
    expect((await http("GET", "/api/v1/records?collection=docs&id=a&id=nobody")).body).toEqual({
      records: [{ id: "a", vector: [1, 0.5], attrs: null }, null],
    });
    const patch = { collection: "docs", id: "a", attrs: { side: "E" } };
    expect((await http("PATCH", "/api/v1/records", patch)).status).toBe(200);
    expect((await http("PATCH", "/api/v1/records", { ...patch, id: "nobody" })).status).toBe(404);
    const search = { collection: "docs", vector: [1, 0], k: 1, with_attrs: true };
    const found = await http("POST", "/api/v1/search", search);
    expect(found.body).toMatchObject({ version: "1", results: [{ id: "a", attrs: { side: "E" } }] });
    const byId = await http("POST", "/api/v1/search", { collection: "docs", id: "b" });
    expect(byId.body.results.map((result: { id: string }) => result.id)).toEqual(["b", "a"]);
    expect((await http("DELETE", "/api/v1/records?collection=docs&id=a")).body).toEqual({ existed: true });
    expect((await http("GET", "/api/v1/records?collection=docs&id=a")).body).toEqual({ records: [null] });
    expect(log.waiting).toBe(0);
  });

  it("should refuse bad vectors before they reach the log", async () => {
    await create();
    for (const [vector, why] of [
      [[1, 2, 3], "Vector dimension mismatch - got 3 but set has 2"],
      ["AAAA", "vector is not base64"],
      [[1, "2"], "vector is not an array of numbers"],
      [[], "vector is not an array of numbers"],
      [null, "vector is missing"],
    ] as const) {
      const { status, body } = await http("PUT", "/api/v1/records", { collection: "docs", id: "a", vector });
      expect(status).toBe(400);
      expect(body.message).toContain(why);
    }
    const infinite = '{"collection":"docs","id":"a","vector":[1,1e999]}';
    expect((await http("PUT", "/api/v1/records", infinite)).body.message).toContain("not finite");
    expect(log.batches).toEqual([]);
    const both = { collection: "docs", id: "a", vector: [1, 2] };
    expect((await http("POST", "/api/v1/search", both)).body.message).toContain(
      "exactly one of vector and id",
    );
  });

  it("should agree with RESP on what is there", async () => {
    await create();
    const client = await TestClient.connect(query.resp.port);
    await client.call("VADD", "docs", "VALUES", 2, 1, 2, "from-resp");
    expect(
      (await http("GET", "/api/v1/records?collection=docs&id=from-resp")).body.records[0].vector,
    ).toEqual([1, 2]);
    client.socket.destroy();
  });

  it("should refuse routes, methods and bodies that are not there", async () => {
    expect((await http("GET", "/api/v1/nope")).status).toBe(404);
    expect((await http("GET", "/api/v1/search")).status).toBe(405);
    expect((await http("POST", "/api/v1/search", "x".repeat(9 * 1024 * 1024))).status).toBe(400);
  });

  it("should ask for the password where RESP asks for it", async () => {
    await query.close();
    await start("secret");
    expect((await http("GET", "/api/v1/collections")).status).toBe(401);
    expect(
      (await http("GET", "/api/v1/collections", undefined, { authorization: "Bearer secret" })).status,
    ).toBe(200);
  });
});

describe("pages and probes", () => {
  it("should answer /livez, /readyz, /metrics and what is mounted", async () => {
    const client = await TestClient.connect(query.resp.port);
    await client.call("PING");
    await client.call("VADD", "counted", "VALUES", 2, 1, 0, "a");
    await client.call("VSIM", "counted", "ELE", "a");
    await http("POST", "/api/v1/search", { collection: "counted", id: "a" });
    const limit = await client.call("CONFIG", "GET", "proto-max-bulk-len");
    expect(limit).toEqual(["proto-max-bulk-len", String(REQUEST_BYTES_MAX)]);
    expect((await http("GET", "/livez")).body).toEqual({ live: true });
    expect(await http("GET", "/readyz")).toMatchObject({ status: 200, body: { ready: true } });
    const { body } = await http("GET", "/metrics");
    expect(body).toContain('vexlake_commands_total{command="ping",code="OK",role="query"} 1');
    expect(body).toContain('vexlake_connections{role="query"} 1');
    // The fake core counts a row, seven re-ranked ones and five lists per search.
    expect(body).toContain('vexlake_query_rows_scanned_total{role="query"} 2');
    expect(body).toContain('vexlake_query_rows_reranked_total{role="query"} 14');
    expect(body).toContain('vexlake_query_lists_probed_total{role="query"} 10');
    expect(body).toMatch(/vexlake_command_seconds_count\{.*command="ping".*\} 1/);
    expect((await http("GET", "/jobs")).body).toBe("the board");
    client.socket.destroy();
  });

  it("should show collections on one page and escape what users named", async () => {
    await create("<script>");
    const { status, body } = await http("GET", "/");
    expect(status).toBe(200);
    expect(body).toContain("&#60;script&#62;");
    expect(body).not.toContain("<script>");
    expect(body).toContain('<a href="/jobs">jobs</a>');
    expect((await http("GET", "/nope")).status).toBe(404);
  });
});
