/**
 * bench ingest: how fast a pre-filled topic becomes committed segments, on this machine's broker.
 *
 * 1. Start a broker of our own; fill the topic with --records vectors of --dim (seeded, structured).
 * 2. Start `vexlake up` (compactor on) on an empty directory store; create the collection from the
 *    topic's earliest record. The clock starts when the create is called.
 * 3. It stops when as many entries are committed as records were sent. Keys are unique, so none is superseded
 *    or dead-lettered, and this is the commit whose checkpoints cover the last offset of every partition.
 * 4. Reported beside the rate: peak resident memory of the lake's process (VmHWM, from its start on), its CPU
 *    seconds, the time its event loop was active per record; rows counted by DuckDB over the live files.
 *
 * --separate starts `vexlake ingest` and `vexlake compactor` as two processes instead of `vexlake up`.
 * --minutes n keeps producing for n minutes more, at --rate records a second. Resident memory is sampled four
 * times a second: the highest samples of the first and the second half say whether it grows.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { Kafka, logLevel } from "kafkajs";
import { pythonOracles, startKafka } from "../services/cli/bootstrap/provision.mjs";
import { Vectors } from "./dataset.ts";

export const help =
  "--records <n> --dim <n> --partitions <n> [--minutes <n> --rate <records/s>] [--separate]";

const CLI = fileURLToPath(new URL("../services/cli/main.ts", import.meta.url));
const SEND_RECORDS = 2_000;
/** A scrape costs the measured process a millisecond or two; the clock is wrong by half of this at most. */
const POLL_MS = 100;
const COLLECTION = "bench";
const TOPIC = `vexlake.0.${COLLECTION}`;

