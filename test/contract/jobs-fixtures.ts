/**
 * What the job suites share: payloads, a poll with a deadline, a handler that stops at a gate, and
 * a Redis of their own that may be killed (the harness's is shared, and without persistence).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import type { CompactionPayload, GcPayload } from "../../schemas/jobs.ts";
import { redisRuntime } from "../../services/cli/bootstrap/provision.mjs";
import type { JobHandler, JobLogger, JobResult, JobRun } from "../../services/common/jobs/runner.ts";
import { requiredServices } from "../harness/resolve.ts";

export const POLL_WAIT_MS = 15_000;
const POLL_INTERVAL_MS = 10;

/** 26 Crockford digits, the last ones counting, so that a failure names its fixture. */
export function ulid(n: number): string {
  return `01J0BS${String(n).padStart(20, "0")}`;
}

export function compaction(incarnation: number, spec = 0): CompactionPayload {
  return {
    collection: `db/c${incarnation}`,
    spec: {
      id: `spec-${incarnation}-${spec}`,
      incarnation: ulid(incarnation),
      kind: "merge",
      inputs: [ulid(1_000 + spec), ulid(2_000 + spec)],
      reason: `size tier: spec ${spec}`,
      bytesIn: 2_048,
      predictedBytes: 2_000,
      entriesIn: 20,
    },
  };
}

export function gc(reason = "schedule"): GcPayload {
  return { incarnation: null, graceMs: 60_000, dryRun: true, orphans: false, reason };
}

/** Polls until `probe` returns something other than undefined or false; the deadline's error shows the last state. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  waitMs = POLL_WAIT_MS,
): Promise<T> {
  const deadline = Date.now() + waitMs;
  let lastError: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      lastError = error;
    }
    if (Date.now() > deadline) throw new Error(`no ${what} within ${waitMs} ms`, { cause: lastError });
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
  }
}

/** A handler whose runs stay active until `release`; it answers an abort with "cancelled". */
export function gatedHandler<P>() {
  const runs: { payload: P; run: JobRun; release(result?: JobResult): void; fail(error: Error): void }[] = [];
  const handler: JobHandler<P> = (payload, run) =>
    new Promise<JobResult>((resolve, reject) => {
      runs.push({ payload, run, release: (result = { status: "done" }) => resolve(result), fail: reject });
      run.signal.addEventListener("abort", () => resolve({ status: "cancelled" }));
    });
  return { runs, handler };
}

export function recordingLogger(): JobLogger & {
  lines: { level: string; message: string; fields: object }[];
} {
  const lines: { level: string; message: string; fields: object }[] = [];
  const log = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, message, fields });
  return { lines, debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

export interface OwnRedis {
  url: string;
  /** SIGKILL: no shutdown save, connections break. */
  kill(): Promise<void>;
  /** The same port; with `persist`, the same append-only file. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** Where none can run the test is skipped, loudly, or fails when VEXLAKE_TEST_REQUIRE names redis. */
export async function startOwnRedis(
  context: { skip(note?: string): never },
  options: { persist: boolean },
): Promise<OwnRedis> {
  const runtime = redisRuntime();
  if (!runtime.usable) {
    if (requiredServices(process.env.VEXLAKE_TEST_REQUIRE).has("redis")) throw new Error(runtime.why);
    console.warn(`SKIPPED: ${runtime.why}`);
    context.skip(runtime.why);
  }
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), "vexlake-jobs-redis-"));
  const url = `redis://127.0.0.1:${port}/0`;
  let child: ChildProcess | null = null;

  const launch = async (): Promise<void> => {
    const append = options.persist
      ? ["--appendonly", "yes", "--appendfsync", "always"]
      : ["--appendonly", "no"];
    const place = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""];
    const policy = ["--maxmemory-policy", "noeviction"];
    const started = spawn(String(runtime.command), [...place, ...append, ...policy], { stdio: "ignore" });
    await once(started, "spawn");
    child = started;
    await until("answer of the test's redis", () => answers(url));
  };
  const kill = async (): Promise<void> => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  };

  await launch();
  return {
    url,
    kill,
    restart: launch,
    stop: async () => {
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answers(url: string): Promise<boolean> {
  const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 });
  client.on("error", () => undefined);
  try {
    await client.connect();
    return (await client.ping()) === "PONG";
  } catch {
    return false;
  } finally {
    client.disconnect();
  }
}
