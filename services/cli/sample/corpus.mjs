/*
 * Cuts the sample corpus: documentation that lies on this machine anyway, as passages in JSONL.
 *
 * 1. Roots: this checkout's node_modules, the Rust registry sources, the modules that came with Node.
 *    Whichever is missing is left out, so this also runs before `npm install` and without Rust.
 * 2. Walk each root in sorted order; read markdown, doc comments of .d.ts and of .rs files (extract.mjs).
 * 3. Drop paragraphs seen before (versions and forks repeat each other), join the rest to passages
 *    (passages.mjs).
 * 4. Keep at most 200 passages a package, then `count` in all: those whose seeded hash is smallest.
 *    The same hash orders the output, so every prefix of the file is a fair sample of all packages.
 *
 * Same machine, same seed: same bytes. Keys are relative to their root and never name the machine.
 *
 *   node services/cli/sample/corpus.mjs --out passages.jsonl [--count 20000] [--seed 1] [--root label=dir]…
 *   node services/cli/sample/corpus.mjs --data-dir .vexlake      # writes <dir>/sample/passages.jsonl
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { declarationBlocks, markdownBlocks, rustBlocks } from "./extract.mjs";
import { cutPassages } from "./passages.mjs";

/** Fits the sample lake: 20,000 vectors of 256 floats are 20 MB and take seconds to embed. */
export const PASSAGES_WANTED = 20_000;
/** Below this the sample searches poorly; the cutter still writes, and says so. */
export const PASSAGES_ENOUGH = 10_000;
/** So that no package (typescript, libc) makes up more than 1 % of the corpus. */
const PASSAGES_PER_PACKAGE_MAX = 200;
/** The largest documentation file of note, TypeScript's lib.dom.d.ts, has about 2 MB. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;
/** A registry of 1,000 crates has about 40,000 sources; beyond this something else is being walked. */
const FILES_MAX = 400_000;
/** Deep enough for a module within a module's module; ends symlink-free but hostile trees. */
const DEPTH_MAX = 24;

/** Folders without prose of their own, and prose that repeats: changes and licences. */
const FOLDERS_SKIPPED = new Set([
  ".bin",
  ".git",
  "test",
  "tests",
  "__tests__",
  "benches",
  "fixtures",
  "target",
]);
const FILES_SKIPPED =
  /^(changelog|changes|history|release|licen[cs]e|copying|notice|security|code_of_conduct)/i;
const TRANSLATION = /[._-](zh|cn|ja|ko|ru|fr|de|es|pt|it|tr|vi|ar)([_-][a-z]{2,4})?\.md$/i;

/** The roots found on this machine, as {label, dir}. */
export function findRoots({ environment = process.env, checkout = checkoutRoot() } = {}) {
  const cargoHome = environment.CARGO_HOME ?? join(homedir(), ".cargo");
  const registry = join(cargoHome, "registry", "src");
  const candidates = [
    { label: "npm", dir: join(checkout, "node_modules") },
    ...listFolder(registry).map(({ name }) => ({ label: "crates", dir: join(registry, name) })),
    { label: "node", dir: resolve(dirname(process.execPath), "..", "lib", "node_modules") },
  ];
  return candidates.filter(({ dir }) => existsSync(dir));
}

/** Passages of all roots, chosen and ordered; see the steps above. */
export function cutCorpus({ roots, count = PASSAGES_WANTED, seed = 1 }) {
  const seen = new Set();
  const passages = [];
  const keys = new Set();
  for (const { label, dir } of roots) {
    for (const path of documentation(dir, label)) {
      const blocks = readBlocks(join(dir, path));
      cutPassages(blocks, seen).forEach(({ title, text }, index) => {
        const key = `${label}/${path}#${index + 1}`;
        // Two registries may hold the same crate; its paragraphs are gone by then, its keys may not be.
        if (keys.has(key)) return;
        keys.add(key);
        passages.push({ key, package: packageOf(label, path), path: `${label}/${path}`, title, text });
      });
    }
  }
  return choose(passages, count, seed);
}

function choose(passages, count, seed) {
  const ranked = passages
    .map((passage) => ({
      rank: createHash("sha256").update(`${seed}:${passage.key}`).digest("hex"),
      passage,
    }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1));
  const perPackage = new Map();
  const chosen = [];
  for (const { passage } of ranked) {
    const taken = perPackage.get(passage.package) ?? 0;
    if (taken >= PASSAGES_PER_PACKAGE_MAX) continue;
    perPackage.set(passage.package, taken + 1);
    chosen.push(passage);
    if (chosen.length === count) break;
  }
  return chosen;
}

