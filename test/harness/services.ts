/*
 * What a test file imports to get real services:
 *
 *   await suite(["kafka", "s3"], "ingest over S3", ({ kafka, s3 }) => {
 *     it("should …", async () => { … });
 *   });
 *
 * (`await` at the top level.) The services are shared by the whole run: use `unique(…)` names for
 * topics, prefixes and databases. A suite that kills its broker starts its own with `ownKafka`.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, inject, it } from "vitest";
import { startKafka, startRedis } from "../../services/cli/bootstrap/provision.mjs";
import { type Provided, requiredServices, type ServiceName } from "./resolve.ts";

export interface KafkaService {
  brokers: string;
}
export interface RedisService {
  url: string;
}
export interface S3Service {
  endpoint: string;
  region: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
}
export interface OracleService {
  python: string;
}
export interface Services {
  kafka: KafkaService;
  redis: RedisService;
  s3: S3Service;
  s3b: S3Service;
  duckdb: OracleService;
  pyarrow: OracleService;
}

const PARSE: { [Name in ServiceName]: (address: string) => Services[Name] } = {
  kafka: (brokers) => ({ brokers }),
  redis: (url) => ({ url }),
  s3: parseS3,
  s3b: parseS3,
  duckdb: (python) => ({ python }),
  pyarrow: (python) => ({ python }),
};

/** Pure: http://key:secret@host:port/bucket → its parts. */
export function parseS3(address: string): S3Service {
  const url = new URL(address);
  return {
    endpoint: url.origin,
    region: url.searchParams.get("region") ?? "us-east-1",
    bucket: url.pathname.replaceAll("/", ""),
    accessKey: decodeURIComponent(url.username),
    secretKey: decodeURIComponent(url.password),
  };
}

/** The service, or undefined when it is skipped; throws when VEXLAKE_TEST_REQUIRE names it. */
export async function service<Name extends ServiceName>(name: Name): Promise<Services[Name] | undefined> {
  const response = await fetch(`${inject("harness")}/${name}`);
  if (!response.ok) throw new Error(`the harness answered ${response.status} for ${name}`);
  const provided = (await response.json()) as Provided;
  if (provided.address !== undefined) return PARSE[name](provided.address);
  if (requiredServices(process.env.VEXLAKE_TEST_REQUIRE).has(name)) {
    throw new Error(`service ${name} is required (VEXLAKE_TEST_REQUIRE), but ${provided.how}`);
  }
  return undefined;
}

/** A describe block that runs with all named services, or is skipped as a whole. */
export async function suite<Name extends ServiceName>(
  names: readonly Name[],
  title: string,
  body: (services: Pick<Services, Name>) => void,
): Promise<void> {
  const found: Partial<Pick<Services, Name>> = {};
  const absent: string[] = [];
  for (const name of names) {
    const provided = await service(name);
    if (provided === undefined) absent.push(name);
    else found[name] = provided;
  }
  if (absent.length === 0) {
    describe(title, () => body(found as Pick<Services, Name>));
    return;
  }
  // The body is not even collected: it may use an address while it declares its tests.
  describe.skip(title, () => {
    it(`needs ${absent.join(", ")}`, () => {});
  });
}

/** `prefix-3f9a…`: a name that no other suite of any run uses. */
export function unique(prefix: string): string {
  return `${prefix}-${randomBytes(6).toString("hex")}`;
}

const execFileAsync = promisify(execFile);
const PYTHON_OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

/** Runs a Python program given as text; answers its standard output. */
export async function runPython(
  { python }: OracleService,
  program: string,
  args: string[] = [],
): Promise<string> {
  const options = { maxBuffer: PYTHON_OUTPUT_BYTES_MAX };
  const { stdout } = await execFileAsync(python, ["-c", program, ...args], options);
  return stdout;
}

/** A temporary folder and how to remove it. */
export function temporaryFolder(prefix = "vexlake-test-"): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), prefix));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 3 }) };
}

/** A broker of this suite's own, to be killed and restarted on the same port and data. */
export async function ownKafka(dir: string, port?: number) {
  return await startKafka({ dir, pids: join(dir, "pids"), port });
}

/** A Redis of this suite's own. */
export async function ownRedis(dir: string, port?: number) {
  return await startRedis({ dir, pids: join(dir, "pids"), port });
}
