/*
 * Child processes that outlive a crash of their launcher without becoming a mystery.
 *
 * Every child has a pid file {pid, startTime, …details}. A pid alone proves nothing, because the
 * kernel reuses it: the process is ours only while its start time (clock ticks since boot from
 * /proc, or what `ps` prints) is the recorded one. A later start either adopts such a leftover
 * (when it still answers) or reaps it. Stopping is SIGTERM, a deadline, then SIGKILL, and the
 * start time is compared again before each signal.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { EXIT, LauncherError } from "./errors.mjs";

const POLL_MS = 20;
/** Kafka flushes its logs on SIGTERM: 0.5 s quiet, some seconds on a busy two-core machine. */
export const STOP_DEADLINE_MS = 20_000;

/** An opaque text that differs between two processes with one pid; undefined when none lives. */
export function startTimeOf(pid) {
  if (process.platform === "linux") {
    try {
      return parseStat(readFileSync(`/proc/${pid}/stat`, "latin1"));
    } catch {
      return undefined;
    }
  }
  try {
    const text = execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim();
    return text || undefined;
  } catch {
    return undefined;
  }
}

/** Pure: field 22 of /proc/<pid>/stat. The name in brackets may hold spaces and brackets itself. */
export function parseStat(text) {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // A zombie only waits for its parent: for every purpose here it has ended.
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

/** Pure given `startTime`: is the recorded process still that process? */
export function isSameProcess(record, startTime = startTimeOf) {
  if (!Number.isInteger(record?.pid) || record.pid <= 1 || !record.startTime) return false;
  return startTime(record.pid) === record.startTime;
}

export function writeJson(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, `${JSON.stringify(value, null, 2)}\n`);
  renameSync(temporary, path);
}

/** The parsed file, or undefined when it is absent or torn. */
export function readJson(path) {
  return parseJson(readText(path) ?? "");
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Starts a program with its output in `logFile` and a pid file beside. It stays in its own
 * process group, so that a terminal's Ctrl-C does not stop the broker before its clients.
 * `details` (ports and the like) are kept in the pid file for a later start.
 * @param {{name: string, command: string, args: string[], env?: NodeJS.ProcessEnv, cwd?: string, logFile: string, pidFile: string, details?: object}} program
 */
export async function startProcess({ name, command, args, env, cwd, logFile, pidFile, details = {} }) {
  mkdirSync(dirname(logFile), { recursive: true });
  const log = openSync(logFile, "a");
  const child = spawn(command, args, { cwd, env, stdio: ["ignore", log, log], detached: true });
  closeSync(log);
  await new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) =>
      reject(new LauncherError(EXIT.prerequisite, `${name} could not be started: ${error.message}`)),
    );
  });
  const record = { pid: child.pid, startTime: startTimeOf(child.pid), ...details };
  writeJson(pidFile, record);
  return new Supervised({ name, record, pidFile, logFile, child });
}

/** A leftover that is still the recorded process, or undefined; a stale pid file is removed. */
export function leftover(name, pidFile, logFile) {
  const record = readJson(pidFile);
  if (isSameProcess(record)) return new Supervised({ name, record, pidFile, logFile });
  rmSync(pidFile, { force: true });
  return undefined;
}

/** One running program: started here (`child`) or adopted from an earlier run. */
export class Supervised {
  #child;
  #exit;
  #stopping = false;

