import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Counter } from "prom-client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bearer } from "./admission.ts";
import { VexError, vexErrorFrom } from "./error.ts";
import { EXIT } from "./exit.ts";
import { HttpServer, readBody, sendJson } from "./http.ts";
import { isRunning, ownIdentity, startTimeOf } from "./identity.ts";
import { formatAddress, parseAddress } from "./listen.ts";
import { acquireLock } from "./lock.ts";
import { createLogger, type Logger, silentLogger } from "./logger.ts";
import { createRegistry, exposeSnapshot } from "./metrics.ts";
import { SAME_STOP_MS, Shutdown } from "./shutdown.ts";

describe("errors", () => {
  it("should_carry_code_exit_and_retriability", () => {
    const error = new VexError("UNAVAILABLE", "store is away", { fields: { doubt: true } });
    expect([error.retriable, error.doubt, error.exitCode]).toEqual([true, true, EXIT.unreachable]);
    expect(new VexError("UNAVAILABLE", "m", { retriable: false }).retriable).toBe(false);
    expect(new VexError("IN_USE", "m").exitCode).toBe(4);
  });

  it("should_take_over_the_core's_errors_and_call_the_rest_internal", () => {
    const core = Object.assign(new Error("lost the race"), { code: "CONFLICT", fields: { version: "7" } });
    expect(vexErrorFrom(core)).toMatchObject({ code: "CONFLICT", retriable: true, fields: { version: "7" } });
    const system = Object.assign(new Error("no such file"), { code: "ENOENT" });
    expect(vexErrorFrom(system)).toMatchObject({ code: "INTERNAL", exitCode: 70 });
    expect(vexErrorFrom("text").message).toBe("text");
    const same = new VexError("FENCED", "m");
    expect(vexErrorFrom(same)).toBe(same);
  });
});

describe("shutdown", () => {
  it("should_close_in_reverse_order_once_and_go_on_past_a_part_that_fails", async () => {
    const shutdown = new Shutdown(silentLogger());
    const order: string[] = [];
    shutdown.add("first", () => void order.push("first"));
    shutdown.add("broken", () => {
      order.push("broken");
      throw new Error("no");
    });
    shutdown.add("last", async () => void order.push("last"));
    expect(await Promise.all([shutdown.run("test"), shutdown.run("again")])).toEqual([
      EXIT.internal,
      EXIT.internal,
    ]);
    expect(order).toEqual(["last", "broken", "first"]);
  });

  it("should_take_copies_of_one_signal_for_one_and_a_later_one_for_a_second", async () => {
    let now = 0;
    const shutdown = new Shutdown(silentLogger(), { clock: () => now });
    const { promise, resolve } = Promise.withResolvers<void>();
    shutdown.add("slow", () => promise);
    const codes: number[] = [];
    const handlers = new Map<string | symbol, (signal: NodeJS.Signals) => void>();
    const on = vi.spyOn(process, "on").mockImplementation((name, handler) => {
      handlers.set(name, handler as (signal: NodeJS.Signals) => void);
      return process;
    });
    shutdown.onSignals((code) => codes.push(code));
    on.mockRestore();
    const interrupt = handlers.get("SIGINT") as (signal: NodeJS.Signals) => void;
    interrupt("SIGINT");
    now += SAME_STOP_MS - 1;
    interrupt("SIGINT");
    expect(codes).toEqual([]);
    now += 1;
    interrupt("SIGINT");
    expect(codes).toEqual([130]);
    resolve();
    await shutdown.run("end");
    expect(codes).toEqual([130, EXIT.ok]);
  });

  it("should_not_wait_for_a_part_beyond_its_deadline", async () => {
    const shutdown = new Shutdown(silentLogger(), { deadlineMs: 20 });
    let closed = false;
    shutdown.add("first", () => {
      closed = true;
    });
    shutdown.add("stuck", () => new Promise(() => {}));
    expect(await shutdown.run("test")).toBe(EXIT.internal);
    expect(closed).toBe(true);
  });
});

describe("logger", () => {
  it("should_write_json_lines_and_censor_secrets", () => {
    const lines: string[] = [];
    const logger = createLogger({
      role: "ingest",
      destination: { write: (line: string) => void lines.push(line) },
    });
    logger.info({ store: { secretKey: "s3cr3t", url: "s3://x" } }, "opened");
    const line = JSON.parse(lines[0] as string);
    expect(line).toMatchObject({ level: "info", role: "ingest", msg: "opened", store: { url: "s3://x" } });
    expect(lines[0]).not.toContain("s3cr3t");
  });
});

