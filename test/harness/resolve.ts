/*
 * Real services for the tests. Each is resolved once, in this order:
 *   1. an address in the environment (VEXLAKE_TEST_KAFKA, …_REDIS, …_S3, …_S3B, …_DUCKDB, …_PYARROW);
 *   2. a local process or environment provisioned as `npm start` does it;
 *   3. a container, where an engine answers (images from deploy/.env);
 *   4. a loud skip, or a failure when VEXLAKE_TEST_REQUIRE names the service.
 *
 * An address is one string, so that it travels through the environment to Rust tests too:
 * Kafka host:port, Redis redis://…, S3 http://key:secret@host:port/bucket, the oracles the path of
 * a python that imports them.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import {
  isSameProcess,
  leftover,
  readJson,
  startTimeOf,
  writeJson,
} from "../../services/cli/bootstrap/processes.mjs";
import {
  KAFKA_VERSION,
  kafkaRuntime,
  pythonOracles,
  pythonRuntime,
  redisRuntime,
  seaweedRuntime,
  startKafka,
  startRedis,
  startSeaweed,
  startVersity,
  versityRuntime,
} from "../../services/cli/bootstrap/provision.mjs";
import { type ContainerName, startContainer } from "./containers.ts";

export const SERVICE_NAMES = ["kafka", "redis", "s3", "s3b", "duckdb", "pyarrow"] as const;
export type ServiceName = (typeof SERVICE_NAMES)[number];

/** `address` is undefined when the service is skipped; `how` is what the table shows. */
export interface Provided {
  name: ServiceName;
  address?: string;
  how: string;
}

interface Started {
  address: string;
  stop?: () => Promise<unknown>;
}

interface Place {
  dir: string;
  pids: string;
}

interface Definition {
  title: string;
  runtime(): Promise<{ usable: boolean; why: string }> | { usable: boolean; why: string };
  start(place: Place): Promise<Started>;
  container?: ContainerName;
}

interface S3Server {
  endpoint: string;
  bucket: string;
  accessKey: string;
  secretKey: string;
  stop: () => Promise<unknown>;
}

function s3Address(server: S3Server): Started {
  const url = new URL(`/${server.bucket}`, server.endpoint);
  url.username = server.accessKey;
  url.password = server.secretKey;
  return { address: url.href, stop: server.stop };
}

const DEFINITIONS: Record<ServiceName, Definition> = {
  kafka: {
    title: `local process, Apache Kafka ${KAFKA_VERSION}`,
    runtime: () => kafkaRuntime(),
    start: async (place) => {
      const { brokers, stop } = await startKafka(place);
      return { address: brokers, stop };
    },
    container: "kafka",
  },
  redis: {
    title: "local process, redis-server from PATH",
    runtime: () => redisRuntime(),
    start: async (place) => {
      const { url, stop } = await startRedis(place);
      return { address: url, stop };
    },
    container: "redis",
  },
  s3: {
    title: "local process, SeaweedFS",
    runtime: seaweedRuntime,
    start: async (place) => s3Address(await startSeaweed(place)),
    container: "s3",
  },
  s3b: {
    title: "local process, versitygw",
    runtime: versityRuntime,
    start: async (place) => s3Address(await startVersity(place)),
    container: "s3b",
  },
  duckdb: { title: "Python environment", runtime: pythonRuntime, start: oracle },
  pyarrow: { title: "Python environment", runtime: pythonRuntime, start: oracle },
};

async function oracle(): Promise<Started> {
  return { address: await pythonOracles() };
}

export function environmentName(name: ServiceName): string {
  return `VEXLAKE_TEST_${name.toUpperCase()}`;
}

/** Pure: the services that VEXLAKE_TEST_REQUIRE names; an unknown name is an error, not ignored. */
export function requiredServices(text: string | undefined): Set<ServiceName> {
  const names = (text ?? "").split(",").map((part) => part.trim());
  const required = new Set<ServiceName>();
  for (const name of names) {
    if (name === "") continue;
    const known = SERVICE_NAMES.find((each) => each === name);
    if (!known) throw new Error(`VEXLAKE_TEST_REQUIRE names "${name}"; known: ${SERVICE_NAMES.join(", ")}`);
    required.add(known);
  }
  return required;
}

const RUNS = join(ROOT, "target", "test-run");

/** Resolves services for one test run and stops what it started. */
export class Resolver {
  readonly #env: NodeJS.ProcessEnv;
  readonly #folder: string;
  readonly #resolved = new Map<ServiceName, Promise<Provided>>();
  readonly #stops: (() => Promise<unknown>)[] = [];

  constructor(env: NodeJS.ProcessEnv = process.env, folder = join(RUNS, `${process.pid}`)) {
    this.#env = env;
    this.#folder = folder;
  }

  /** Once per run, however many suites ask. */
  resolve(name: ServiceName): Promise<Provided> {
    let pending = this.#resolved.get(name);
    if (!pending) {
      pending = this.#find(name);
      this.#resolved.set(name, pending);
    }
    return pending;
  }

  async #find(name: ServiceName): Promise<Provided> {
    const given = this.#env[environmentName(name)];
    if (given)
      return { name, address: given, how: this.#handedDown(name) ?? `environment, ${environmentName(name)}` };
    const definition = DEFINITIONS[name];
    const reasons: string[] = [];
    const runtime = await definition.runtime();
    if (runtime.usable) {
      try {
        return await this.#start(name, definition.title, () => definition.start(this.#place(name)));
      } catch (error) {
        reasons.push(messageOf(error));
      }
    } else {
      reasons.push(runtime.why);
    }
    const { container } = definition;
    if (container) {
      try {
        return await this.#start(name, "container", () => startContainer(container));
      } catch (error) {
        reasons.push(messageOf(error));
      }
    }
    const how = `SKIPPED: ${reasons.join("; ")}`;
    process.stderr.write(`\n*** service ${name} ${how}\n\n`);
    return { name, how };
  }

  async #start(name: ServiceName, how: string, start: () => Promise<Started>): Promise<Provided> {
    const { address, stop } = await start();
    if (stop) this.#stops.push(stop);
    return { name, address, how };
  }

  /** `npm test` starts services before vitest and tells how, so that the table stays truthful. */
  #handedDown(name: ServiceName): string | undefined {
    const text = this.#env.VEXLAKE_TEST_PROVIDED;
    return text ? (JSON.parse(text) as Partial<Record<ServiceName, string>>)[name] : undefined;
  }

  #place(name: ServiceName): Place {
    const owner = join(this.#folder, "owner.json");
    if (!readJson(owner)) {
      sweepRuns();
      writeJson(owner, { pid: process.pid, startTime: startTimeOf(process.pid) });
    }
    return { dir: join(this.#folder, name), pids: join(this.#folder, "pids") };
  }

  /** Stops in reverse order of start and removes the run's folder. */
  async close(): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) await stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Reaps what killed test runs left behind: their services are stopped, their folders removed. */
export function sweepRuns(runs = RUNS): void {
  mkdirSync(runs, { recursive: true });
  for (const run of readdirSync(runs)) {
    const folder = join(runs, run);
    if (isSameProcess(readJson(join(folder, "owner.json")))) continue;
    const pids = join(folder, "pids");
    for (const file of filesIn(pids)) leftover(file, join(pids, file), folder)?.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n").slice(0, 3).join(" ");
}
