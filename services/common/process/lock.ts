/**
 * A process lock: one process per directory.
 *
 * The file holds who its owner is (identity.ts).
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
import { randomUUID } from "node:crypto";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { VexError } from "./error.ts";
import { isRunning, ownIdentity } from "./identity.ts";

/** Each try that fails has seen the owner change; five changes in a row are a crowd, not a race. */
export const LOCK_TRIES_MAX = 5;

export interface ProcessLock {
  readonly path: string;
  release(): Promise<void>;
}

export async function acquireLock(path: string, what: string): Promise<ProcessLock> {
  await mkdir(dirname(path), { recursive: true });
  const own = `${path}.${randomUUID()}`;
  const { pid, started } = ownIdentity();
  const line = `${pid} ${started} ${randomUUID()}\n`;
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
  const [pidText, started = ""] = seen.trim().split(" ");
  const pid = Number(pidText);
  if (isRunning({ pid, started })) {
    throw new VexError("IN_USE", `${what} is in use by process ${pid} (lock ${path})`, {
      fields: { path, pid },
    });
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
