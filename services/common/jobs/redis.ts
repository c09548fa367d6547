/**
 * Redis connections for jobs, and one place that knows whether Redis is there.
 *
 * Two kinds, because they must fail differently:
 * - **producer** (enqueue, list, stats, progress): a command fails at once while Redis is away
 *   (`enableOfflineQueue: false`) and after COMMAND_TIMEOUT_MS when it hangs, so that a planner
 *   tick or an HTTP request is never stuck behind an outage;
 * - **worker** (take a job, finish it): a command waits for Redis to come back, because its failure
 *   would lose the result of a finished merge. No timeout: BullMQ takes a timeout for a defect of
 *   the job, not of the connection.
 *
 * Both reconnect for ever, at most RECONNECT_INTERVAL_MS apart. An outage is logged once at its
 * start and once at its end; ioredis reports every attempt, which would bury the log.
 */
import { Redis, type RedisOptions } from "ioredis";
import { VexError } from "../process/error.ts";
import { type JobLogger, messageOf } from "./runner.ts";

/** Recovery is noticed within about a second; 1 attempt a second is no load for a Redis. */
export const RECONNECT_INTERVAL_MS = 1_000;
/** The first attempts come faster, so that a quick restart costs little: 50, 100, 150 … ms. */
const RECONNECT_STEP_MS = 50;
/** A list of 200 jobs takes some ms; 5 s means that Redis or the network hangs. */
export const COMMAND_TIMEOUT_MS = 5_000;
/** At the start, a Redis that does not answer by then is reported, with its address. */
export const START_WAIT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5_000;
const KEEP_ALIVE_MS = 10_000;

export function openProducerConnection(url: string): Redis {
  return new Redis(url, {
    ...commonOptions(),
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    commandTimeout: COMMAND_TIMEOUT_MS,
  });
}

/** `maxRetriesPerRequest: null` is BullMQ's demand: a blocking command must outlive a reconnect. */
export function openWorkerConnection(url: string): Redis {
  return new Redis(url, { ...commonOptions(), maxRetriesPerRequest: null });
}

function commonOptions(): RedisOptions {
  return {
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    retryStrategy: (attempts) => Math.min(attempts * RECONNECT_STEP_MS, RECONNECT_INTERVAL_MS),
  };
}

/** Address without user and password, for logs and messages. */
export function redisAddress(url: string): string {
  const parsed = new URL(url);
  return `${parsed.protocol}//${parsed.host}${parsed.pathname}`;
}

/** Follows one connection; `connected` is what boards and readiness show. */
export class RedisWatch {
  connected = false;
  readonly #address: string;
  readonly #logger: JobLogger;
  readonly #onReady: () => void;
  #awayLogged = false;
  #closed = false;
  #lastError = "the connection closed";

  constructor(connection: Redis, address: string, logger: JobLogger, onReady: () => void) {
    this.#address = address;
    this.#logger = logger;
    this.#onReady = onReady;
    connection.on("ready", () => this.#ready());
    connection.on("close", () => this.#away());
    connection.on("error", (error: Error) => {
      this.#lastError = messageOf(error);
    });
  }

  /** The connections of workers report the same outage; their errors are kept for debugging only. */
  quietError(error: Error): void {
    const level = isOutage(error) || this.#closed ? "debug" : "error";
    this.#logger[level]({ err: error, redis: this.#address }, "job queue error");
  }

  closing(): void {
    this.#closed = true;
  }

  #ready(): void {
    this.connected = true;
    if (this.#awayLogged) this.#logger.info({ redis: this.#address }, "redis is back, jobs go on");
    this.#awayLogged = false;
    this.#onReady();
  }

  #away(): void {
    this.connected = false;
    if (this.#awayLogged || this.#closed) return;
    this.#awayLogged = true;
    this.#logger.warn(
      { redis: this.#address, error: this.#lastError },
      "redis is away: running jobs go on, new ones wait for the next plan",
    );
  }
}

/** Resolves when the connection is usable; after START_WAIT_MS says what was tried. */
export async function waitUntilReady(connection: Redis, url: string, waitMs = START_WAIT_MS): Promise<void> {
  if (connection.status === "ready") return;
  let lastError = "no answer";
  const onError = (error: Error): void => {
    lastError = messageOf(error) || lastError;
  };
  connection.on("error", onError);
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        connection.off("ready", onReady);
        const message = `redis for jobs at ${redisAddress(url)} is unreachable: ${lastError}; check jobs.redis`;
        reject(new VexError("UNREACHABLE", message));
      }, waitMs);
      const onReady = (): void => {
        clearTimeout(timer);
        resolve();
      };
      connection.once("ready", onReady);
    });
  } finally {
    connection.off("error", onError);
  }
}

/** Whether an error says that Redis is not there, rather than that a command was wrong. */
export function isOutage(error: unknown): boolean {
  const { code, message } = error as { code?: string; message?: string };
  if (
    code !== undefined &&
    /^(ECONNREFUSED|ECONNRESET|EPIPE|ENOTFOUND|ETIMEDOUT|EAI_AGAIN|EHOSTUNREACH)$/.test(code)
  )
    return true;
  return /Connection is closed|Stream isn't writeable|Command timed out|max retries per request|ECONNREFUSED|^LOADING/i.test(
    message ?? "",
  );
}
