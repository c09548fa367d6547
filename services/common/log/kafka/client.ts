/**
 * How VexLake configures kafkajs, and the adapter from its log lines to ours.
 *
 * One line matters beyond logging: "Offset out of range, resetting to default offset". kafkajs then
 * moves a consumer by itself, and this line is the only sign at that moment; it is handed to `onReset`.
 */
import kafkajs, { type Kafka, type LogEntry, logLevel } from "kafkajs";
import type { Logger } from "../../process/logger.ts";
import { registerCodecs } from "./codecs.ts";
import { openSocket } from "./socket.ts";

/** A broker answers produce and fetch well within this, else the connection is given up. */
export const REQUEST_TIMEOUT_MS = 10_000;
export const CONNECTION_TIMEOUT_MS = 3_000;
/** Waits 100, 200, 400, 800, 1,000, 1,000 ms: a leader election fits, an outage is told after ~4 s. */
export const RETRY = { initialRetryTime: 100, maxRetryTime: 1_000, factor: 0.2, multiplier: 2, retries: 6 };

const RESET_MESSAGE = "Offset out of range, resetting to default offset";

export interface ResetSignal {
  topic: string;
  partition: number;
  groupId: string;
}

export function openClient(options: {
  brokers: string[];
  clientId: string;
  logger: Logger;
  onReset: (signal: ResetSignal) => void;
}): Kafka {
  registerCodecs();
  return new kafkajs.Kafka({
    brokers: options.brokers,
    clientId: options.clientId,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: CONNECTION_TIMEOUT_MS,
    retry: RETRY,
    socketFactory: openSocket,
    logLevel: logLevel.WARN,
    logCreator: () => (entry) => adapt(entry, options.logger, options.onReset),
  });
}

function adapt(entry: LogEntry, logger: Logger, onReset: (signal: ResetSignal) => void): void {
  const { message, timestamp: _timestamp, logger: _name, stack: _stack, ...fields } = entry.log;
  if (message === RESET_MESSAGE) onReset(fields as unknown as ResetSignal);
  // kafkajs calls "error" what it then retries, so nothing of it is louder than a warning here.
  const level = entry.level <= logLevel.ERROR ? "warn" : "debug";
  logger[level]({ kafkajs: entry.namespace, ...fields }, message);
}
