/**
 * A process lock: one process per directory.
 *
 * The file holds pid and start time of its owner. The start time tells a live owner from an unrelated
 * process that got the same pid after a reboot or a crash.
 * 1. Write our line to a file of our own, then hard-link it to the lock's name: exactly one wins.
 * 2. Lost: read the owner. It runs → IN_USE (exit 4), naming it.
 * 3. It is gone → move the stale file aside. If what was moved is not what was read, another process
 *    replaced it in between: put it back and look again. Then try step 1 again.
 *
 * Not flock(2): Node has none, and a native module for one call is not worth its platforms. The window
 * in step 3 between move and put-back is bounded by two system calls; a third process that starts in
 * it is the accepted risk of a local, single-user directory. So is a directory that containers with pid
 * namespaces of their own share: they do not see each other's processes.
 */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { VexError } from "./error.ts";

/** Each try that fails has seen the owner change; five changes in a row are a crowd, not a race. */
export const LOCK_TRIES_MAX = 5;
/** A start time that the platform does not tell: the pid alone decides. */
const UNKNOWN = "unknown";

export interface ProcessLock {
  readonly path: string;
  release(): Promise<void>;
}

export async function acquireLock(path: string, what: string): Promise<ProcessLock> {
  await mkdir(dirname(path), { recursive: true });
  const own = `${path}.${randomUUID()}`;
  const line = `${process.pid} ${startTimeOf(process.pid) ?? UNKNOWN} ${randomUUID()}\n`;
  await writeFile(own, line);
  try {
    for (let tries = 0; tries < LOCK_TRIES_MAX; tries++) {
      if (await tryLink(own, path)) return { path, release: () => release(path, line) };
      await removeIfStale(path, what);
    }
  } finally {
    await rm(own, { force: true });
  }
  throw new VexError("IN_USE", `${what} is being taken by other processes (lock ${path})`, {
    fields: { path },
  });
}

async function tryLink(own: string, path: string): Promise<boolean> {
  try {
    await link(own, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function removeIfStale(path: string, what: string): Promise<void> {
  const seen = await readOrNull(path);
  if (seen === null) return;
  const [pidText, started] = seen.trim().split(" ");
  const pid = Number(pidText);
  if (Number.isInteger(pid) && pid > 0) {
    const running = startTimeOf(pid);
    const same = running === started || running === UNKNOWN || started === UNKNOWN;
    if (running !== null && same) {
      throw new VexError("IN_USE", `${what} is in use by process ${pid} (lock ${path})`, {
        fields: { path, pid },
      });
    }
  }
  const aside = `${path}.stale.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if ((await readOrNull(aside)) !== seen) await tryLink(aside, path);
  await rm(aside, { force: true });
}

async function release(path: string, line: string): Promise<void> {
  if ((await readOrNull(path)) === line) await rm(path, { force: true });
}

async function readOrNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}

/** Start time of a process in the platform's own words, null when no such process runs. */
export function startTimeOf(pid: number): string | null {
  if (process.platform === "linux") {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      // The command name may hold spaces and parentheses; fields count from after its last one.
      // Field 3 (state) is then index 0, so field 22 (start time in clock ticks) is index 19.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" ? null : (fields[19] ?? null);
    } catch {
      // Hidden from us (hidepid) is not gone.
      return runs(pid) ? UNKNOWN : null;
    }
  }
  if (process.platform === "win32") return runs(pid) ? UNKNOWN : null;
  try {
    const shown = execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim();
    return shown === "" ? null : shown.replaceAll(" ", "_");
  } catch {
    return null;
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
