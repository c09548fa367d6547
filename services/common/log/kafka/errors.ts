/**
 * kafkajs errors as VexErrors: one place that says what a broker's word means for us.
 */
import { VexError, type VexErrorOptions } from "../../process/error.ts";

/** Answers that say for certain that the broker did not write, whatever was tried before. */
const REFUSALS: Readonly<Record<string, string>> = {
  MESSAGE_TOO_LARGE: "the record is larger than the broker accepts",
  RECORD_LIST_TOO_LARGE: "the record is larger than the broker accepts",
  INVALID_RECORD: "the broker refused the record",
  INVALID_TIMESTAMP: "the broker refused the record's timestamp",
  TOPIC_AUTHORIZATION_FAILED: "not authorised to write to the topic",
  CLUSTER_AUTHORIZATION_FAILED: "not authorised to write idempotently",
  POLICY_VIOLATION: "the broker's policy refused it",
  INVALID_TOPIC_EXCEPTION: "the broker refused the topic's name",
};

/** Answers of a broker that does not lead a partition (any more, or yet): fresh metadata helps. */
export const STALE: ReadonlySet<string> = new Set([
  "NOT_LEADER_FOR_PARTITION",
  "LEADER_NOT_AVAILABLE",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "REPLICA_NOT_AVAILABLE",
]);

interface KafkaLike {
  name?: string;
  type?: string;
  message?: string;
  cause?: unknown;
  retriable?: boolean;
  code?: string;
  errors?: unknown[];
}

/** The broker's error word, looked for down the chain of causes. */
export function protocolType(thrown: unknown): string | undefined {
  for (let error = thrown as KafkaLike | undefined, depth = 0; error && depth < 8; depth++) {
    if (typeof error.type === "string") return error.type;
    const inner = error.errors?.[0] ?? error.cause;
    error = (typeof inner === "object" ? inner : undefined) as KafkaLike | undefined;
  }
  return undefined;
}

export function kafkaError(what: string, thrown: unknown, options: VexErrorOptions = {}): VexError {
  if (thrown instanceof VexError) return thrown;
  const type = protocolType(thrown);
  const message = `${what}: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  const full = { ...options, cause: thrown };
  if (type === "UNKNOWN_TOPIC_OR_PARTITION") return new VexError("NOT_FOUND", message, full);
  if (type !== undefined && type in REFUSALS) {
    return new VexError("INVALID", `${what}: ${REFUSALS[type]} (${type})`, full);
  }
  if (type?.endsWith("_AUTHORIZATION_FAILED")) return new VexError("INVALID", message, full);
  return new VexError("UNAVAILABLE", message, full);
}

/** A produce that failed: refused for certain, or in doubt. */
export function produceError(topic: string, thrown: unknown): VexError {
  const type = protocolType(thrown);
  if (type !== undefined && (type in REFUSALS || type === "UNKNOWN_TOPIC_OR_PARTITION")) {
    return kafkaError(`write to ${topic} refused`, thrown, { retriable: false });
  }
  return new VexError(
    "UNAVAILABLE",
    `write to ${topic} in doubt: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
    { cause: thrown, retriable: false, fields: { doubt: true, topic } },
  );
}

/** A call of which another part is written: what was refused of it does not make the whole certain. */
export function partlyWritten(topic: string, refusal: VexError): VexError {
  return new VexError(
    "UNAVAILABLE",
    `write to ${topic} in doubt, a part of it is written: ${refusal.message}`,
    {
      cause: refusal,
      retriable: false,
      fields: { doubt: true, topic },
    },
  );
}
