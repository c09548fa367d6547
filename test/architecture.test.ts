/*
 * The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can check, checked on every file that
 * git tracks or would track.
 *
 * Each rule is a pure function from files to complaints. It is tested twice: on this tree, where it must
 * find nothing, and on a planted violation, where it must find exactly that; so no rule can stop working
 * unseen. Left out on purpose: what the compiler, clippy, tsc and biome find by themselves.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const LINES_MAX = 500;

interface SourceFile {
  path: string;
  text: string;
}

type Rule = (files: SourceFile[]) => string[];

/** Which of our crates a crate may use. A new crate takes its place here first. */
const CRATES: Record<string, string[]> = {
  distance: [],
  store: [],
  embed: [],
  index: ["distance"],
  manifest: ["store"],
  segment: ["distance", "index", "store"],
  lsm: ["distance", "index", "store", "manifest", "segment"],
  node: ["distance", "store", "manifest", "lsm"],
};

/** Foreign crates that stand for a whole world, and the one crate of ours that knows it. */
const OWNED: Record<string, string> = {
  napi: "node",
  "napi-derive": "node",
  "napi-build": "node",
  object_store: "store",
  parquet: "segment",
};

const LOGGERS = ["log", "tracing", "env_logger", "tracing-subscriber"];

/** Where a program of its own begins: it may read arguments and print. */
const RUST_PROGRAMS = /^crates\/(embed\/src\/main\.rs|\w+\/examples\/)/;

function isTest(path: string): boolean {
  return /^test\/|\/tests\/|\/(tests|golden|testing|\w+_tests)\.rs$|\/testing\/|\.test\.ts$/.test(path);
}

function isProgram(path: string): boolean {
  return /\.(rs|ts|mjs|js|py|sh)$/.test(path);
}

/** Names of all dependencies that a Cargo.toml declares, of any kind and in any spelling. */
function dependenciesOf(manifest: string): string[] {
  const names: string[] = [];
  let within = false;
  for (const line of manifest.split("\n")) {
    const section = /^\s*\[([^\]]+)\]/.exec(line)?.[1];
    if (section !== undefined) {
      within = /(^|[.-])dependencies$/.test(section);
      const single = /(?:^|[.-])dependencies\.([\w-]+)$/.exec(section)?.[1];
      if (single !== undefined) names.push(single);
      continue;
    }
    const renamed = /\bpackage\s*=\s*"([\w-]+)"/.exec(line)?.[1];
    const name = renamed ?? (within ? /^\s*"?([\w-]+)"?\s*[.=]/.exec(line)?.[1] : undefined);
    if (name !== undefined) names.push(name);
  }
  return names;
}

const crateManifests = (files: SourceFile[]) =>
  files.flatMap(({ path, text }) => {
    const crate = /^crates\/([^/]+)\/Cargo\.toml$/.exec(path)?.[1];
    return crate === undefined ? [] : [{ crate, dependencies: dependenciesOf(text) }];
  });

const crateLayers: Rule = (files) =>
  crateManifests(files).flatMap(({ crate, dependencies }) => {
    const allowed = CRATES[crate];
    if (allowed === undefined) return [`crates/${crate} has no place in the order of crates`];
    return dependencies
      .filter((name) => name.startsWith("vexlake-") && !allowed.includes(name.slice("vexlake-".length)))
      .map((name) => `crates/${crate} must not use ${name}`);
  });

const crateUse: Rule = (files) =>
  crateManifests(files).flatMap(({ crate, dependencies }) => {
    const sources = files.filter(({ path }) => path.startsWith(`crates/${crate}/`) && path.endsWith(".rs"));
    return dependencies
      .filter((name) => name.startsWith("vexlake-"))
      .filter((name) => !sources.some(({ text }) => text.includes(name.replace("-", "_"))))
      .map((name) => `crates/${crate} declares ${name} and does not use it`);
  });

