/*
 * A real Apache Kafka broker (KRaft, one node) as a child process.
 *
 * Jars: the 35 of kafka-jars.json, each checked by its SHA-256, kept in the user's cache. They
 * come from the Maven repository that MAVEN_REPOSITORY_URL names, fetched with Node built-ins
 * (1.2 s), else by `mvn` with its own configuration from a pom made of the same list. No
 * repository host stands in this code.
 *
 * Start: format the data folder once, write server.properties with the ports of this run, start,
 * wait until the broker lists itself in Metadata. SIGTERM stops it in 0.5 s. An AppCDS archive
 * would save 0.8 s of 2.4 s per start; it is left out because writing it slows the first stop.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT, LauncherError } from "../errors.mjs";
import { execute, onPath } from "../exec.mjs";
import { freePorts, HOST } from "../ports.mjs";
import { findKafkaRuntime } from "../prerequisites.mjs";
import { probeKafka } from "../probes.mjs";
import { pidFileIn, startProcess, waitReady } from "../processes.mjs";
import { cached, isCached, sha256, sha256OfFile } from "./cache.mjs";

const LIST = JSON.parse(readFileSync(new URL("../kafka-jars.json", import.meta.url), "utf8")).jars;
/** The broker's version, as its own artifact says. */
export const KAFKA_VERSION = Object.keys(LIST)
  .find((coordinates) => coordinates.startsWith("org.apache.kafka:kafka_2.13:"))
  .split(":")[2];
