/*
 * The whole test run behind `npm test`:
 * 1. build the addon and all Rust tests in one cargo call (dev profile), while the services'
 *    programs are fetched;
 * 2. the checks: cargo fmt, clippy, tsc, biome;
 * 3. start every service once, hand the addresses to Rust and TypeScript tests by environment;
 * 4. cargo test, vitest;
 * 5. the table of services, then one line `N passed, N failed` over everything.
 *
 * Nothing stops at the first failure, so that one run shows all of them; the exit code is 1 then.
 * A check counts as one test.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { buildAddon } from "../../services/cli/bootstrap/addon.mjs";
import { main } from "../../services/cli/bootstrap/errors.mjs";
import { execute } from "../../services/cli/bootstrap/exec.mjs";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import { formatSeconds, Progress } from "../../services/cli/bootstrap/progress.mjs";
import {
  fetchSeaweed,
  fetchVersity,
  kafkaJars,
  kafkaRuntime,
  pythonOracles,
  pythonRuntime,
  seaweedRuntime,
  versityRuntime,
} from "../../services/cli/bootstrap/provision.mjs";
import { hasEngine } from "./containers.ts";
import { environmentName, messageOf, Resolver, requiredServices, SERVICE_NAMES } from "./resolve.ts";
import { onFirstSignal } from "./stop.ts";
import { formatTable, type TableRow } from "./table.ts";
import { addTotals, type Counts, readCargoResult, readVitestReport, totalsLine } from "./totals.ts";

const TABLE = join(ROOT, "target", "test-services.json");
const VITEST_REPORT = join(ROOT, "target", "vitest.json");
const BIN = join(ROOT, "node_modules");

async function run(): Promise<number> {
  const required = requiredServices(process.env.VEXLAKE_TEST_REQUIRE);
  const progress = new Progress();
  const say = (text: string) => progress.line(text);
  const outcome = new Map<string, Counts>();
  const resolver = new Resolver();
  let table = "";
  onFirstSignal(async () => {
    await resolver.close();
    process.exit(130);
  });
  try {
    const [built] = await Promise.all([build(progress), fetchPrograms(progress)]);
    if (built === undefined) {
      outcome.set("build", { passed: 0, failed: 1, skipped: 0 });
    } else {
      process.env.VEXLAKE_CORE = built.addon;
      process.env.VEXLAKE_EMBED = built.embed;
    }
    for (const check of CHECKS) outcome.set(check.name, await runCheck(check, say));
    const rows = await startServices(resolver, progress);
    for (const row of rows) {
      if (row.skipped > 0 && [...required].some((name) => name === row.service)) {
        say(`service ${row.service} is required (VEXLAKE_TEST_REQUIRE), but ${row.how}`);
        outcome.set(`service ${row.service}`, { passed: 0, failed: 1, skipped: 0 });
      }
    }
    outcome.set("cargo test", await cargoTest(say));
    outcome.set("vitest", await vitest(say));
    table = await closingTable(rows);
  } finally {
    await resolver.close();
  }
  const total = addTotals([...outcome.values()]);
  const parts = [...outcome].map(([name, counts]) => `  ${name}: ${totalsLine(counts)}`);
  say(`\n${table}\n\n${parts.join("\n")}\n`);
  process.stdout.write(`${totalsLine(total)}\n`);
  return total.failed > 0 ? 1 : 0;
}

async function build(progress: Progress) {
  try {
    // A lockfile that lags behind is a defect of the change, so CI refuses it; by hand cargo mends it.
    return await buildAddon({ profile: "dev", progress, withTests: true, locked: process.env.CI === "true" });
  } catch (error) {
    progress.line(error instanceof Error ? error.message : String(error));
    return undefined;
  }
}

/** Downloads overlap the compiler; what fails here fails again, with its reason, when resolved. */
async function fetchPrograms(progress: Progress): Promise<void> {
  const wanted: [string, { usable: boolean }, () => Promise<unknown>][] = [
    ["Kafka's jars", await kafkaRuntime(), () => kafkaJars()],
    ["SeaweedFS", seaweedRuntime(), fetchSeaweed],
    ["Python oracles", pythonRuntime(), pythonOracles],
    ["versitygw", versityRuntime(), fetchVersity],
  ];
  await Promise.all(
    wanted.map(async ([name, runtime, fetchIt]) => {
      if (!runtime.usable) return;
      const phase = progress.phase(name);
      try {
        await fetchIt();
        phase.done("ready");
      } catch (error) {
        phase.fail(messageOf(error));
      }
    }),
  );
}

const CHECK_LINES_MAX = 120;

interface Check {
  name: string;
  command: string;
  args: string[];
}

