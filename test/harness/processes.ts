/*
 * `vexlake` as a real child process: what a person or an orchestrator starts, with nothing in between.
 *
 *   const node = await startVexlake("ingest", { dir, config });   // resolves at the `ready …` line
 *   await node.kill();                                            // SIGKILL, and gone
 *   expect(await node.stop()).toBe(0);                            // SIGTERM, and the exit code
 *   const { code, stdout } = await vexlake(["verify", "--json", …]);
 *
 * The children run main.ts under the Node of this test process, which is the pinned one. Each gets a
 * data directory of its own below `dir`, as processes on different machines would have. Their environment
 * is the tests', less every VEXLAKE_ variable but VEXLAKE_CORE: a configuration comes from `config` alone.
 * Children that a failed test leaves behind are killed when the file ends.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll } from "vitest";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";

const MAIN = join(ROOT, "services", "cli", "main.ts");
/** 1 s of CPU for Node, the addon of the dev profile and the first reads; twenty of them on a full machine. */
const READY_MS_MAX = 90_000;
/** Closing parts have 20 s each; a flush to a slow store is the longest. */
const STOP_MS_MAX = 60_000;
/** A verify of a hundred thousand records takes seconds. */
const COMMAND_MS_MAX = 180_000;
const POLL_MS = 20;

export type Role = "up" | "ingest" | "query" | "compactor";

/** vexlake.yaml as an object: YAML reads JSON. */
export type Configuration = Record<string, Record<string, unknown>>;

export interface StartOptions {
  /** Of this test; data directories, configurations and logs lie here. */
  dir: string;
  /** Names the data directory; two processes with one name share it. Default: the role. */
  name?: string;
  config: Configuration;
  args?: string[];
  env?: Record<string, string>;
}

/** How a process ended: an exit code or a signal. */
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface Vexlake {
  role: Role;
  pid: number;
  dataDir: string;
  configFile: string;
  /** Of the ready line: resp, http, log, store, version. */
  ready: Record<string, string>;
  http: string;
  resp: { host: string; port: number };
  /** Everything written to stderr so far. */
  log(): string;
  ended: Promise<Ended>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGTERM; answers the exit code. */
  stop(): Promise<number>;
}

const children = new Set<ChildProcess>();

afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
});

/** Starts a role and waits for its ready line; a role that ends before it is an error with its last words. */
export async function startVexlake(role: Role, options: StartOptions): Promise<Vexlake> {
  const { dir, config, args = [], env = {} } = options;
  const name = options.name ?? role;
  const dataDir = join(dir, name);
  const configFile = writeConfiguration(dir, name, config);
  const child = run([role, "--config", configFile, "--data-dir", dataDir, ...args], env);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const ended = endOf(child);
  let end: Ended | undefined;
  void ended.then((value) => {
    end = value;
  });
  const line = await until(
    `vexlake ${role} to be ready`,
    () => {
      if (end) throw new Error(`vexlake ${role} ended with ${JSON.stringify(end)}:\n${stderr()}`);
      return /^ready .*$/m.exec(stdout())?.[0];
    },
    READY_MS_MAX,
  ).catch((error: Error) => {
    child.kill("SIGKILL");
    throw new Error(`${error.message}\n${stderr()}`);
  });
  const ready = Object.fromEntries(
    line
      .split(" ")
      .slice(1)
      .map((word) => halves(word)),
  );
  const [host, port] = halves(ready.resp ?? ":0", ":");
  const signal = async (which: NodeJS.Signals): Promise<Ended> => {
    child.kill(which);
    return await within(`vexlake ${role} to end after ${which}`, ended, STOP_MS_MAX);
  };
  return {
    role,
    pid: child.pid as number,
    dataDir,
    configFile,
    ready,
    http: `http://${ready.http}`,
    resp: { host, port: Number(port) },
    log: stderr,
    ended,
    kill: async () => {
      await signal("SIGKILL");
    },
    stop: async () => {
      const { code, signal: by } = await signal("SIGTERM");
      if (code === null) throw new Error(`vexlake ${role} was ended by ${by}:\n${stderr()}`);
      return code;
    },
  };
}

export interface CommandResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a command to its end. */
export async function vexlake(args: string[], env: Record<string, string> = {}): Promise<CommandResult> {
  const child = run(args, env);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  const what = `vexlake ${args.join(" ")}`;
  const { code } = await within(what, endOf(child), COMMAND_MS_MAX).finally(() => child.kill("SIGKILL"));
  return { code, stdout: stdout(), stderr: stderr() };
}

/** As `vexlake`, for a command that prints JSON; an exit code other than 0 is an error. */
export async function vexlakeJson<T>(args: string[], env: Record<string, string> = {}): Promise<T> {
  const { code, stdout, stderr } = await vexlake([...args, "--json"], env);
  if (code !== 0) throw new Error(`vexlake ${args.join(" ")} ended with ${code}:\n${stderr}\n${stdout}`);
  return JSON.parse(stdout) as T;
}

export function writeConfiguration(dir: string, name: string, config: Configuration): string {
  mkdirSync(dir, { recursive: true });
  const file = join(dir, `${name}.yaml`);
  writeFileSync(file, `${JSON.stringify(config, null, 2)}\n`);
  return file;
}

/** Polls until `probe` answers something truthy; throws what it throws, and past the deadline. */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  deadlineMs = 60_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const value = await probe();
    if (value) return value as NonNullable<T>;
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** The promise's value, or an error past the deadline. */
export async function within<T>(what: string, promise: Promise<T>, deadlineMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function run(args: string[], env: Record<string, string>): ChildProcess {
  const own = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("VEXLAKE_") && !/^(AWS|VITEST)/.test(name),
  );
  const child = spawn(process.execPath, ["--disable-warning=TimeoutNegativeWarning", MAIN, ...args], {
    env: { ...Object.fromEntries(own), VEXLAKE_CORE: process.env.VEXLAKE_CORE, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const parts: Buffer[] = [];
  stream?.on("data", (part: Buffer) => parts.push(part));
  return () => Buffer.concat(parts).toString("utf8");
}

/** `close`, not `exit`: the output is complete then. */
function endOf(child: ChildProcess): Promise<Ended> {
  return new Promise((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal }));
  });
}

/** "a=b=c" → ["a", "b=c"]. */
function halves(text: string, separator = "="): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}
