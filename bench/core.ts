/**
 * bench core: the vector core beside its peers, on the same data and one thread, one query a call.
 *
 * 1. crates/index's example `generate` writes the set (seeded; `a`, `b`, `hard`), `core` computes the exact
 *    answers once and measures ours over a sweep of probe counts.
 * 2. Each of --peers is built and swept by peers/peers.py in a process of its own, one after another.
 * 3. Of every sweep the fastest setting that reaches --recall counts; all settings stay in the report.
 *    Ratios compare CPU time a query, which a busy machine spoils least, and queries a second.
 *
 * Sets and measurements are kept below --dir, so that a second run measures again without generating.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { pythonWith } from "../services/cli/bootstrap/provision.mjs";

export const help = "--set a|b|hard [--peers hnsw,rabitq,qdrant,lancedb] [--recall 0.99] [--dir <folder>]";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PEERS = fileURLToPath(new URL("peers/", import.meta.url));
/** What the sets are made of is in `generate`; lists and the sweep are what was found best for each. */
const SETS: Record<string, { dim: number; metric: string; settings: string[] }> = {
  a: {
    dim: 768,
    metric: "cosine",
    settings: ["lists=1024", "rounds=8", "sample=200000", "rerank=100", "wave=32", "wave2=16"].concat(
      "confidence=2",
      "probes=16,24,30,32,34,36,38,42,48,64",
    ),
  },
  b: {
    dim: 128,
    metric: "cosine",
    settings: ["lists=4096", "rounds=8", "sample=400000", "rerank=300", "wave=48", "wave2=32"].concat(
      "confidence=2",
      "probes=24,32,38,42,46,54,64,90",
    ),
  },
  hard: {
    dim: 768,
    metric: "l2",
    settings: ["lists=1024", "rounds=8", "sample=200000", "rerank=300", "wave=48", "wave2=32"].concat(
      "confidence=2.5",
      "probes=60,80,90,100,110,120,140",
    ),
  },
};

interface Line {
  recall: number;
  qps: number;
  cpu_us: number;
  p50_us: number;
  p99_us: number;
}

interface Measured {
  build: Record<string, unknown>;
  sweep: Line[];
  best: Line | null;
}

export async function run(args: string[]): Promise<Record<string, unknown>> {
  const { values } = parseArgs({
    args,
    options: {
      set: { type: "string", default: "a" },
      peers: { type: "string", default: "hnsw,rabitq,qdrant,lancedb" },
      recall: { type: "string", default: "0.99" },
      dir: { type: "string", default: join(ROOT, "target", "bench") },
    },
  });
  const set = SETS[values.set];
  if (set === undefined) throw new Error(`set is ${values.set}, expected ${Object.keys(SETS).join(", ")}`);
  const recall = Number(values.recall);
  const dir = join(values.dir, values.set);
  const examples = await buildExamples();
  if (!existsSync(join(dir, "queries.f32"))) {
    mkdirSync(dir, { recursive: true });
    await lines(join(examples, "generate"), [values.set, dir]);
  }
  const ours = await lines(join(examples, "core"), [dir, String(set.dim), set.metric, ...set.settings]);
  const build = ours.find((line) => "build" in line)?.build as Record<string, unknown>;
  const difficulty = ours.find((line) => "lid100" in line);
  const measured: Record<string, Measured> = { vexlake: summed(build, ours, recall) };
  const names = values.peers.split(",").filter((name) => name !== "");
  const python =
    names.length === 0
      ? ""
      : await pythonWith("peers", readFileSync(join(PEERS, "requirements.txt"), "utf8"));
  for (const name of names) {
    const found = await lines(python, [join(PEERS, "peers.py"), name, dir, String(set.dim), set.metric]);
    measured[name] = summed(found[0] as Record<string, unknown>, found, recall);
  }
  return { set: values.set, recall, difficulty, ratios: ratios(measured), measured };
}

function summed(build: Record<string, unknown>, all: Record<string, unknown>[], recall: number): Measured {
  const sweep = all.filter((line) => "recall" in line) as unknown as Line[];
  const enough = sweep.filter((line) => line.recall >= recall);
  const best = enough.reduce<Line | null>(
    (fastest, line) => (fastest === null || line.cpu_us < fastest.cpu_us ? line : fastest),
    null,
  );
  return { build, sweep, best };
}

/** How many times a peer's time ours goes into it; null where one of the two missed the recall. */
function ratios(measured: Record<string, Measured>): Record<string, unknown> {
  const ours = measured.vexlake?.best;
  const rows = Object.entries(measured).filter(([name]) => name !== "vexlake");
  return Object.fromEntries(
    rows.map(([name, { best }]) => [
      name,
      best && ours ? { cpu: best.cpu_us / ours.cpu_us, queriesPerSecond: ours.qps / best.qps } : null,
    ]),
  );
}

async function buildExamples(): Promise<string> {
  await promisify(execFile)(
    "cargo",
    ["build", "--release", "-p", "vexlake-index", "--example", "core", "--example", "generate"],
    { cwd: ROOT },
  );
  return join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "release", "examples");
}

/** Runs a program and reads its JSON lines; what it says on stderr goes to ours. */
async function lines(program: string, args: string[]): Promise<Record<string, unknown>[]> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const found: Record<string, unknown>[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith("{")) continue;
    process.stderr.write(`${line}\n`);
    found.push(JSON.parse(line.replaceAll(":inf", ":null")) as Record<string, unknown>);
  }
  const code = await ended;
  if (code !== 0) throw new Error(`${program} ended with ${code}`);
  return found;
}
