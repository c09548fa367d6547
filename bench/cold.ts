/**
 * bench cold: the first search of a process, with nothing in any cache, from a local directory and from S3.
 *
 * 1. crates/index's example `generate` writes the set (seeded; `b` is a million rows of 128 floats) below --dir,
 *    once.
 * 2. crates/lsm's example `cold` loads it through the engine, follows the compaction plan to its end, and then
 *    for each query opens the lake with an empty cache, lets the system forget the store's files, and times the
 *    query; see there.
 * 3. On --stores `directory`, `seaweedfs` (a server of our own on this machine, whose files are forgotten too) or
 *    both.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { startSeaweed } from "../services/cli/bootstrap/provision.mjs";

export const help = "[--set b] [--queries <n>] [--stores directory,seaweedfs] [--dir <folder>]";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SETS: Record<string, { dim: number; metric: string }> = {
  a: { dim: 768, metric: "cosine" },
  b: { dim: 128, metric: "cosine" },
};
/** As a query node has by default. */
const CACHE_BYTES = 512 * 1_048_576;

const execute = promisify(execFile);

/** Where a lake lies, and the folders that the system shall forget. */
interface Place {
  store: Record<string, unknown>;
  forget: string[];
  stop(): Promise<void>;
}

export async function run(args: string[]): Promise<Record<string, unknown>> {
  const { values } = parseArgs({
    args,
    options: {
      set: { type: "string", default: "b" },
      queries: { type: "string", default: "50" },
      stores: { type: "string", default: "directory,seaweedfs" },
      dir: { type: "string", default: join(ROOT, "target", "bench") },
    },
  });
  const set = SETS[values.set];
  if (set === undefined) throw new Error(`set is ${values.set}, expected ${Object.keys(SETS).join(", ")}`);
  const folder = join(values.dir, values.set);
  if (!existsSync(join(folder, "queries.f32"))) {
    mkdirSync(folder, { recursive: true });
    await execute(await example("vexlake-index", "generate"), [values.set, folder]);
  }
  const cold = await example("vexlake-lsm", "cold");
  const measured: Record<string, unknown> = {};
  for (const store of values.stores.split(",")) {
    const work = mkdtempSync(join(tmpdir(), "vexlake-cold-"));
    const place = await open(store, work);
    try {
      const options = {
        ...set,
        store: place.store,
        set: folder,
        queries: Number(values.queries),
        spool: join(work, "spool"),
        forget: place.forget,
        cacheBytes: CACHE_BYTES,
      };
      const { stdout } = await execute(cold, [JSON.stringify(options)]);
      measured[store] = JSON.parse(stdout);
    } finally {
      await place.stop();
      rmSync(work, { recursive: true, force: true });
    }
  }
  return { set: values.set, measured };
}

async function open(store: string, work: string): Promise<Place> {
  const lies = join(work, "store");
  mkdirSync(lies);
  if (store === "directory") return { store: { url: lies }, forget: [lies], stop: async () => undefined };
  if (store !== "seaweedfs") throw new Error(`store is ${store}, expected directory or seaweedfs`);
  const { endpoint, bucket, accessKey, secretKey, stop } = await startSeaweed({
    dir: lies,
    pids: join(work, "pids"),
  });
  const url = `s3://${bucket}/cold`;
  return { store: { url, endpoint, accessKey, secretKey }, forget: [lies], stop };
}

async function example(crate: string, name: string): Promise<string> {
  const build = ["build", "--profile", "fast", "--quiet", "-p", crate, "--example", name];
  await execute("cargo", build, { cwd: ROOT, maxBuffer: 1 << 20 });
  return join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "target"), "fast", "examples", name);
}