export async function run(args: string[]): Promise<Record<string, unknown>> {
  const { values } = parseArgs({
    args,
    options: {
      records: { type: "string", default: "300000" },
      dim: { type: "string", default: "128" },
      partitions: { type: "string", default: "4" },
      minutes: { type: "string", default: "0" },
      rate: { type: "string", default: "15000" },
      separate: { type: "boolean", default: false },
    },
  });
  const [records, dim, partitions] = [Number(values.records), Number(values.dim), Number(values.partitions)];
  const seconds = Number(values.minutes) * 60;
  const dir = mkdtempSync(join(tmpdir(), "vexlake-bench-"));
  const kafka = await startKafka({ dir: join(dir, "kafka"), pids: join(dir, "pids") });
  try {
    const client = new Kafka({ brokers: [kafka.brokers], logLevel: logLevel.NOTHING });
    const admin = client.admin();
    await admin.connect();
    await admin.createTopics({
      topics: [{ topic: TOPIC, numPartitions: partitions, replicationFactor: 1 }],
      waitForLeaders: true,
    });
    const producer = new Filler(client, new Vectors(dim, 1));
    await producer.start();
    await producer.fill(records);
    const roles = values.separate ? ["ingest", "compactor"] : ["up"];
    const processes: RunningRole[] = [];
    try {
      for (const role of roles) processes.push(await startRole(role, dir, kafka.brokers));
      const lake = processes[0] as RunningRole;
      const before = await cpuSeconds(lake);
      const active = await activeSeconds(lake);
      const started = performance.now();
      await createFromEarliest(dim, partitions, dir, kafka.brokers);
      const memories = processes.map(({ role, pid }) => ({ role, memory: sampleMemory(pid) }));
      while (performance.now() - started < seconds * 1_000) {
        await producer.fill(SEND_RECORDS);
        const due = started + ((producer.sent - records) / Number(values.rate)) * 1_000;
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      }
      await committed(lake, producer.sent);
      const elapsed = (performance.now() - started) / 1_000;
      const peaks = Object.fromEntries(memories.map(({ role, memory }) => [role, memory.stop()]));
      return {
        records: producer.sent,
        dim,
        partitions,
        seconds: elapsed,
        recordsPerSecond: producer.sent / elapsed,
        memory: peaks,
        cpuSeconds: (await cpuSeconds(lake)) - before,
        eventLoopActiveMicrosPerRecord: (((await activeSeconds(lake)) - active) * 1e6) / producer.sent,
        rowsCountedByDuckdb: await countByDuckdb(join(dir, "data")),
      };
    } finally {
      for (const { child } of processes.reverse()) await stop(child);
      await producer.stop();
      await admin.disconnect();
    }
  } finally {
    await kafka.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}

class Filler {
  sent = 0;
  readonly #producer;
  readonly #vectors: Vectors;

  constructor(kafka: Kafka, vectors: Vectors) {
    this.#producer = kafka.producer({ idempotent: true });
    this.#vectors = vectors;
  }

  async start(): Promise<void> {
    await this.#producer.connect();
  }

  async stop(): Promise<void> {
    await this.#producer.disconnect();
  }

  async fill(count: number): Promise<void> {
    for (let left = count; left > 0; left -= SEND_RECORDS) {
      const size = Math.min(SEND_RECORDS, left);
      const bytes = this.#vectors.next(size);
      const width = this.#vectors.dim * 4;
      const messages = Array.from({ length: size }, (_, i) => ({
        key: `key-${this.sent + i}`,
        value: bytes.subarray(i * width, (i + 1) * width),
      }));
      // Brokers take 1 MiB a batch: the vectors of one send are split by what fits.
      const step = Math.max(1, Math.floor((700 * 1024) / width));
      for (let at = 0; at < size; at += step) {
        await this.#producer.send({ topic: TOPIC, messages: messages.slice(at, at + step), acks: -1 });
      }
      this.sent += size;
    }
  }
}

interface RunningRole {
  role: string;
  child: ChildProcess;
  pid: number;
  http: string;
}

/** A role on free ports; all of them share the lake below `dir`, each has a data directory of its own. */
async function startRole(role: string, dir: string, brokers: string): Promise<RunningRole> {
  const http = { http: "127.0.0.1:0" };
  const config = join(dir, `${role}.yaml`);
  // YAML reads JSON.
  const sections = { query: { resp: "127.0.0.1:0", ...http }, ingest: http, compactor: http };
  writeFileSync(config, JSON.stringify({ ...sections, store: { url: join(dir, "data", "lake") } }));
  const args = [CLI, role, "--config", config, "--data-dir", join(dir, role), "--kafka", brokers];
  const child = spawn(process.execPath, ["--disable-warning=TimeoutNegativeWarning", ...args], {
    // Its requests here send no password.
    env: { ...process.env, VEXLAKE_LOGGING: "error", VEXLAKE_PASSWORD: "" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    const address = /^ready .*http=(\S+)/.exec(line)?.[1];
    if (address !== undefined) return { role, child, pid: child.pid as number, http: address };
  }
  throw new Error(`vexlake ${role} ended before it was ready`);
}

async function createFromEarliest(
  dim: number,
  partitions: number,
  dir: string,
  brokers: string,
): Promise<void> {
  const args = [
    "collection",
    "create",
    COLLECTION,
    "--dim",
    String(dim),
    "--partitions",
    String(partitions),
    "--from",
    "earliest",
  ];
  await promisify(execFile)(process.execPath, [
    CLI,
    ...args,
    "--data-dir",
    join(dir, "data"),
    "--kafka",
    brokers,
  ]);
}

/** Waits until the checkpoints cover everything sent. */
async function committed(lake: RunningRole, sent: number): Promise<void> {
  for (;;) {
    const { applied, committed } = await progressOf(lake);
    if (committed >= sent) return;
    // Everything is in memory: ask for the last flush instead of waiting for its age.
    if (applied >= sent)
      await fetch(`http://${lake.http}/api/v1/flush?collection=${COLLECTION}`, { method: "POST" });
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function progressOf(lake: RunningRole): Promise<{ applied: number; committed: number }> {
  const metrics = await (await fetch(`http://${lake.http}/metrics`)).text();
  const value = (name: string): number => {
    const lines = metrics.split("\n").filter((line) => line.startsWith(`${name}{`));
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  };
  return { applied: value("vexlake_ingest_records_total"), committed: value("vexlake_flush_entries_total") };
}

async function activeSeconds(lake: RunningRole): Promise<number> {
  const metrics = await (await fetch(`http://${lake.http}/metrics`)).text();
  const line = metrics
    .split("\n")
    .find((found) => found.startsWith("vexlake_event_loop_active_seconds_total"));
  return Number(line?.split(" ").at(-1) ?? Number.NaN);
}

async function cpuSeconds({ pid }: RunningRole): Promise<number> {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[11]) + Number(fields[12]);
  return ticks / 100;
}

/** VmRSS: resident now; VmHWM: the most since the process began. */
function residentBytes(pid: number, field: "VmRSS" | "VmHWM"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) * 1024;
}

/** Peak resident memory, and the highest samples of the first and the second half of the run. */
function sampleMemory(pid: number): { stop(): Record<string, number> } {
  const samples: number[] = [];
  const timer = setInterval(() => samples.push(residentBytes(pid, "VmRSS")), 250);
  return {
    stop: () => {
      clearInterval(timer);
      const half = Math.floor(samples.length / 2);
      return {
        residentBytesPeak: residentBytes(pid, "VmHWM"),
        residentBytesPeakFirstHalf: Math.max(0, ...samples.slice(0, half)),
        residentBytesPeakSecondHalf: Math.max(0, ...samples.slice(half)),
      };
    },
  };
}

async function countByDuckdb(dataDir: string): Promise<number> {
  const run = promisify(execFile);
  const { stdout: query } = await run(process.execPath, [
    CLI,
    "files",
    COLLECTION,
    "--format",
    "duckdb",
    "--data-dir",
    dataDir,
  ]);
  const python = String(await pythonOracles());
  const script =
    "import duckdb,sys; duckdb.sql('SET enable_progress_bar=false'); print(duckdb.sql('SELECT count(*) FROM (' + sys.stdin.read() + ')').fetchall()[0][0])";
  const child = run(python, ["-c", script]);
  child.child.stdin?.end(query);
  return Number((await child).stdout);
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await ended;
}
