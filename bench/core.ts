/**
 * bench core: the vector core beside its peers, on the same data and one thread, one query a call.
 *
 * 1. crates/index's example `generate` writes the set (seeded; `a`, `b`, `hard`), or the passages of this
 *    machine's documentation are embedded (`text`; 1,000 of them become the queries). `core` computes the
 *    exact answers once and measures ours over a sweep of probe counts.
 * 2. Each of --peers is built and swept by peers/peers.py in a process of its own, and ours is measured again
 *    after each: machines change while a sweep runs.
 * 3. Of every sweep the cheapest setting that reaches --recall counts; all settings stay in the report.
 *    Ratios compare CPU time a query, which a busy machine spoils least, and queries a second, with the means
 *    of our figures before and after the peer.
 *
 * Sets, centroids and the peers' indexes are kept below --dir: a second run measures again without
 * generating or building. Remove the folder of a set to begin anew.
 */
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { pythonWith } from "../services/cli/bootstrap/provision.mjs";

export const help =
  "--set a|b|hard|text [--peers hnsw,rabitq,qdrant,lancedb] [--recall 0.99] [--dir <folder>]";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const PEERS = fileURLToPath(new URL("peers/", import.meta.url));
const CORPUS = fileURLToPath(new URL("../services/cli/sample/corpus.mjs", import.meta.url));
const RELEASE = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "release");
/** Passages of the text set that are queries and not rows. */
const TEXT_QUERIES = 1000;
/** What the sets are made of is in `generate`; lists and the sweep are what was found best for each. */
const SETS: Record<string, { dim: number; metric: string; settings: string[] }> = {
  a: {
    dim: 768,
    metric: "cosine",
    settings: ["lists=1024", "rounds=16", "sample=200000", "rerank=100", "wave=32", "wave2=16"].concat(
      "confidence=2",
      "probes=16,24,28,30,32,34,38,48,64",
    ),
  },
  b: {
    dim: 128,
    metric: "cosine",
    settings: ["lists=4096", "rounds=12", "sample=400000", "rerank=200", "wave=64", "wave2=32"].concat(
      "confidence=2",
      "probes=24,32,34,36,38,40,42,46,54,64,90",
    ),
  },
  hard: {
    dim: 768,
    metric: "l2",
    settings: ["lists=1024", "rounds=12", "sample=200000", "rerank=300", "wave=48", "wave2=32"].concat(
      "confidence=2.5",
      "probes=60,80,90,95,100,105,110,120,140",
    ),
  },
  text: {
    dim: 256,
    metric: "cosine",
    settings: ["lists=89", "rounds=16", "rerank=100", "wave=32", "wave2=16", "confidence=2"].concat(
      "probes=24,32,40,48,56,60,62,64,70",
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
    if (values.set === "text") await embedText(dir, set.dim);
    else await lines(join(examples, "generate"), [values.set, dir]);
  }
  const kept = join(dir, "centroids.vxlc");
  const core = [dir, String(set.dim), set.metric, ...set.settings, `centroids=${kept}`];
  const ours = [await lines(join(examples, "core"), core)];
  const difficulty = ours[0]?.find((line) => "lid100" in line);
  const names = values.peers.split(",").filter((name) => name !== "");
  const python =
    names.length === 0
      ? ""
      : await pythonWith("peers", readFileSync(join(PEERS, "requirements.txt"), "utf8"));
  const peers: Record<string, Measured> = {};
  const ratios: Record<string, unknown> = {};
  for (const name of names) {
    const found = await lines(python, [join(PEERS, "peers.py"), name, dir, String(set.dim), set.metric]);
    ours.push(await lines(join(examples, "core"), core));
    peers[name] = summed(found[0] as Record<string, unknown>, found, recall);
    ratios[name] = ratio(ours.slice(-2), peers[name], recall);
  }
  const vexlake = ours.map((all) =>
    summed(all.find((line) => "build" in line)?.build as Record<string, unknown>, all, recall),
  );
  return { set: values.set, recall, difficulty, ratios, measured: { vexlake, ...peers } };
}

/** Rows and queries from the documentation that lies on this machine (feature-hashed tf-idf, LSA). */
async function embedText(dir: string, dim: number): Promise<void> {
  const passages = join(dir, "passages.jsonl");
  await promisify(execFile)(process.execPath, [CORPUS, "--out", passages]);
  await promisify(execFile)("cargo", ["build", "--release", "-p", "vexlake-embed"], { cwd: ROOT });
  const all = join(dir, "vectors.f32");
  const model = ["--model", join(dir, "model.bin"), "--dim", String(dim)];
  const embed = join(RELEASE, "vexlake-embed");
  await promisify(execFile)(embed, ["train", "--in", passages, "--out", all, ...model]);
  const vectors = readFileSync(all);
  // In the order of a seeded hash: the last are a fair sample.
  const rows = vectors.length - TEXT_QUERIES * dim * 4;
  writeFileSync(join(dir, "base.f32"), vectors.subarray(0, rows));
  writeFileSync(join(dir, "queries.f32"), vectors.subarray(rows));
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
function ratio(beforeAndAfter: Record<string, unknown>[][], peer: Measured, recall: number): unknown {
  const ours = beforeAndAfter.map((all) => summed({}, all, recall).best);
  const known = ours.filter((best) => best !== null);
  if (peer.best === null || known.length < ours.length) return null;
  const mean = (of: (line: Line) => number) => known.reduce((sum, best) => sum + of(best), 0) / known.length;
  return {
    cpu: peer.best.cpu_us / mean((line) => line.cpu_us),
    queriesPerSecond: mean((line) => line.qps) / peer.best.qps,
  };
}

async function buildExamples(): Promise<string> {
  await promisify(execFile)(
    "cargo",
    ["build", "--release", "-p", "vexlake-index", "--example", "core", "--example", "generate"],
    { cwd: ROOT },
  );
  return join(RELEASE, "examples");
}

/** Runs a program and reads its JSON lines; what it says on stderr goes to ours. */
async function lines(program: string, args: string[]): Promise<Record<string, unknown>[]> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<number | string | null>((resolve) =>
    child.once("exit", (code, signal) => resolve(signal ?? code)),
  );
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