// The digest of the list is part of the name: a changed list never meets an old folder.
const CACHE_KEY = `kafka-${KAFKA_VERSION}-${sha256(JSON.stringify(LIST)).slice(0, 12)}`;
const DOWNLOADS_AT_ONCE = 8;
/** A slow mirror once took 40 s for scala-library's 6 MB. */
const DOWNLOAD_TIMEOUT_MS = 120_000;
/** 2.4 s on a quiet machine; a cold one beside a compiler took 20 s. */
const READY_DEADLINE_MS = 90_000;
const JVM_FLAGS = [
  "-XX:TieredStopAtLevel=1",
  "-XX:+UseSerialGC",
  "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

export function kafkaJarsCached() {
  return isCached(CACHE_KEY);
}

/** Can this machine run the broker? {usable, why, java, …}. */
export function kafkaRuntime(env = process.env) {
  return findKafkaRuntime(env, kafkaJarsCached());
}

/** Pure: "g.r:artifact:1.0" → {file, path} inside any Maven repository. */
export function jarLocation(coordinates) {
  const [group, artifact, version] = coordinates.split(":");
  const file = `${artifact}-${version}.jar`;
  return { file, path: `${group.replaceAll(".", "/")}/${artifact}/${version}/${file}` };
}

/** Pure: a pom that resolves to exactly the listed jars (transitive ones are excluded). */
export function pomOf(list) {
  const dependencies = list.map((coordinates) => {
    const [group, artifact, version] = coordinates.split(":");
    return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version><exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>`;
  });
  return [
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>',
    "<groupId>vexlake</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>",
    `<dependencies>\n${dependencies.join("\n")}\n</dependencies></project>\n`,
  ].join("\n");
}

/** The folder with the checked jars; `onProgress(done, total)` while they are fetched. */
export function kafkaJars({ env = process.env, onProgress = () => {} } = {}) {
  return cached(CACHE_KEY, async (folder) => {
    if (env.MAVEN_REPOSITORY_URL) await fetchJars(env.MAVEN_REPOSITORY_URL, folder, onProgress);
    else if (onPath("mvn")) await copyWithMaven(folder);
    else {
      throw new LauncherError(
        EXIT.prerequisite,
        "Kafka's jars need Maven (or MAVEN_REPOSITORY_URL naming a Maven repository)",
      );
    }
  });
}

async function fetchJars(repository, folder, onProgress) {
  const waiting = Object.entries(LIST);
  const total = waiting.length;
  let done = 0;
  const worker = async () => {
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const [coordinates, digest] = next;
      const { file, path } = jarLocation(coordinates);
      const url = `${repository.replace(/\/+$/, "")}/${path}`;
      const bytes = await download(url);
      checkDigest(file, sha256(bytes), digest);
      writeFileSync(join(folder, file), bytes);
      done += 1;
      onProgress(done, total);
    }
  };
  await Promise.all(Array.from({ length: DOWNLOADS_AT_ONCE }, worker));
}

async function download(url) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS) });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  } catch (error) {
    throw new LauncherError(EXIT.unreachable, `${url}: ${error.cause?.message ?? error.message}`);
  }
}

async function copyWithMaven(folder) {
  const project = join(folder, "maven");
  const jars = join(project, "jars");
  mkdirSync(project, { recursive: true });
  writeFileSync(join(project, "pom.xml"), pomOf(Object.keys(LIST)));
  const args = [
    "-q",
    "-B",
    "dependency:copy-dependencies",
    "-DincludeScope=runtime",
    `-DoutputDirectory=${jars}`,
  ];
  const result = await execute("mvn", args, { cwd: project });
  if (result.code !== 0) {
    const said = `${result.stdout}\n${result.stderr}`.trim().split("\n").slice(-10).join("\n");
    throw new LauncherError(EXIT.unreachable, `maven could not fetch Kafka's jars:\n${said}`);
  }
  for (const [coordinates, digest] of Object.entries(LIST)) {
    const { file } = jarLocation(coordinates);
    checkDigest(file, sha256OfFile(join(jars, file)), digest);
    renameSync(join(jars, file), join(folder, file));
  }
  rmSync(project, { recursive: true });
}

function checkDigest(file, found, wanted) {
  if (found === wanted) return;
  throw new LauncherError(
    EXIT.unreachable,
    `${file} has SHA-256 ${found}, expected ${wanted}: refusing to run it`,
  );
}

/** Pure: a KRaft cluster id, 16 random bytes in base64url; the format tool refuses a leading dash. */
export function clusterId(bytes = randomBytes(16)) {
  return Buffer.from(bytes).toString("base64url").replace(/^-/, "_");
}

/** Pure: server.properties of a one-node broker on the loopback interface. */
export function serverProperties({ port, controllerPort, dataFolder }) {
  return `${[
    "process.roles=broker,controller",
    "node.id=1",
    `controller.quorum.voters=1@${HOST}:${controllerPort}`,
    `listeners=PLAINTEXT://${HOST}:${port},CONTROLLER://${HOST}:${controllerPort}`,
    `advertised.listeners=PLAINTEXT://${HOST}:${port}`,
    "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name=PLAINTEXT",
    "controller.listener.names=CONTROLLER",
    `log.dirs=${dataFolder}`,
    "offsets.topic.replication.factor=1",
    "offsets.topic.num.partitions=4",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=4",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.num.partitions=4",
    "group.initial.rebalance.delay.ms=0",
    "auto.create.topics.enable=false",
  ].join("\n")}\n`;
}

/**
 * Starts the broker with its data in `dir`; answers {brokers, port, supervised, stop}.
 * `port` is the client port (a free one when absent); `pids` is the folder of the pid file.
 * @param {{dir: string, pids: string, port?: number, env?: NodeJS.ProcessEnv, name?: string}} options
 */
export async function startKafka({ dir, pids, port, env = process.env, name = "kafka" }) {
  const runtime = await kafkaRuntime(env);
  if (!runtime.usable) throw new LauncherError(EXIT.prerequisite, `Kafka cannot run here: ${runtime.why}`);
  const classPath = `${await kafkaJars({ env })}/*`;
  const dataFolder = join(dir, "data");
  mkdirSync(dataFolder, { recursive: true });
  const [controllerPort, freePort] = await freePorts(2);
  const clientPort = port ?? freePort;
  const config = join(dir, "server.properties");
  writeFileSync(config, serverProperties({ port: clientPort, controllerPort, dataFolder }));
  if (!existsSync(join(dataFolder, "meta.properties"))) await format(runtime.java, classPath, config);
  const supervised = await startProcess({
    name,
    command: runtime.java,
    args: ["-Xmx512m", ...JVM_FLAGS, "-cp", classPath, "kafka.Kafka", config],
    cwd: dir,
    env,
    logFile: join(dir, "broker.log"),
    pidFile: pidFileIn(pids, name),
    details: { port: clientPort },
  });
  await waitReady(supervised, () => probeKafka({ host: HOST, port: clientPort }), READY_DEADLINE_MS);
  return { brokers: `${HOST}:${clientPort}`, port: clientPort, supervised, stop: () => supervised.stop() };
}

async function format(java, classPath, config) {
  const args = [
    ...JVM_FLAGS,
    "-cp",
    classPath,
    "kafka.tools.StorageTool",
    "format",
    "-t",
    clusterId(),
    "-c",
    config,
  ];
  const result = await execute(java, args);
  if (result.code === 0) return;
  throw new LauncherError(EXIT.internal, `Kafka's format failed:\n${result.stdout}${result.stderr}`);
}
