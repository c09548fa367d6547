/*
 * The same services as containers, for machines that have an engine but not the programs. Image
 * names come from deploy/.env, which compose reads too. Without an engine this says so once.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { GenericContainer, getContainerRuntimeClient, type StartedTestContainer, Wait } from "testcontainers";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import { freePorts, HOST } from "../../services/cli/bootstrap/ports.mjs";
import { probeKafka } from "../../services/cli/bootstrap/probes.mjs";
import { TEST_BUCKET, TEST_CREDENTIALS } from "../../services/cli/bootstrap/provision.mjs";

export type ContainerName = "kafka" | "redis" | "s3" | "s3b";

const ENGINE_WAIT_MS = 5_000;
const KAFKA_READY_MS = 60_000;
const KAFKA_POLL_MS = 100;

/** Pure: NAME=value lines; comments and blank lines are skipped. */
export function parseImages(text: string): Map<string, string> {
  const images = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^([A-Z0-9_]+)=(\S+)\s*$/.exec(line);
    if (match?.[1] && match[2]) images.set(match[1], match[2]);
  }
  return images;
}

function image(name: string): string {
  const found = parseImages(readFileSync(join(ROOT, "deploy", ".env"), "utf8")).get(name);
  if (!found) throw new Error(`deploy/.env names no ${name}`);
  return found;
}

let engine: Promise<boolean> | undefined;

/** Does a container engine answer? Asked once. */
export function hasEngine(): Promise<boolean> {
  engine ??= Promise.race([
    getContainerRuntimeClient().then(
      () => true,
      () => false,
    ),
    new Promise<boolean>((resolve) => setTimeout(() => resolve(false), ENGINE_WAIT_MS).unref()),
  ]);
  return engine;
}

export async function startContainer(
  name: ContainerName,
): Promise<{ address: string; stop: () => Promise<unknown> }> {
  if (!(await hasEngine())) throw new Error("no container engine answers");
  return await START[name]();
}

const START: Record<ContainerName, () => Promise<{ address: string; stop: () => Promise<unknown> }>> = {
  kafka: async () => {
    // The broker hands its advertised address to clients, so the host's port must be known first.
    const [port] = (await freePorts(1)) as [number];
    const container = await new GenericContainer(image("KAFKA_IMAGE"))
      .withExposedPorts({ container: 9092, host: port })
      .withEnvironment({
        KAFKA_NODE_ID: "1",
        KAFKA_PROCESS_ROLES: "broker,controller",
        KAFKA_CONTROLLER_QUORUM_VOTERS: "1@localhost:9093",
        KAFKA_LISTENERS: "PLAINTEXT://:9092,CONTROLLER://:9093",
        KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://${HOST}:${port}`,
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        KAFKA_CONTROLLER_LISTENER_NAMES: "CONTROLLER",
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: "1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: "1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: "1",
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: "0",
        KAFKA_AUTO_CREATE_TOPICS_ENABLE: "false",
      })
      .start();
    await untilKafka(port);
    return { address: `${HOST}:${port}`, stop: () => container.stop() };
  },
  redis: async () => {
    const container = await new GenericContainer(image("REDIS_IMAGE"))
      .withExposedPorts(6379)
      .withCommand(["redis-server", "--save", "", "--maxmemory-policy", "noeviction"])
      .withWaitStrategy(Wait.forLogMessage(/Ready to accept connections/))
      .start();
    return { address: `redis://${endpoint(container, 6379)}/0`, stop: () => container.stop() };
  },
  s3: async () => {
    const container = await new GenericContainer(image("SEAWEEDFS_IMAGE"))
      .withExposedPorts(8333)
      .withEnvironment({
        AWS_ACCESS_KEY_ID: TEST_CREDENTIALS.accessKey,
        AWS_SECRET_ACCESS_KEY: TEST_CREDENTIALS.secretKey,
        S3_BUCKET: TEST_BUCKET,
      })
      .withCommand(["mini", "-dir=/data", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"])
      .withWaitStrategy(Wait.forHttp("/", 8333).forStatusCodeMatching((status) => status < 500))
      .start();
    return s3Address(container, 8333);
  },
  s3b: async () => {
    const { accessKey, secretKey } = TEST_CREDENTIALS;
    const container = await new GenericContainer(image("VERSITYGW_IMAGE"))
      .withExposedPorts(7070)
      .withTmpFs({ [`/data/${TEST_BUCKET}`]: "rw" })
      .withCommand(["--access", accessKey, "--secret", secretKey, "--port", ":7070", "posix", "/data"])
      .withWaitStrategy(Wait.forHttp("/", 7070).forStatusCodeMatching((status) => status < 500))
      .start();
    return s3Address(container, 7070);
  },
};

function endpoint(container: StartedTestContainer, port: number): string {
  return `${container.getHost()}:${container.getMappedPort(port)}`;
}

function s3Address(container: StartedTestContainer, port: number) {
  const { accessKey, secretKey } = TEST_CREDENTIALS;
  const address = `http://${accessKey}:${secretKey}@${endpoint(container, port)}/${TEST_BUCKET}`;
  return { address, stop: () => container.stop() };
}

async function untilKafka(port: number): Promise<void> {
  const deadline = Date.now() + KAFKA_READY_MS;
  for (;;) {
    try {
      return await probeKafka({ host: HOST, port });
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, KAFKA_POLL_MS));
  }
}
