/*
 * Downloads and tools built once per user. An entry is a folder whose name carries its version;
 * it is filled under a temporary name and renamed, so a half-made entry is never seen and two
 * processes that build the same one do not disturb each other (the second drops its own).
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheDir } from "../paths.mjs";

const inFlight = new Map();

/**
 * The folder of entry `key`; `build(folder)` fills it when it is absent.
 * @param {string} key
 * @param {(folder: string) => Promise<void>} build
 * @returns {Promise<string>}
 */
export function cached(key, build) {
  const running = inFlight.get(key);
  if (running) return running;
  const promise = fill(key, build).finally(() => inFlight.delete(key));
  inFlight.set(key, promise);
  return promise;
}

async function fill(key, build) {
  const entry = join(cacheDir(), key);
  if (existsSync(entry)) return entry;
  const temporary = `${entry}.${process.pid}.tmp`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  try {
    await build(temporary);
    renameSync(temporary, entry);
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    if (!existsSync(entry)) throw error;
  }
  return entry;
}

export function isCached(key) {
  return existsSync(join(cacheDir(), key));
}

export function sha256(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

export function sha256OfFile(path) {
  return sha256(readFileSync(path));
}
