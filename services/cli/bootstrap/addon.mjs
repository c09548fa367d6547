/*
 * Builds the Rust core once with plain cargo and puts the addon where @vexlake/core loads it.
 *
 * 1. Digest of everything that goes in (crates, schemas, lockfile, toolchain, profile): when the
 *    stamp of the last build says the same and the files are there, nothing is done.
 * 2. `cargo tree` tells how many packages the build has; cargo's JSON messages tell which are
 *    finished: "crates 120/212, about 2 min 10 s left".
 * 3. The cdylib is copied beside @vexlake/core under a name with platform and profile, by rename,
 *    because a running process may have the old file mapped.
 *
 * Two profiles: `fast` is what `npm start` runs (~4 minutes once on two cores), `dev` is the
 * tests', built in one cargo call with the tests themselves so that features unify.
 */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { cpus } from "node:os";
import { join, relative, sep } from "node:path";
import { EXIT, LauncherError } from "./errors.mjs";
import { execute } from "./exec.mjs";
import { ROOT } from "./paths.mjs";
import { readJson, writeJson } from "./processes.mjs";
import { estimateSeconds, formatSeconds } from "./progress.mjs";

/** Clean builds, CPU seconds: the prior of the estimate until a tenth is done. */
const BUILD_CPU_SECONDS = { fast: 458, dev: 300 };
/** `cargo tree` prints a line per edge: some thousand lines of 60 characters. */
const TREE_CHARS_MAX = 16 * 1024 * 1024;
const PACKAGE_ARGS = ["-p", "vexlake-node", "-p", "vexlake-embed"];

/** Where the addon of a profile lies: @vexlake/core loads `fast`'s unless VEXLAKE_CORE names another. */
export function addonPath(profile, root = ROOT) {
  const suffix = profile === "fast" ? "" : `.${profile}`;
  return join(root, "crates", "node", `vexlake.${process.platform}-${process.arch}${suffix}.node`);
}

/** SHA-256 over the names and contents of all inputs of the build. */
export function sourcesDigest(root = ROOT) {
  const files = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"].map((name) => join(root, name));
  for (const folder of ["crates", "schemas"]) {
    if (existsSync(join(root, folder))) files.push(...filesUnder(join(root, folder)));
  }
  const hash = createHash("sha256");
  for (const file of files.sort()) {
    hash.update(relative(root, file).split(sep).join("/")).update("\0");
    hash.update(readFileSync(file)).update("\0");
  }
  return hash.digest("hex");
}

function filesUnder(folder) {
  const found = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== "node_modules") found.push(...filesUnder(path));
    // JavaScript beside the addon and the built addon itself are not inputs.
    else if (entry.isFile() && !/\.(node|js|mjs|ts|tmp)$/.test(entry.name)) found.push(path);
  }
  return found;
}

/** Pure: distinct packages in the output of `cargo tree --prefix none`; repeated ones carry a `(*)`. */
export function countPackages(tree) {
  const lines = tree.split("\n").map((line) => line.replace(/ \(\*\)$/, "").trim());
  return new Set(lines.filter((line) => line !== "")).size;
}

/** Collects cargo's JSON messages: packages done, and the files we are after. */
export class CargoMessages {
  done = new Set();
  /** Those that were up to date already: they say nothing about the pace. */
  fresh = 0;
  addon = undefined;
  embed = undefined;

  accept(line) {
    if (!line.startsWith("{")) return;
    const message = JSON.parse(line);
    if (message.reason !== "compiler-artifact" || message.target.kind.includes("custom-build")) return;
    if (message.fresh && !this.done.has(message.package_id)) this.fresh += 1;
    this.done.add(message.package_id);
    const { name, kind } = message.target;
    if (name === "vexlake_node" && kind.includes("cdylib") && !message.profile.test) {
      this.addon = message.filenames.find((file) => /\.(so|dylib|dll)$/.test(file));
    }
    if (name === "vexlake-embed" && kind.includes("bin") && !message.profile.test)
      this.embed = message.executable;
  }
}