const ownedClients: Rule = (files) =>
  crateManifests(files).flatMap(({ crate, dependencies }) =>
    dependencies.flatMap((name) => {
      if (LOGGERS.includes(name)) return [`crates/${crate} uses the logger ${name}; Rust installs none`];
      const owner = OWNED[name];
      return owner === undefined || owner === crate
        ? []
        : [`crates/${crate} uses ${name}, which is ${owner}'s`];
    }),
  );

const rustWithoutSurroundings: Rule = (files) =>
  files
    .filter(
      ({ path }) => /^crates\/\w+\/src\/.*\.rs$/.test(path) && !isTest(path) && !RUST_PROGRAMS.test(path),
    )
    .flatMap(({ path, text }) =>
      linesMatching(text, /\bstd::env\b|\benv::var|\be?println!/).map(
        (line) => `${path}:${line} reads the environment or prints`,
      ),
    );

const unsafeInOnePlace: Rule = (files) =>
  files
    .filter(({ path }) => /^crates\/.*\.rs$/.test(path) && !path.startsWith("crates/distance/"))
    .flatMap(({ path, text }) =>
      linesMatching(text, /^(?!\s*\/\/).*\bunsafe\b/).map(
        (line) => `${path}:${line} is unsafe outside of distance`,
      ),
    );

function importsOf(text: string): string[] {
  return [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)["']([^"']+)["']/g)].map(
    (match) => match[1] as string,
  );
}

const serviceImports: Rule = (files) =>
  files
    .filter(({ path }) => /^(services|schemas)\/.*\.(ts|mjs)$/.test(path))
    .flatMap(({ path, text }) => {
      const owner = path.startsWith("schemas/") ? "schemas" : (path.split("/")[1] as string);
      return importsOf(text)
        .filter((name) => name.startsWith("."))
        .map((name) => posix.normalize(posix.join(posix.dirname(path), name)))
        .filter((target) => !mayImport(path, owner, target))
        .map((target) => `${path} must not import ${target}`);
    });

function mayImport(path: string, owner: string, target: string): boolean {
  const [top, service] = target.split("/");
  if (top === "schemas") return true;
  if (top === "test") return isTest(path);
  if (top !== "services" || owner === "schemas") return false;
  return service === owner || service === "common" || owner === "cli";
}

const launcherImports: Rule = (files) =>
  files
    .filter(({ path }) => /^services\/cli\/((bootstrap|sample)\/.*|bin)\.mjs$/.test(path))
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter((name) => !name.startsWith("node:") && !/^\.{1,2}\/.*\.mjs$/.test(name))
        .map((name) => `${path} imports ${name}; it runs before anything is installed`),
    );

const settledEnvironment: Rule = (files) =>
  files
    .filter(({ path }) => /^services\/(common|ingest|query|compactor)\/.*\.ts$/.test(path) && !isTest(path))
    .flatMap(({ path, text }) =>
      linesMatching(text, /\bprocess\.env\b/)
        .filter((line) => !/^\s*(\*|\/\/)/.test(text.split("\n")[line - 1] as string))
        .map((line) => `${path}:${line} reads the environment; the command line hands it over`),
    );

