/*
 * Which log and which job queue a start uses, and the sentence that says why. Pure.
 *
 * The log of a data directory is chosen once: a collection's offsets belong to one log, so a
 * second start must not flip it because Java came or went. The first start that gets as far as a
 * running lake writes the choice down; later ones follow it, and a flag that contradicts it ends with
 * exit code 4. The job queue is only a hint and may change from start to start.
 */
import { EXIT, LauncherError } from "./errors.mjs";

/**
 * `options` from the command line, `remembered` = the stored choice or undefined, `runtime` =
 * {usable, why} of our own Kafka. Answers {kind: "own-kafka" | "kafka" | "local", brokers?, why}.
 */
export function chooseLog(options, remembered, runtime) {
  const asked = askedLog(options);
  if (!remembered) return requireRuntime(asked ?? byMachine(runtime), runtime);
  if (asked && asked.kind !== remembered.kind) {
    throw new LauncherError(
      EXIT.inUse,
      `this data directory's log is ${nameOfLog(remembered)}, not ${nameOfLog(asked)}: leave the flag out, or use another --data-dir`,
    );
  }
  const why = "chosen by the first start of this data directory";
  return requireRuntime({ ...remembered, ...asked, why: asked?.why ?? why }, runtime);
}

function askedLog(options) {
  if (options.kafka !== undefined) return { kind: "kafka", brokers: options.kafka, why: "--kafka was given" };
  if (options.log === "kafka") return { kind: "own-kafka", why: "--log kafka was given" };
  if (options.log === "local") return { kind: "local", why: "--log local was given" };
  return undefined;
}

function byMachine(runtime) {
  return { kind: runtime.usable ? "own-kafka" : "local", why: runtime.why };
}

function requireRuntime(choice, runtime) {
  if (choice.kind === "own-kafka" && !runtime.usable) {
    throw new LauncherError(EXIT.prerequisite, `the log is Kafka (${choice.why}), but ${runtime.why}`);
  }
  return choice;
}

/** What is stored: never the reason, which belongs to one start. */
export function rememberedForm({ kind, brokers }) {
  return brokers === undefined ? { kind } : { kind, brokers };
}

export function nameOfLog({ kind, brokers }) {
  if (kind === "own-kafka") return "a local Apache Kafka";
  return kind === "kafka" ? `the Kafka at ${brokers}` : "the local append-only log";
}

/** {kind: "given" | "own" | "in-process", url?, why}. */
export function chooseJobs(options, runtime) {
  if (options.redis !== undefined) return { kind: "given", url: options.redis, why: "--redis was given" };
  return { kind: runtime.usable ? "own" : "in-process", why: runtime.why };
}

/** The command line of `vexlake up`: only what the user gave or the launcher decided. */
export function upArguments({ options, dataDir, log, brokers, redis }) {
  const args = ["up", "--data-dir", dataDir];
  if (log.kind === "local") args.push("--log", "local");
  else args.push("--kafka", brokers);
  if (redis) args.push("--redis", redis);
  if (options.s3 !== undefined) args.push("--s3", options.s3);
  if (options.port !== undefined) args.push("--port", `${options.port}`);
  if (options.httpPort !== undefined) args.push("--http-port", `${options.httpPort}`);
  return args;
}

/** `ready resp=… http=… log=… store=… version=…` → an object, or undefined for another line. */
export function parseReady(line) {
  if (!line.startsWith("ready ")) return undefined;
  const pairs = line
    .trim()
    .split(" ")
    .slice(1)
    .map((part) => {
      const at = part.indexOf("=");
      return [part.slice(0, at), part.slice(at + 1)];
    });
  return Object.fromEntries(pairs);
}