/**
 * Builds unless nothing changed; answers {addon, embed, built}: absolute paths. `withTests` builds
 * the whole workspace's tests in the same call. `locked` refuses a lockfile that is out of date.
 * `onSources()` is called when the sources of all dependencies are on this machine.
 * @param {{profile: "dev" | "fast", progress: import("./progress.mjs").Progress, withTests?: boolean, locked?: boolean, root?: string, onSources?: () => void}} options
 * @returns {Promise<{addon: string, embed: string, built: boolean}>}
 */
export async function buildAddon(options) {
  const { profile, progress, withTests = false, locked = true, root = ROOT, onSources = () => {} } = options;
  const digest = sourcesDigest(root);
  const stampFile = join(root, "target", `vexlake-${profile}.json`);
  const stamp = readJson(stampFile);
  const addon = addonPath(profile, root);
  if (!withTests && stamp?.digest === digest && existsSync(addon) && existsSync(stamp.embed)) {
    onSources();
    return { addon, embed: stamp.embed, built: false };
  }
  const phase = progress.phase(`build the core (${profile})`);
  try {
    const messages = await runCargo({ profile, withTests, locked, root, phase, onSources });
    const temporary = `${addon}.${process.pid}.tmp`;
    copyFileSync(messages.addon, temporary);
    renameSync(temporary, addon);
    mkdirSync(join(root, "target"), { recursive: true });
    writeJson(stampFile, { digest, embed: messages.embed });
    phase.done(`${messages.done.size} crates`);
    return { addon, embed: messages.embed, built: true };
  } catch (error) {
    phase.fail();
    throw error;
  }
}

async function runCargo({ profile, withTests, locked, root, phase, onSources }) {
  const lock = locked ? ["--locked"] : [];
  phase.update("reading the dependency graph (downloads sources the first time)");
  const total = await countCrates(withTests, lock, root);
  onSources();
  const what = withTests ? ["--workspace", "--lib", "--bins", "--tests"] : PACKAGE_ARGS;
  const messages = new CargoMessages();
  const startedAt = Date.now();
  const expected = BUILD_CPU_SECONDS[profile] / cpus().length;
  const show = () => {
    // What an incremental build has left are our own few crates, which no pace foretells.
    const incremental = messages.fresh > total / 2;
    const elapsed = (Date.now() - startedAt) / 1000;
    const seconds = incremental ? undefined : estimateSeconds(messages.done.size, total, elapsed, expected);
    const left = seconds === undefined || seconds < 1 ? "" : `, about ${formatSeconds(seconds)} left`;
    phase.update(`crates ${messages.done.size}/${total}${left}`);
  };
  const timer = setInterval(show, 1000);
  const args = ["build", "--profile", profile, ...what, ...lock, "--message-format=json-render-diagnostics"];
  const result = await execute("cargo", args, { cwd: root, onLine: (line) => messages.accept(line) });
  clearInterval(timer);
  if (result.code !== 0) {
    throw new LauncherError(
      cargoExit(result.stderr),
      `cargo ${args.slice(0, -1).join(" ")} failed:\n${result.stderr.slice(-6000)}`,
    );
  }
  if (!messages.addon || !messages.embed)
    throw new LauncherError(EXIT.internal, "cargo built no addon or no embedder");
  return messages;
}

/** A registry out of reach is another failure than code that does not compile. */
function cargoExit(stderr) {
  const network = /failed to download|could not resolve host|network failure|failed to (query|fetch|get) /i;
  return network.test(stderr) ? EXIT.unreachable : EXIT.checkFailed;
}

/** As a side effect cargo fetches the sources of all dependencies. */
async function countCrates(withTests, lock, root) {
  const what = withTests
    ? ["--workspace", "-e", "normal,build,dev"]
    : [...PACKAGE_ARGS, "-e", "normal,build"];
  const args = ["tree", "--prefix", "none", "-f", "{p}", ...what, ...lock];
  const result = await execute("cargo", args, { cwd: root, outputMax: TREE_CHARS_MAX });
  if (result.code !== 0) {
    throw new LauncherError(cargoExit(result.stderr), `cargo tree failed:\n${result.stderr.slice(-3000)}`);
  }
  return countPackages(result.stdout);
}
