/*
 * The documents name files, commands, options, settings and images; this test looks whether they exist.
 *
 * Each rule takes a text and answers what is wrong with it. As in architecture.test.ts it is tested twice:
 * on the real text, and on one that names what is not there. Left out on purpose: whether the sentences
 * around the names are true; that takes a reader.
 */
import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { OPTIONS } from "../services/cli/args.ts";
import { startHelp } from "../services/cli/bootstrap/args.mjs";
import { COMMANDS, COMMON, type Entry } from "../services/cli/registry.ts";
import { loadConfig } from "../services/common/config/load.ts";
import { configSchema } from "../services/common/config/schema.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
const read = (path: string): string => readFileSync(ROOT + path, "utf8");

const DOCUMENTS = globSync(
  ["*.md", "schemas/**/*.md", "bench/*.md", "deploy/Dockerfile", "deploy/*.yaml", ".ci/run"],
  { cwd: ROOT },
).sort();

/** The tree's paths that a text names: from a top folder on, `{a,b}` and `*` as a shell takes them. */
function namedPaths(text: string): string[] {
  const pattern = /(?<![\w/.-])(?:crates|services|schemas|test|bench|deploy|\.ci)\/[\w./{},*-]*[\w/}*]/g;
  return [...text.matchAll(pattern)].map(([path]) => path);
}

/** Made by programs, so a document may name them and a fresh clone lacks them. */
const MADE = /^(bench\/out\/|crates\/node\/vexlake)/;

function missingPaths(text: string): string[] {
  const missing = namedPaths(text).filter(
    (path) => !MADE.test(path) && globSync(path.replace(/\/$/, ""), { cwd: ROOT }).length === 0,
  );
  return missing.map((path) => `there is no ${path}`);
}

const SCRIPTS = Object.keys((JSON.parse(read("package.json")) as { scripts: object }).scripts);
const BENCHES = [...read("bench/main.ts").matchAll(/^ {2}(\w+): \(\) => import/gm)].map(([, name]) => name);
const START_OPTIONS = [...startHelp().matchAll(/^ {2}(--[\w-]+)/gm)].map(([, flag]) => flag);