/** Paths of documentation below `root`, relative to it, with forward slashes, sorted. */
function documentation(root, label) {
  const found = [];
  const walk = (folder, depth) => {
    for (const entry of listFolder(join(root, folder))) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (found.length === FILES_MAX) return;
      if (entry.isDirectory()) {
        const skip = FOLDERS_SKIPPED.has(entry.name) || depth === DEPTH_MAX;
        // Cargo writes .cargo-ok last: without it the crate is still being unpacked.
        const unpacking = label === "crates" && depth === 0 && !existsSync(join(root, path, ".cargo-ok"));
        if (!skip && !unpacking) walk(path, depth + 1);
      } else if (entry.isFile() && isDocumentation(entry.name)) {
        found.push(path);
      }
    }
  };
  walk("", 0);
  return found;
}

function isDocumentation(name) {
  if (name.endsWith(".md")) return !FILES_SKIPPED.test(name) && !TRANSLATION.test(name);
  return name.endsWith(".rs") || name.endsWith(".d.ts");
}

function readBlocks(file) {
  const text = readText(file);
  if (text === undefined) return [];
  const name = basename(file);
  if (name.endsWith(".md")) return markdownBlocks(text, basename(dirname(file)));
  return name.endsWith(".rs") ? rustBlocks(text, moduleName(file)) : declarationBlocks(text, name);
}

/** Nothing for a file too large, or gone since it was listed: an install may run beside the cutter. */
function readText(file) {
  return ifPresent(() => (statSync(file).size > FILE_BYTES_MAX ? undefined : readFileSync(file, "utf8")));
}

function ifPresent(read) {
  try {
    return read();
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  }
}

/** `src/de/mod.rs` → de, `src/lib.rs` → the crate's folder. */
function moduleName(file) {
  const stem = basename(file, ".rs");
  if (stem === "mod") return basename(dirname(file));
  return stem === "lib" || stem === "main" ? basename(resolve(file, "..", "..")) : stem;
}

/** `a/node_modules/@b/c/README.md` → @b/c; `serde-1.0.2/src/lib.rs` → serde. */
function packageOf(label, path) {
  if (label === "crates") return path.split("/")[0].replace(/-\d+\.\d+\.\d+.*$/, "");
  const parts = path.split("node_modules/").at(-1).split("/");
  return parts[0].startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
}

/** Entries sorted by code unit, so that no locale changes the corpus; none where there is no folder. */
function listFolder(folder) {
  const entries = ifPresent(() => readdirSync(folder, { withFileTypes: true })) ?? [];
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function checkoutRoot() {
  return resolve(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
}

/** A whole number from the command line, or an error that names the option. */
function wholeNumber(name, text) {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1)
    throw new Error(`--${name} is ${text}, needs a whole number from 1`);
  return number;
}

function parseRoot(text) {
  const [label, ...dir] = text.split("=");
  if (dir.length === 0) throw new Error(`--root is ${text}, needs label=directory`);
  return { label, dir: resolve(dir.join("=")) };
}

function main() {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      "data-dir": { type: "string" },
      count: { type: "string", default: String(PASSAGES_WANTED) },
      seed: { type: "string", default: "1" },
      root: { type: "string", multiple: true },
    },
  });
  const dataDir = values["data-dir"];
  const out = values.out ?? (dataDir === undefined ? undefined : join(dataDir, "sample", "passages.jsonl"));
  if (out === undefined) throw new Error("needs --out <file> or --data-dir <directory>");
  const passages = cutCorpus({
    roots: values.root?.map(parseRoot) ?? findRoots(),
    count: wholeNumber("count", values.count),
    seed: wholeNumber("seed", values.seed),
  });
  if (passages.length === 0) throw new Error("no documentation found: neither node_modules nor Rust sources");
  mkdirSync(dirname(resolve(out)), { recursive: true });
  // Renamed into place, so that a reader sees the whole file or none.
  writeFileSync(`${out}.part`, passages.map((passage) => `${JSON.stringify(passage)}\n`).join(""));
  renameSync(`${out}.part`, out);
  const packages = new Set(passages.map((passage) => passage.package)).size;
  const few = passages.length < PASSAGES_ENOUGH ? ` (few: ${PASSAGES_ENOUGH} make a good sample)` : "";
  console.log(`${passages.length} passages of ${packages} packages${few}`);
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    main();
  } catch (error) {
    console.error(`corpus: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 2;
  }
}
