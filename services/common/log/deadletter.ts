/**
 * Dead letters: bad records, as they came, on `<topic>.dlq`, with the header names that Kafka Connect
 * made common, so that existing tools find where a record came from and why it was refused.
 *
 * - Key, value and headers are those of the record; `vexlake-reason` adds the machine word of
 *   schemas/records.md.
 * - `send` resolves when all are acknowledged. It tries again until then, a write in doubt too: a letter
 *   may lie there twice (topic, partition and offset identify it), but never not at all. This is our own
 *   record keeping, not a client's write, which is never sent again. When the caller's signal aborts,
 *   the try under way is the last, and has CLOSE_MS_MAX.
 * - A letter that the broker finds too large goes without its value; `vexlake-value-omitted` says how
 *   many bytes it had. The record itself still lies in its topic.
 */
import { VexError, vexErrorFrom } from "../process/error.ts";
import type { Logger } from "../process/logger.ts";
import { pause } from "../process/pause.ts";
import type { LogRecord, LogSource, ProducedMessage } from "./source.ts";
import { deadLetterTopicFor } from "./topic.ts";

/** Waits between tries: 100 ms doubling to 5 s, until acknowledged or aborted. */
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5_000;
/** A broker that is there answers in milliseconds; twice this and a flush fit into a shutdown's 20 s. */
const CLOSE_MS_MAX = 3_000;
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

  constructor(options: DeadLettersOptions) {
    this.#options = options;
  }

  /** Resolves when every letter is acknowledged; throws what no retry heals, and once `signal` aborts. */
  async send(topic: string, letters: DeadLetter[], signal: AbortSignal): Promise<void> {
    if (letters.length === 0) return;
    const target = deadLetterTopicFor(topic);
    const messages = letters.map((letter) => this.#message(topic, letter));
    if (await this.#try(target, messages, signal)) return;
    // One of them is too large for the broker: one by one, so that only that one loses its value.
    for (const message of messages) {
      if (!(await this.#try(target, [message], signal))) {
        await this.#try(target, [withoutValue(message)], signal);
      }
    }
  }

  /** True when acknowledged, false when refused for certain. */
  async #try(target: string, messages: ProducedMessage[], signal: AbortSignal): Promise<boolean> {
    const { logger } = this.#options;
    for (let wait = BACKOFF_MIN_MS; ; wait = Math.min(wait * 2, BACKOFF_MAX_MS)) {
      try {
        await inTime(this.#produce(target, messages), signal);
        return true;
      } catch (thrown) {
        const error: VexError = vexErrorFrom(thrown);
        if (error.code === "NOT_FOUND") this.#known.delete(target);
        else if (error.code === "INVALID" && messages.some(({ value }) => value !== null)) return false;
        else if (!error.retriable && !error.doubt) throw error;
        if (signal.aborted) throw error;
        logger.warn({ topic: target, letters: messages.length, err: error }, "dead letters wait for the log");
        await pause(wait, signal);
      }
    }
  }

  async #produce(target: string, messages: ProducedMessage[]): Promise<void> {
    const { source } = this.#options;
    if (!this.#known.has(target)) {
      await source.ensureTopic(target, PARTITIONS);
      this.#known.add(target);
    }
    await source.produce(target, messages);
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
}

/** What `work` answers, or an error CLOSE_MS_MAX after the signal; nobody waits for the work then. */
async function inTime<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const closing = () => {
    const message = `the log did not take dead letters within ${CLOSE_MS_MAX} ms`;
    timer = setTimeout(() => reject(new VexError("UNAVAILABLE", message)), CLOSE_MS_MAX);
  };
  if (signal.aborted) closing();
  else signal.addEventListener("abort", closing);
  try {
    return await Promise.race([work, late]);
  } finally {
    signal.removeEventListener("abort", closing);
    clearTimeout(timer);
  }
}

function withoutValue(message: ProducedMessage): ProducedMessage {
  const omitted = String(message.value?.length ?? 0);
  return { ...message, value: null, headers: { ...message.headers, "vexlake-value-omitted": omitted } };
}