const vectorsAsBytes: Rule = (files) =>
  files
    .filter(({ path }) => /^services\/.*\.(ts|mjs)$/.test(path) && !isTest(path))
    .flatMap(({ path, text }) =>
      linesMatching(text, /\bFloat(32|64)Array\s*[(.]|\bread(Float|Double)|\bgetFloat|\bparseFloat\b/).map(
        (line) => `${path}:${line} reads floats in JavaScript`,
      ),
    );

const fileLengths: Rule = (files) =>
  files
    .filter(({ path }) => isProgram(path))
    .map(({ path, text }) => ({ path, lines: text.replace(/\n$/, "").split("\n").length }))
    .filter(({ lines }) => lines > LINES_MAX)
    .map(({ path, lines }) => `${path} has ${lines} lines, at most ${LINES_MAX}`);

const fileHeaders: Rule = (files) =>
  files
    .filter(({ path, text }) => isProgram(path) && !path.endsWith(".test.ts") && text.split("\n").length > 3)
    .filter(({ path, text }) => {
      const body = text.replace(/^#!.*\n/, "");
      if (path.endsWith(".rs")) return !body.startsWith("//!");
      if (path.endsWith(".py")) return !body.startsWith('"""');
      return path.endsWith(".sh") ? !body.startsWith("# ") : !/^(\/\*|\/\/ )/.test(body);
    })
    .map(({ path }) => `${path} does not begin by saying what it is`);

/** Words that put work off, written here so that this file does not hold them. */
const PUT_OFF = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);

const noLooseEnds: Rule = (files) =>
  files.flatMap(({ path, text }) => {
    const pattern = path.endsWith(".rs")
      ? new RegExp(`${PUT_OFF.source}|\\b(todo|unimplemented)!|#\\[ignore`)
      : PUT_OFF;
    return linesMatching(text, pattern).map((line) => `${path}:${line} puts work off`);
  });

/** The one place that skips a whole suite: where its services cannot be had, with the reason. */
const SUITES = "test/harness/services.ts";

const wholeSuites: Rule = (files) =>
  files
    .filter(({ path }) => /\.(ts|mjs)$/.test(path) && path !== SUITES)
    .flatMap(({ path, text }) =>
      linesMatching(text, /\.only\(|\b(it|test|describe|suite)\.(skip|todo|fails)\b(?!If)/).map(
        (line) => `${path}:${line} leaves tests out`,
      ),
    );

const REGISTRY_HOSTS = [
  ["registry", "npmjs", "org"],
  ["registry", "yarnpkg", "com"],
  ["static", "crates", "io"],
  ["index", "crates", "io"],
  ["pypi", "org"],
  ["files", "pythonhosted", "org"],
  ["repo1", "maven", "org"],
  ["repo", "maven", "apache", "org"],
  ["proxy", "golang", "org"],
].map((parts) => parts.join("."));

const MACHINE_PATH = /(?:^|[\s"'`(=:,])\/(?:work|home|Users|root)\/[\w.-]/;

const noMachineNames: Rule = (files) =>
  files.flatMap(({ path, text }) => {
    const hosts = REGISTRY_HOSTS.filter((host) => text.includes(host)).map((host) => `${path} names ${host}`);
    const resolved = path.endsWith("package-lock.json") && /"resolved": "https?:/.test(text);
    return [
      ...hosts,
      ...(resolved ? [`${path} fixes the host of a registry`] : []),
      ...linesMatching(text, MACHINE_PATH).map((line) => `${path}:${line} names a path of one machine`),
    ];
  });

/** Numbers of the lines that match, from 1. */
function linesMatching(text: string, pattern: RegExp): number[] {
  if (!new RegExp(pattern.source, "m").test(text)) return [];
  return text.split("\n").flatMap((line, index) => (pattern.test(line) ? [index + 1] : []));
}

/** Every text file that git tracks or would track; what others are deleting meanwhile is left out. */
function readTree(): SourceFile[] {
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 16 * 1024 * 1024,
  });
  const paths = [...new Set(listed.split("\0").filter((path) => path !== ""))];
  return paths
    .filter((path) => existsSync(ROOT + path))
    .map((path) => ({ path, text: readFileSync(ROOT + path, "utf8") }))
    .filter(({ text }) => !text.includes("\0"));
}

const TREE = readTree();

interface Planted extends SourceFile {
  complaint: RegExp;
}

function checks(sentence: string, rule: Rule, planted: Planted[]): void {
  describe(sentence, () => {
    it("should hold for every file", () => {
      expect(rule(TREE)).toEqual([]);
    });
    it.each(planted)("should be noticed when broken: $path", ({ path, text, complaint }) => {
      expect(rule([{ path, text }])).toEqual([expect.stringMatching(complaint)]);
    });
  });
}

describe("the tree that is checked", () => {
  it("should hold the crates, the services and this file", () => {
    const paths = TREE.map(({ path }) => path);
    expect(paths).toContain("test/architecture.test.ts");
    expect(paths.filter((path) => /^crates\/\w+\/Cargo\.toml$/.test(path)).sort()).toEqual(
      Object.keys(CRATES)
        .map((crate) => `crates/${crate}/Cargo.toml`)
        .sort(),
    );
    expect(paths.filter((path) => /^services\/\w+\/.*\.ts$/.test(path)).length).toBeGreaterThan(50);
  });
});

checks("crates use only the layers below them", crateLayers, [
  {
    path: "crates/index/Cargo.toml",
    text: "[dependencies]\nvexlake-distance.workspace = true\nvexlake-lsm.workspace = true\n",
    complaint: /crates\/index must not use vexlake-lsm/,
  },
  {
    path: "crates/store/Cargo.toml",
    text: "[dev-dependencies]\nvexlake-manifest = { workspace = true }\n",
    complaint: /crates\/store must not use vexlake-manifest/,
  },
  {
    path: "crates/segment/Cargo.toml",
    text: "[target.'cfg(unix)'.dependencies.vexlake-node]\nworkspace = true\n",
    complaint: /crates\/segment must not use vexlake-node/,
  },
  { path: "crates/sql/Cargo.toml", text: '[package]\nname = "x"\n', complaint: /crates\/sql has no place/ },
]);

checks("crates declare only what they use", crateUse, [
  {
    path: "crates/index/Cargo.toml",
    text: "[dependencies]\nvexlake-distance.workspace = true\n",
    complaint: /crates\/index declares vexlake-distance/,
  },
]);

checks("one crate knows napi, one the object store's client, one Parquet, none a logger", ownedClients, [
  {
    path: "crates/lsm/Cargo.toml",
    text: "[dependencies]\nnapi.workspace = true\n",
    complaint: /napi, which is node's/,
  },
  {
    path: "crates/lsm/Cargo.toml",
    text: '[dependencies]\nremote = { package = "object_store", version = "0" }\n',
    complaint: /object_store, which is store's/,
  },
  {
    path: "crates/lsm/Cargo.toml",
    text: "[build-dependencies]\nparquet = 1\n",
    complaint: /parquet, which is segment's/,
  },
  { path: "crates/node/Cargo.toml", text: '[dependencies]\ntracing = "0"\n', complaint: /logger tracing/ },
]);

checks("Rust reads no environment and prints nothing", rustWithoutSurroundings, [
  {
    path: "crates/store/src/config.rs",
    text: '//! Config.\nlet region = std::env::var("AWS_REGION");\n',
    complaint: /config\.rs:2 /,
  },
  { path: "crates/lsm/src/gc.rs", text: '//! GC.\n\neprintln!("swept");\n', complaint: /gc\.rs:3 / },
]);

checks("unsafe code stays in one crate", unsafeInOnePlace, [
  {
    path: "crates/segment/src/cache.rs",
    text: "//! No unsafe here.\nlet block = unsafe { read(pointer) };\n",
    complaint: /cache\.rs:2 /,
  },
]);

checks("no service imports another, and Rust is reached through @vexlake/core only", serviceImports, [
  {
    path: "services/query/main.ts",
    text: 'import { Flusher } from "../ingest/flusher.ts";\n',
    complaint: /query\/main\.ts must not import services\/ingest/,
  },
  {
    path: "services/common/catalog.ts",
    text: 'const { Collections } = await import("../query/collections.ts");\n',
    complaint: /common\/catalog\.ts must not import services\/query/,
  },
  {
    path: "services/ingest/main.ts",
    text: 'import { Lake } from "../../crates/node/index.js";\n',
    complaint: /ingest\/main\.ts must not import crates\/node/,
  },
  {
    path: "services/compactor/main.ts",
    text: 'export { until } from "../../test/contract/jobs-fixtures.ts";\n',
    complaint: /compactor\/main\.ts must not import test\//,
  },
  {
    path: "schemas/jobs.ts",
    text: 'import { VexError } from "../services/common/process/error.ts";\n',
    complaint: /schemas\/jobs\.ts must not import services/,
  },
]);

checks("launchers run on a bare Node", launcherImports, [
  {
    path: "services/cli/bootstrap/provision/redis.mjs",
    text: 'import { Redis } from "ioredis";\n',
    complaint: /redis\.mjs imports ioredis/,
  },
  {
    path: "services/cli/bin.mjs",
    text: 'import { main } from "./main.ts";\n',
    complaint: /bin\.mjs imports \.\/main\.ts/,
  },
]);

checks("services are handed their environment", settledEnvironment, [
  {
    path: "services/ingest/main.ts",
    text: "const brokers = process.env.VEXLAKE_LOG_BROKERS;\n",
    complaint: /ingest\/main\.ts:1 /,
  },
]);

checks("vectors stay bytes in JavaScript", vectorsAsBytes, [
  {
    path: "services/query/vector-text.ts",
    text: "/** Text. */\nconst floats = new Float32Array(buffer);\n",
    complaint: /vector-text\.ts:2 /,
  },
]);

checks(`files end by line ${LINES_MAX}`, fileLengths, [
  {
    path: "services/query/writer.ts",
    text: "x;\n".repeat(LINES_MAX + 1),
    complaint: new RegExp(`has ${LINES_MAX + 1} lines`),
  },
  {
    path: "crates/lsm/src/flush/tests.rs",
    text: "x;\n".repeat(LINES_MAX + 1),
    complaint: new RegExp(`has ${LINES_MAX + 1} lines`),
  },
]);

checks("files begin by saying what they are", fileHeaders, [
  { path: "crates/lsm/src/gc.rs", text: "use std::fmt;\n\nfn collect() {}\n", complaint: /gc\.rs/ },
  { path: "services/query/writer.ts", text: 'import x from "y";\n\nx();\n', complaint: /writer\.ts/ },
  { path: "services/cli/bin.mjs", text: '#!/usr/bin/env node\nimport "x";\n\nx();\n', complaint: /bin\.mjs/ },
  { path: "test/compat/check.py", text: "import sys\n\nsys.exit(0)\n", complaint: /check\.py/ },
]);

checks("nothing is put off in a comment", noLooseEnds, [
  { path: "ARCHITECTURE.md", text: `\n${"TO" + "DO"}: say more\n`, complaint: /ARCHITECTURE\.md:2 / },
  { path: "crates/lsm/src/gc.rs", text: "//! GC.\ntodo!()\n", complaint: /gc\.rs:2 / },
  { path: "crates/lsm/tests/gc.rs", text: '//! GC.\n#[ignore = "slow"]\n', complaint: /gc\.rs:2 / },
]);

checks("no test is left out", wholeSuites, [
  { path: "test/a.test.ts", text: `it${"."}only("should hold", () => {});\n`, complaint: /a\.test\.ts:1 / },
  { path: "test/b.test.ts", text: `describe${"."}skip("held", () => {});\n`, complaint: /b\.test\.ts:1 / },
]);

checks("no file names one machine or a registry's host", noMachineNames, [
  { path: "README.md", text: `see https://${REGISTRY_HOSTS[0]}/vexlake\n`, complaint: /names registry/ },
  {
    path: "deploy/compose.yaml",
    text: `\nvolumes: ["${"/ho"}me/me/data:/data"]\n`,
    complaint: /compose\.yaml:2 /,
  },
  {
    path: "package-lock.json",
    text: '{ "resolved": "https://mirror.example/x.tgz" }',
    complaint: /fixes the host/,
  },
]);