const CHECKS: Check[] = [
  { name: "cargo fmt", command: "cargo", args: ["fmt", "--all", "--check"] },
  {
    name: "cargo clippy",
    command: "cargo",
    args: ["clippy", "-q", "--workspace", "--all-targets", "--", "-D", "warnings"],
  },
  { name: "tsc", command: process.execPath, args: [join(BIN, "typescript", "bin", "tsc"), "-p", ROOT] },
  {
    name: "biome",
    command: process.execPath,
    args: [join(BIN, "@biomejs", "biome", "bin", "biome"), "check", "--error-on-warnings", ROOT],
  },
];

async function runCheck(check: Check, say: (text: string) => void): Promise<Counts> {
  const startedAt = Date.now();
  const result = await execute(check.command, check.args, { cwd: ROOT });
  const seconds = formatSeconds((Date.now() - startedAt) / 1000);
  if (result.code === 0) {
    say(`${check.name}: ok (${seconds})`);
    return { passed: 1, failed: 0, skipped: 0 };
  }
  say(`${check.name}: FAILED (${seconds})\n${firstLines(result.stdout + result.stderr)}`);
  return { passed: 0, failed: 1, skipped: 0 };
}

/** A formatter's complaint about forty files would bury every other result. */
function firstLines(text: string): string {
  const lines = text.trimEnd().split("\n");
  const left = lines.length - CHECK_LINES_MAX;
  return left <= 0
    ? lines.join("\n")
    : [...lines.slice(0, CHECK_LINES_MAX), `… ${left} more lines`].join("\n");
}

/** Starts all services side by side and hands their addresses to the tests by environment. */
async function startServices(resolver: Resolver, progress: Progress): Promise<TableRow[]> {
  const phase = progress.phase("services");
  const provided = await Promise.all(SERVICE_NAMES.map((name) => resolver.resolve(name)));
  const how: Record<string, string> = {};
  for (const each of provided) {
    if (each.address === undefined) continue;
    process.env[environmentName(each.name)] = each.address;
    how[each.name] = each.how;
  }
  process.env.VEXLAKE_TEST_PROVIDED = JSON.stringify(how);
  phase.done(`${Object.keys(how).length} of ${SERVICE_NAMES.length} ready`);
  return provided.map((each) => ({
    service: each.name,
    how: each.how,
    run: 0,
    skipped: each.address === undefined ? 1 : 0,
  }));
}

/** Rust's contract suites take the S3 server in parts (crates/store/tests/common/mod.rs). */
function s3ForRust(address: string | undefined): Record<string, string> {
  if (address === undefined) return {};
  const { origin, pathname, username, password } = new URL(address);
  return {
    VEXLAKE_TEST_S3_ENDPOINT: origin,
    VEXLAKE_TEST_S3_BUCKET: pathname.slice(1),
    VEXLAKE_TEST_S3_ACCESS_KEY: decodeURIComponent(username),
    VEXLAKE_TEST_S3_SECRET_KEY: decodeURIComponent(password),
  };
}

async function cargoTest(say: (text: string) => void): Promise<Counts> {
  const totals: Counts[] = [];
  const onLine = (line: string) => {
    const counts = readCargoResult(line);
    if (counts) totals.push(counts);
    // Thousands of "… ok" lines would hide the one that matters.
    if (!/^test .* \.\.\. (ok|ignored)/.test(line) && line.trim() !== "") say(line);
  };
  const result = await execute("cargo", ["test", "--workspace", "--no-fail-fast"], {
    cwd: ROOT,
    env: { ...process.env, ...s3ForRust(process.env[environmentName("s3")]) },
    onLine,
    onErrorLine: onLine,
  });
  const sum = addTotals(totals);
  // A test binary that aborts prints no result line: the exit code alone tells.
  if (result.code !== 0 && sum.failed === 0) sum.failed = 1;
  return sum;
}

async function vitest(say: (text: string) => void): Promise<Counts> {
  rmSync(VITEST_REPORT, { force: true });
  rmSync(TABLE, { force: true });
  const script = join(BIN, "vitest", "vitest.mjs");
  const args = [script, "run", "--reporter=default", "--reporter=json", `--outputFile.json=${VITEST_REPORT}`];
  const env = { ...process.env, VEXLAKE_TEST_TABLE: TABLE };
  const result = await execute(process.execPath, args, { cwd: ROOT, env, inherit: true });
  try {
    return readVitestReport(readFileSync(VITEST_REPORT, "utf8"), result.code);
  } catch (error) {
    say(`vitest left no report: ${messageOf(error)}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

/** The services as they were provided, with the suites that vitest's own setup counted. */
async function closingTable(rows: TableRow[]): Promise<string> {
  let counted: TableRow[] = [];
  try {
    counted = JSON.parse(readFileSync(TABLE, "utf8")) as TableRow[];
  } catch {
    // vitest did not get as far as its teardown; its own failure is already counted.
  }
  const merged = rows.map((row) => counted.find((each) => each.service === row.service) ?? row);
  const engine = (await hasEngine()) ? "an engine answers" : "unverified, no container engine answers here";
  return `${formatTable(merged)}\ncontainer images of deploy/.env: ${engine}`;
}

await main(run);