/** `npm …` lines: the script, and what follows `--`. */
function wrongScripts(text: string): string[] {
  return [...text.matchAll(/\bnpm (?:run )?(start|test|ready|bench|run [\w-]+)\b([^\n`|#]*)/g)].flatMap(
    ([, word = "", rest = ""]) => {
      const script = word.replace("run ", "");
      if (!SCRIPTS.includes(script)) return [`npm has no script ${script}`];
      const [, tail = ""] = / -- (.*)/.exec(rest) ?? [];
      const [first = ""] = tail.trim().split(/\s/);
      if (script === "bench" && /^\w+$/.test(first) && !BENCHES.includes(first)) {
        return [`there is no bench ${first}`];
      }
      if (script !== "start") return [];
      const flags = [...tail.matchAll(/--[\w-]+/g)].map(([flag]) => flag);
      return flags.filter((flag) => !START_OPTIONS.includes(flag)).map((flag) => `npm start has no ${flag}`);
    },
  );
}

const SHORT: Record<string, string> = { "-n": "requests", "-c": "clients" };

/** `vexlake …` inside code: the subcommand, its action, its options. */
function wrongCommands(text: string): string[] {
  const code = [...text.matchAll(/```[a-z]*\n([\s\S]*?)```|`([^`\n]+)`/g)].map(
    ([, block, span]) => block ?? span,
  );
  return code
    .flatMap((part) => [...(part as string).matchAll(/(?<![\w/.-])vexlake ([a-z][^\n#&;]*)/g)])
    .flatMap(([, line = ""]) => {
      const [words = "", ...rest] = line.trim().split(/\s+/);
      return words.split("|").flatMap((word) => {
        if (word === "help") return [];
        const entry = COMMANDS.find((each) => each.word === word);
        return entry === undefined ? [`vexlake has no command ${word}`] : wrongOptions(entry, rest);
      });
    });
}

function wrongOptions({ word, takes }: Entry, rest: string[]): string[] {
  const [action = ""] = rest;
  const actions = Array.isArray(takes) ? null : (takes as Record<string, readonly string[]>);
  if (actions !== null && /^[a-z]+$/.test(action) && !(action in actions)) {
    return [`vexlake ${word} has no action ${action}`];
  }
  const taken =
    actions === null ? (takes as readonly string[]) : (actions[action] ?? Object.values(actions).flat());
  return rest
    .map((part) => SHORT[part] ?? /^\[?--([\w-]+)/.exec(part)?.[1])
    .filter((flag) => flag !== undefined && !taken.includes(flag) && !COMMON.includes(flag))
    .map((flag) => `vexlake ${word} takes no --${flag}`);
}

const CRATES = globSync("crates/*/Cargo.toml", { cwd: ROOT }).map((path) => `vexlake-${path.split("/")[1]}`);

function wrongCrates(text: string): string[] {
  const named = [...text.matchAll(/(?:-p|--package) (vexlake-[\w-]+)/g)].map(([, name]) => name as string);
  return named.filter((name) => !CRATES.includes(name)).map((name) => `there is no crate ${name}`);
}

/** Every variable that some program of ours reads, and those made of sections and keys. */
const VARIABLES = new Set(
  globSync(["services/**/*.{ts,mjs}", "test/harness/*.ts", "crates/*/index.js", "crates/*/tests/**/*.rs"], {
    cwd: ROOT,
  })
    .filter((path) => !path.endsWith(".test.ts"))
    .flatMap((path) => [...read(path).matchAll(/VEXLAKE_[A-Z_]*[A-Z]/g)].map(([name]) => name)),
);

async function wrongVariables(text: string): Promise<string[]> {
  const named = [...new Set([...text.matchAll(/VEXLAKE_[A-Z0-9_]*[A-Z0-9]/g)].map(([name]) => name))];
  const wrong: string[] = [];
  for (const name of named) {
    if (VARIABLES.has(name) || /^VEXLAKE_TEST_(KAFKA|REDIS|S3|S3B|DUCKDB|PYARROW)$/.test(name)) continue;
    // Only the name is judged: a value of the wrong kind is another complaint.
    const message = await loadConfig({ env: { [name]: "x" } }).then(
      ({ origins }) => (origins.size > 0 ? "" : "is read by nothing"),
      (error: Error) => error.message,
    );
    if (/unknown key|read by nothing/.test(message)) wrong.push(`${name} ${message}`);
  }
  return wrong;
}

describe.each(DOCUMENTS)("%s", (path) => {
  it("should name only files, scripts, subcommands, options, crates and variables that exist", async () => {
    const text = read(path);
    expect([
      ...missingPaths(text),
      ...wrongScripts(text),
      ...wrongCommands(text),
      ...wrongCrates(text),
      ...(await wrongVariables(text)),
    ]).toEqual([]);
  });
});

describe("what a document names wrongly", () => {
  it("should be noticed: a path", () => {
    expect(missingPaths("see `crates/lsm/src/{gc,gone}.rs` and crates/lsm/src/lake")).toEqual([]);
    expect(missingPaths("see `crates/lsm/src/gone.rs`")).toEqual(["there is no crates/lsm/src/gone.rs"]);
  });

  it("should be noticed: a script, a bench, an option of npm start", () => {
    expect(wrongScripts("npm run lint")).toEqual(["npm has no script lint"]);
    expect(wrongScripts("npm run bench -- compaction")).toEqual(["there is no bench compaction"]);
    expect(wrongScripts("npm start -- --exit --demo")).toEqual(["npm start has no --demo"]);
  });

  it("should be noticed: a subcommand, an action, an option", () => {
    expect(wrongCommands("run `vexlake tail docs`")).toEqual(["vexlake has no command tail"]);
    expect(wrongCommands("run `vexlake replay pause docs`")).toEqual(["vexlake replay has no action pause"]);
    expect(wrongCommands("```bash\nvexlake gc --limit 1\n```")).toEqual(["vexlake gc takes no --limit"]);
    expect(
      wrongCommands("`vexlake ingest|query|compactor --config x`, `vexlake bench docs -n 9 -c 1`"),
    ).toEqual([]);
  });

  it("should be noticed: a crate, a variable", async () => {
    expect(wrongCrates("cargo test -p vexlake-sql")).toEqual(["there is no crate vexlake-sql"]);
    expect(await wrongVariables("VEXLAKE_INGEST_SEAL_BYTES, VEXLAKE_CRASH_AT, VEXLAKE_TEST_REQUIRE")).toEqual(
      [],
    );
    expect(await wrongVariables("VEXLAKE_INGEST_SEALS")).toEqual([
      expect.stringMatching(/^VEXLAKE_INGEST_SEALS /),
    ]);
    expect(await wrongVariables("VEXLAKE_SPEED")).toEqual([expect.stringMatching(/^VEXLAKE_SPEED /)]);
  });
});

describe("ARCHITECTURE.md", () => {
  it("should list every invariant of the catalogue under its id", () => {
    const catalogue = read("crates/manifest/src/invariants.rs");
    const ids = [...catalogue.matchAll(/Self::\w+ => "([\w-]+)"/g)].map(([, id]) => id);
    expect(ids.length).toBeGreaterThan(10);
    const rows = [...read("ARCHITECTURE.md").matchAll(/^\| \*\*`([\w-]+)`\*\* \|/gm)].map(([, id]) => id);
    expect(rows).toEqual(ids);
  });
});

describe("deploy/vexlake.yaml", () => {
  it("should load, and show every section", async () => {
    const { config, given } = await loadConfig({ file: `${ROOT}deploy/vexlake.yaml`, env: {} });
    expect(config.log.kind).toBe("kafka");
    for (const section of Object.keys(configSchema.shape)) {
      expect(read("deploy/vexlake.yaml")).toMatch(new RegExp(`^${section}: `, "m"));
    }
    expect(given("ingest.seal_bytes")).toBe(true);
  });
});

interface Service {
  image?: string;
  build?: { context: string; dockerfile: string };
  command?: string[];
  environment?: Record<string, string>;
  ports?: string[];
  depends_on?: Record<string, unknown>;
}

describe("deploy/compose.yaml", () => {
  const text = read("deploy/compose.yaml");
  const { services } = parse(text, { merge: true }) as { services: Record<string, Service> };
  const own = Object.entries(services).filter(([, { image }]) => image === "vexlake");

  it("should run each service by a subcommand with options that it takes", () => {
    expect(own.map(([name]) => name).sort()).toEqual(["compactor", "ingest", "query"]);
    for (const [name, { command = [] }] of own) {
      expect(command[0]).toBe(name);
      expect(wrongCommands(`\`vexlake ${command.join(" ")}\``)).toEqual([]);
    }
  });

  it("should keep what a service writes on the volume that its user owns", () => {
    for (const [, { command = [] }] of own) expect(command.join(" ")).toContain("--data-dir /data");
    expect(read("deploy/Dockerfile")).toMatch(/chown node:node \/data/);
  });

  it("should set only settings that exist, to values that are possible", async () => {
    for (const [, { environment = {} }] of own) {
      const { config } = await loadConfig({ env: environment });
      expect(config.log).toMatchObject({ kind: "kafka", brokers: ["kafka:9092"] });
      expect(config.store).toMatchObject({ url: "s3://lake/compose", endpoint: "http://s3:8333" });
    }
  });

  it("should wait for services that there are, and take every image from deploy/.env", () => {
    for (const { depends_on = {} } of Object.values(services)) {
      for (const name of Object.keys(depends_on)) expect(Object.keys(services)).toContain(name);
    }
    const known = [...read("deploy/.env").matchAll(/^(\w+)=/gm)].map(([, name]) => name);
    const asked = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name as string);
    expect(asked.filter((name) => !known.includes(name))).toEqual([]);
    for (const { image = "" } of Object.values(services))
      expect(image).toMatch(/^(vexlake|\$\{\w+_IMAGE\})$/);
  });

  it("should publish the ports that the services listen on", () => {
    const ports = own.flatMap(([, service]) => service.ports ?? []);
    expect(ports.map((port) => port.split(":").at(-1)).sort()).toEqual(["6380", "8080", "8081", "8082"]);
  });
});

describe("deploy/Dockerfile", () => {
  const text = read("deploy/Dockerfile");

  it("should copy files that exist, and enter by a file that it copied", () => {
    const copied = [...text.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, from = ""]) =>
      from.split(" "),
    );
    for (const path of copied) expect(globSync(path, { cwd: ROOT }), path).not.toEqual([]);
    const [, script = ""] = /ENTRYPOINT \[.*"([^"]+\.ts)"\]/.exec(text) ?? [];
    expect(globSync(script, { cwd: ROOT })).toEqual([script]);
    expect(copied).toContain(script.split("/")[0]);
  });

  it("should build with a profile that Cargo.toml has, on the images of deploy/.env", () => {
    const [, profile = ""] = /--profile (\w+)/.exec(text) ?? [];
    expect(read("Cargo.toml")).toContain(`[profile.${profile}]`);
    const images = Object.fromEntries(
      [...read("deploy/.env").matchAll(/^(\w+)=(.+)$/gm)].map(([, k, v]) => [k, v]),
    );
    for (const [, name = "", image] of text.matchAll(/^ARG (\w+_IMAGE)=(.+)$/gm))
      expect(images[name]).toBe(image);
  });

  it("should start with options that exist, and expose the default ports", async () => {
    const [, words = ""] = /^CMD \[(.+)\]$/m.exec(text) ?? [];
    expect(wrongCommands(`\`vexlake ${words.replaceAll(/[",]/g, "")}\``)).toEqual([]);
    const { config } = await loadConfig({ env: {} });
    const defaults = [config.query.resp, config.query.http, config.ingest.http, config.compactor.http];
    const [, exposed = ""] = /^EXPOSE (.+)$/m.exec(text) ?? [];
    expect(exposed.split(" ")).toEqual(defaults.map((address) => address.split(":").at(-1)));
  });
});

describe("the help texts", () => {
  it("should explain each option once", () => {
    const flags = OPTIONS.map(({ flag }) => flag);
    expect(new Set(flags).size).toBe(flags.length);
    expect(OPTIONS.filter(({ help }) => help === "")).toEqual([]);
  });
});