describe("http server", () => {
  let server: HttpServer;
  let base = "";
  beforeEach(async () => {
    const registry = createRegistry("query");
    new Counter({ name: "vexlake_test_total", help: "of this test", registers: [registry] }).inc(3);
    let scrapes = 7;
    exposeSnapshot(registry, () => JSON.stringify({ cache: { bytes: scrapes++ }, note: "text" }));
    server = new HttpServer({ registry, logger: silentLogger() });
    const { host, port } = await server.start(parseAddress("127.0.0.1:0"), true);
    base = `http://${host}:${port}`;
  });
  afterEach(() => server.close());

  it("should_be_live_always_and_ready_only_when_every_check_is", async () => {
    let reason: string | null = "opening";
    server.addReadyCheck("lake", () => reason);
    server.addReadyCheck("log", async () => null);
    expect((await fetch(`${base}/livez`)).status).toBe(200);
    const waiting = await fetch(`${base}/readyz`);
    expect([waiting.status, await waiting.json()]).toEqual([
      503,
      { ready: false, checks: { lake: "opening", log: "ok" } },
    ]);
    reason = null;
    expect((await fetch(`${base}/readyz`)).status).toBe(200);
  });

  it("should_fail_a_readiness_check_that_throws_or_hangs", async () => {
    server.addReadyCheck("broken", () => {
      throw new Error("no");
    });
    server.addReadyCheck("stuck", () => new Promise(() => {}));
    const response = await fetch(`${base}/readyz`);
    expect(response.status).toBe(503);
    expect((await response.json()) as unknown).toMatchObject({ checks: { broken: "no", stuck: /./ } });
  });

  it("should_show_metrics_with_the_role_and_the_core's_snapshot", async () => {
    const text = await (await fetch(`${base}/metrics`)).text();
    expect(text).toContain('vexlake_test_total{role="query"} 3');
    expect(text).toContain('vexlake_cache_bytes{role="query"} 8');
    expect(text).not.toContain("note");
  });

  it("should_route_to_the_longest_prefix_and_turn_errors_into_statuses", async () => {
    server.mount("/", (_, response) => sendJson(response, 200, { at: "root" }));
    server.mount("/api", async (request, response) => {
      const body = await readBody(request, 10);
      sendJson(response, 200, { bytes: body.length, big: 10n });
    });
    expect(await (await fetch(`${base}/apinot`)).json()).toEqual({ at: "root" });
    const post = (body: string) => fetch(`${base}/api/x`, { method: "POST", body });
    expect(await (await post("12345")).json()).toEqual({ bytes: 5, big: "10" });
    const refused = await post("12345678901");
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([400, "INVALID"]);
  });

  it("should_move_off_a_taken_default_port_and_refuse_a_taken_given_one", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as AddressInfo;
    const other = new HttpServer({ registry: createRegistry("query"), logger: silentLogger() });
    try {
      await expect(other.start({ host: "127.0.0.1", port }, true)).rejects.toMatchObject({
        code: "IN_USE",
        exitCode: 4,
      });
      const moved = await other.start({ host: "127.0.0.1", port }, false);
      expect(moved.port).toBeGreaterThan(port);
    } finally {
      await other.close();
      await new Promise((resolve) => taken.close(resolve));
    }
  });

  it("should_call_a_port_or_address_that_cannot_be_had_a_configuration_error", async () => {
    const other = new HttpServer({ registry: createRegistry("query"), logger: silentLogger() });
    // TEST-NET-1: no machine has it.
    const failure = other.start({ host: "192.0.2.1", port: 8080 }, true);
    await expect(failure).rejects.toMatchObject({ code: "CONFIG", exitCode: EXIT.usage });
    await expect(failure).rejects.toThrow("cannot listen on 192.0.2.1:8080");
  });

  it("should_refuse_what_a_page_of_another_site_sends_for_every_mount", async () => {
    server.mount("/", (_, response) => sendJson(response, 200, {}));
    server.mount("/deep/er", (_, response) => sendJson(response, 200, {}));
    const status = async (method: string, headers: Record<string, string>) =>
      (await fetch(`${base}/deep/er`, { method, headers })).status;
    const foreign = [{ origin: "http://evil.example" }, { origin: "null" }];
    const sites = ["cross-site", "same-site"].map((site) => ({ "sec-fetch-site": site }));
    for (const headers of [...foreign, ...sites] as Record<string, string>[]) {
      expect(await status("POST", headers), JSON.stringify(headers)).toBe(403);
      expect(await status("DELETE", headers)).toBe(403);
      expect(await status("GET", headers)).toBe(200);
    }
    expect(await status("POST", { origin: base, "sec-fetch-site": "same-origin" })).toBe(200);
    expect(await status("POST", {})).toBe(200);
  });

  it("should_answer_only_the_probes_without_the_password", async () => {
    const closed = new HttpServer({
      registry: createRegistry("query"),
      logger: silentLogger(),
      password: "sécret:1",
    });
    closed.mount("/", (_, response) => sendJson(response, 200, {}));
    closed.mount("/api/v1/flush", (_, response) => sendJson(response, 200, {}));
    const at = `http://127.0.0.1:${(await closed.start({ host: "127.0.0.1", port: 0 }, true)).port}`;
    const statuses = async (authorization?: string): Promise<number[]> => {
      const headers = authorization === undefined ? {} : { authorization };
      const paths = ["/livez", "/readyz", "/metrics", "/", "/api/v1/flush", "/nowhere"];
      return await Promise.all(paths.map(async (path) => (await fetch(at + path, { headers })).status));
    };
    const basic = (pair: string) => `Basic ${Buffer.from(pair).toString("base64")}`;
    try {
      for (const wrong of [undefined, "Bearer secret", "Bearer ", basic("me:secret")])
        expect(await statuses(wrong), wrong).toEqual([200, 200, 401, 401, 401, 401]);
      for (const right of [bearer("sécret:1"), basic("me:sécret:1"), basic(":sécret:1")])
        expect(await statuses(right), right).toEqual([200, 200, 200, 200, 200, 200]);
      const refused = await fetch(at);
      expect(refused.headers.get("www-authenticate")).toContain("Basic");
      expect(await refused.json()).toMatchObject({ code: "UNAUTHENTICATED" });
    } finally {
      await closed.close();
    }
  });

  it("should_answer_every_path_without_calling_it_an_error_of_its_own", async () => {
    const errors: unknown[] = [];
    const logger = { error: (...args: unknown[]) => errors.push(args) } as unknown as Logger;
    const quiet = new HttpServer({ registry: createRegistry("query"), logger });
    const { port } = await quiet.start({ host: "127.0.0.1", port: 0 }, true);
    const statusOf = (target: string): Promise<number> =>
      new Promise((resolve, reject) => {
        const options = { port, path: target, agent: false };
        request(options, (response) => resolve(response.resume().statusCode ?? 0))
          .on("error", reject)
          .end();
      });
    try {
      expect(await Promise.all(["//", "//x//", "/%", "*"].map(statusOf))).toEqual([404, 404, 404, 400]);
      expect(errors).toEqual([]);
    } finally {
      await quiet.close();
    }
  });

  it("should_parse_addresses_and_refuse_others", () => {
    expect(parseAddress("[::1]:80")).toEqual({ host: "::1", port: 80 });
    for (const text of ["[::1]:80", "127.0.0.1:0", "name:9"])
      expect(formatAddress(parseAddress(text))).toBe(text);
    for (const bad of ["80", "host", "host:99999", "a b:1"])
      expect(() => parseAddress(bad)).toThrow(/host:port/);
  });
});