  constructor({ name, record, pidFile, logFile, child }) {
    this.name = name;
    this.record = record;
    this.pidFile = pidFile;
    this.logFile = logFile;
    this.adopted = child === undefined;
    this.#child = child;
    if (child) {
      this.#exit = new Promise((resolve) => {
        child.once("exit", (code, signal) => resolve({ code, signal }));
      });
    }
  }

  get pid() {
    return this.record.pid;
  }

  get stopping() {
    return this.#stopping;
  }

  alive() {
    if (this.#child) return this.#child.exitCode === null && this.#child.signalCode === null;
    return isSameProcess(this.record);
  }

  /** Resolves with {code, signal} when it has ended; an adopted one is polled and its code unknown. */
  async exited() {
    if (this.#exit) return await this.#exit;
    while (isSameProcess(this.record)) await delay(POLL_MS * 10);
    return { code: null, signal: null };
  }

  kill(signal) {
    if (!this.alive()) return false;
    try {
      process.kill(this.pid, signal);
      return true;
    } catch {
      return false;
    }
  }

  /** SIGTERM, wait, SIGKILL. Answers whether it went by itself; removes the pid file. */
  async stop(deadlineMs = STOP_DEADLINE_MS) {
    this.#stopping = true;
    this.kill("SIGTERM");
    let gentle = await this.#gone(deadlineMs);
    if (!gentle) {
      this.kill("SIGKILL");
      gentle = false;
      await this.#gone(deadlineMs);
    }
    rmSync(this.pidFile, { force: true });
    return gentle;
  }

  async #gone(deadlineMs) {
    const deadline = Date.now() + deadlineMs;
    while (this.alive()) {
      if (Date.now() > deadline) return false;
      await delay(POLL_MS);
    }
    return true;
  }

  /** The end of its log, for error messages. */
  logTail(lines = 15) {
    try {
      return readFileSync(this.logFile, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
    } catch {
      return "(no log)";
    }
  }
}

/**
 * Polls `probe` until it answers without throwing, the process ends, or the deadline passes.
 * The failure carries the end of the program's own log.
 */
export async function waitReady(supervised, probe, deadlineMs) {
  const deadline = Date.now() + deadlineMs;
  let last = "no attempt";
  while (Date.now() < deadline) {
    if (!supervised.alive()) break;
    try {
      return await probe();
    } catch (error) {
      last = error.message;
    }
    await delay(POLL_MS * 2);
  }
  const how = supervised.alive()
    ? `not ready after ${deadlineMs / 1000} s (${last})`
    : "ended while starting";
  const tail = supervised.logTail();
  await supervised.stop();
  throw new LauncherError(
    EXIT.unreachable,
    `${supervised.name}: ${how}\n${tail}\n(log: ${supervised.logFile})`,
  );
}

/** Each try that fails has seen the holder change; five changes in a row are a crowd, not a race. */
const LOCK_TRIES_MAX = 5;

/**
 * One launcher per data directory: a lock file with the holder's pid and start time. Answers a release
 * function. The algorithm is that of services/common/process/lock.ts, which says why: a finished file is
 * linked to the lock's name, and a dead holder's is moved aside, and put back if it was another one by then.
 */
export function takeLock(path) {
  mkdirSync(dirname(path), { recursive: true });
  const mine = `${JSON.stringify({ pid: process.pid, startTime: startTimeOf(process.pid), id: randomUUID() })}\n`;
  const own = `${path}.${randomUUID()}`;
  writeFileSync(own, mine);
  try {
    for (let tries = 0; tries < LOCK_TRIES_MAX; tries += 1) {
      if (tryLink(own, path)) return () => releaseLock(path, mine);
      removeIfDead(path);
    }
  } finally {
    rmSync(own, { force: true });
  }
  throw new LauncherError(EXIT.inUse, `${path} could not be taken: another start is racing this one`);
}

function tryLink(own, path) {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

function removeIfDead(path) {
  const seen = readText(path);
  if (seen === undefined) return;
  const holder = parseJson(seen);
  if (isSameProcess(holder)) {
    throw new LauncherError(
      EXIT.inUse,
      `${dirname(path)} is in use by process ${holder.pid}: stop it or use another --data-dir`,
    );
  }
  const aside = `${path}.stale.${randomUUID()}`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if (error.code === "ENOENT") return;
    throw error;
  }
  if (readText(aside) !== seen) tryLink(aside, path);
  rmSync(aside, { force: true });
}

function releaseLock(path, mine) {
  if (readText(path) === mine) rmSync(path, { force: true });
}

/** The pid file of a component inside a folder of pid files. */
export function pidFileIn(folder, name) {
  return join(folder, `${name}.json`);
}
