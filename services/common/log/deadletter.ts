/**
 * Dead letters: bad records, as they came, on `<topic>.dlq`, with the header names that Kafka Connect
 * made common, so that existing tools find where a record came from and why it was refused.
 *
 * - Key, value and headers are those of the record; `vexlake-reason` adds the machine word of
 *   schemas/records.md.
 * - `send` resolves when all are acknowledged. It tries again until then, a write in doubt too: a letter
 *   may lie there twice (topic, partition and offset identify it), but never not at all. This is our own
 *   record keeping, not a client's write, which is never sent again.
 * - A letter that the broker finds too large goes without its value; `vexlake-value-omitted` says how
 *   many bytes it had. The record itself still lies in its topic.
 */
import { type VexError, vexErrorFrom } from "../process/error.ts";
import type { Logger } from "../process/logger.ts";
import type { LogRecord, LogSource, ProducedMessage } from "./source.ts";
import { deadLetterTopicFor } from "./topic.ts";

/** Waits between tries: 100 ms doubling to 5 s, until acknowledged or closed. */
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5_000;
/** Dead letters have no order to keep. */
const PARTITIONS = 1;

export interface DeadLetter {
  partition: number;
  record: LogRecord;
  /** Machine word of schemas/records.md. */
  reason: string;
  /** For people: names the field and both values. */
  message: string;
}

export interface DeadLettersOptions {
  source: LogSource;
  logger: Logger;
  /** Written into each letter, to tell processes apart. */
  instance: string;
}

export class DeadLetters {
  readonly #options: DeadLettersOptions;
  readonly #known = new Set<string>();
  readonly #closing = new AbortController();

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Resolves when every letter is acknowledged; throws what no retry heals, and after `close`. */
  async send(topic: string, letters: DeadLetter[]): Promise<void> {
    if (letters.length === 0) return;
    const target = deadLetterTopicFor(topic);
    const messages = letters.map((letter) => this.#message(topic, letter));
    if (await this.#try(target, messages)) return;
    // One of them is too large for the broker: one by one, so that only that one loses its value.
    for (const message of messages) {
      if (!(await this.#try(target, [message]))) await this.#try(target, [withoutValue(message)]);
    }
  }

  close(): void {
    this.#closing.abort();
  }

  /** True when acknowledged, false when refused for certain. */
  async #try(target: string, messages: ProducedMessage[]): Promise<boolean> {
    const { source, logger } = this.#options;
    for (let wait = BACKOFF_MIN_MS; ; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      try {
        if (!this.#known.has(target)) {
          await source.ensureTopic(target, PARTITIONS);
          this.#known.add(target);
        }
        await source.produce(target, messages);
        return true;
      } catch (thrown) {
        const error: VexError = vexErrorFrom(thrown);
        if (error.code === "NOT_FOUND") this.#known.delete(target);
        else if (error.code === "INVALID" && messages.some(({ value }) => value !== null)) return false;
        else if (!error.retriable && !error.doubt) throw error;
        if (this.#closing.signal.aborted) throw error;
        logger.warn({ topic: target, letters: messages.length, err: error }, "dead letters wait for the log");
        await this.#pause(wait);
      }
    }
  }

  #message(topic: string, { partition, record, reason, message }: DeadLetter): ProducedMessage {
    const headers: Record<string, Buffer | string> = {};
    for (const [name, value] of Object.entries(record.headers))
      if (value !== undefined) headers[name] = value;
    Object.assign(headers, {
      "__connect.errors.topic": topic,
      "__connect.errors.partition": String(partition),
      "__connect.errors.offset": String(record.offset),
      "__connect.errors.connector.name": "vexlake",
      "__connect.errors.task.id": this.#options.instance,
      "__connect.errors.stage": "VALUE_CONVERTER",
      "__connect.errors.class.name": "vexlake.ingest",
      "__connect.errors.exception.class.name": `vexlake.BadRecord.${reason}`,
      "__connect.errors.exception.message": message,
      "vexlake-reason": reason,
    });
    return { partition: 0, key: record.key, value: record.value, headers };
  }

  #pause(ms: number): Promise<void> {
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done);
    });
  }
}

function withoutValue(message: ProducedMessage): ProducedMessage {
  const omitted = String(message.value?.length ?? 0);
  return { ...message, value: null, headers: { ...message.headers, "vexlake-value-omitted": omitted } };
}