describe("identity of a process", () => {
  it("should_tell_a_process_from_another_one_that_has_its_pid", () => {
    expect(isRunning(ownIdentity())).toBe(true);
    expect(isRunning({ pid: process.pid, started: "1" })).toBe(false);
    expect(isRunning({ pid: Number.NaN, started: "1" })).toBe(false);
  });
});

describe("process lock", () => {
  let path = "";
  let directory = "";
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "vexlake-lock-"));
    path = join(directory, "run", "lock");
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it("should_have_one_winner_among_many_and_be_free_after_release", async () => {
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => acquireLock(path, "test")));
    const won = tries.filter((entry) => entry.status === "fulfilled");
    expect(won).toHaveLength(1);
    await won[0]?.value.release();
    await (await acquireLock(path, "test")).release();
  });

  it("should_take_a_lock_whose_owner_is_gone_or_whose_pid_is_another_process_now", async () => {
    const gone = spawn(process.execPath, ["-e", ""]);
    await new Promise((resolve) => gone.once("exit", resolve));
    await acquireLock(path, "test").then((lock) => lock.release());
    for (const owner of [`${gone.pid} 1 x`, `${process.pid} 1 x`, "garbage", ""]) {
      await writeFile(path, owner);
      const lock = await acquireLock(path, "test");
      expect(await readFile(path, "utf8")).toContain(`${process.pid} ${startTimeOf(process.pid)}`);
      await lock.release();
    }
  });
});
