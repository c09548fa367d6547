/*
 * Where things lie. One place for the checkout's root, the user's cache directory and the
 * layout of a data directory, so that no other file composes these paths itself.
 *
 * Plain Node built-ins on any Node >= 18: this runs before the first install.
 */
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The checkout: three folders above this file. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");

/** Downloads shared by all checkouts of one user (XDG_CACHE_HOME, else the platform's place). */
export function cacheDir(env = process.env, platform = process.platform) {
  if (env.XDG_CACHE_HOME) return join(env.XDG_CACHE_HOME, "vexlake");
  if (platform === "darwin") return join(homedir(), "Library", "Caches", "vexlake");
  return join(homedir(), ".cache", "vexlake");
}

/** The layout of `--data-dir`; names are fixed, see the design's section on surfaces. */
export function dataLayout(dataDir) {
  const base = resolve(dataDir);
  const run = join(base, "run");
  return {
    base,
    lake: join(base, "lake"),
    log: join(base, "log"),
    kafka: join(base, "kafka"),
    redis: join(base, "redis"),
    run,
    pids: join(run, "pids"),
    ports: join(run, "ports.json"),
    // `run/lock` itself is taken by the process that owns the lake, with or without a launcher.
    launcherLock: join(run, "launcher.lock"),
    choice: join(run, "choice.json"),
  };
}
