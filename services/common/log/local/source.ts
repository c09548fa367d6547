/**
 * LocalSource: LogSource on a directory, the embedded default.
 *
 *   log.json                        {"format":2,"cluster":"<id>"}, once
 *   lock                            pid and start time of the one process
 *   <topic>/topic.json              {"partitions":4,"created":"…"}
 *   <topic>/<partition>/<first offset>.log
 *   @reports/<group>.json           reported offsets, for tools; read by nobody here
 *
 * One process: a second one that opens the directory gets IN_USE and exits 4. A topic is complete when
 * its topic.json exists, which is written last, under a durable name.
 */
import { randomUUID } from "node:crypto";
import { mkdir, open, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { VexError, vexErrorFrom } from "../../process/error.ts";
import { acquireLock, type ProcessLock } from "../../process/lock.ts";
import type { Logger } from "../../process/logger.ts";
import { partitionFor } from "../murmur2.ts";
import type {
  Assignment,
  ConsumerHandlers,
  LogBatch,
  LogConsumer,
  LogSource,
  OffsetAtTime,
  PartitionRange,
  ProducedMessage,
  ProducedOffset,
} from "../source.ts";
import { LocalConsumer } from "./consumer.ts";
import { LocalGroups } from "./groups.ts";
import { LocalPartition, partlyWritten } from "./partition.ts";
import { syncDirectory } from "./segment.ts";

/** Each is a directory, an open file and a loop per consumer; more belongs on Kafka. */
export const PARTITIONS_MAX = 256;
/** 2: a frame names its group. */
const FORMAT = 2;
const NAME = /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$/;

export interface LocalSourceOptions {
  directory: string;
  logger: Logger;
  now?: () => number;
  segmentBytesMax?: number;
}

export class LocalSource implements LogSource {
  readonly kind = "local";
  readonly #options: LocalSourceOptions;
  readonly #topics = new Map<string, Promise<LocalPartition[]>>();
  readonly #groups = new LocalGroups();
  readonly #consumers = new Set<LocalConsumer>();
  #lock: ProcessLock | null = null;
  #reports: Promise<void> = Promise.resolve();
  #closed = false;
  #cluster = "";
  #keyless = 0;

  constructor(options: LocalSourceOptions) {
    this.#options = options;
  }

  /** IN_USE when another process has the directory; opens and checks every topic. */
  async start(): Promise<void> {
    const { directory } = this.#options;
    await mkdir(directory, { recursive: true });
    this.#lock = await acquireLock(join(directory, "lock"), `local log ${directory}`);
    try {
      this.#cluster = await this.#identify();
      for (const entry of await readdir(directory, { withFileTypes: true })) {
        if (entry.isDirectory() && (await readJson(this.#topicFile(entry.name)))) {
          await this.#opened(entry.name);
        }
      }
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const consumer of [...this.#consumers]) await consumer.close();
    for (const topic of this.#topics.values()) {
      for (const partition of (await topic.catch(() => null)) ?? []) await partition.close();
    }
    this.#topics.clear();
    await this.#reports;
    await this.#lock?.release();
    this.#lock = null;
  }

  async cluster(): Promise<string> {
    return this.#cluster;
  }

  async ensureTopic(topic: string, partitions: number): Promise<void> {
    if (!NAME.test(topic))
      throw new VexError("INVALID", `topic name "${topic}" has other characters than [A-Za-z0-9._-]`);
    if (!Number.isInteger(partitions) || partitions < 1 || partitions > PARTITIONS_MAX) {
      throw new VexError(
        "INVALID",
        `topic ${topic} asks for ${partitions} partitions, 1 to ${PARTITIONS_MAX} fit`,
      );
    }
    if (!this.#topics.has(topic)) this.#topics.set(topic, this.#create(topic, partitions));
    await this.#topics.get(topic)?.catch((error: unknown) => {
      this.#topics.delete(topic);
      throw error;
    });
  }

  async isCompacted(): Promise<boolean> {
    return false;
  }

  async ranges(topic: string): Promise<PartitionRange[] | null> {
    const partitions = await this.#topics.get(topic);
    return partitions?.map(({ range }) => range) ?? null;
  }

  async offsetsAt(topic: string, timeMs: number): Promise<OffsetAtTime[]> {
    const partitions = await this.#partitionsOf(topic);
    return await Promise.all(partitions.map((partition) => partition.offsetAt(timeMs)));
  }

  async consume(
    { topic, assignment }: { topic: string; assignment: Assignment },
    handlers: ConsumerHandlers,
  ): Promise<LogConsumer> {
    const partitions = await this.#partitionsOf(topic);
    // A fixed assignment is a group of one.
    const group = assignment.kind === "group" ? assignment.group : `all ${randomUUID()}`;
    const consumer = new LocalConsumer({
      topic,
      partitions,
      handlers,
      report: (offsets) => this.#report(topic, assignment.group, offsets),
      leave: async (leaving) => {
        this.#consumers.delete(leaving);
        await this.#groups.leave(group, topic, partitions.length, leaving);
      },
    });
    this.#consumers.add(consumer);
    await this.#groups.join(group, topic, partitions.length, consumer);
    return consumer;
  }

  async produce(topic: string, messages: ProducedMessage[]): Promise<ProducedOffset[]> {
    const partitions = await this.#partitionsOf(topic);
    const indexes = new Map<number, number[]>();
    messages.forEach((message, index) => {
      const partition = message.partition ?? this.#place(message.key, partitions.length);
      const known = indexes.get(partition);
      if (known) known.push(index);
      else indexes.set(partition, [index]);
    });
    const offsets = new Array<ProducedOffset>(messages.length);
    const writes = [...indexes].map(async ([partition, places]) => {
      const log = partitions[partition];
      if (!log)
        throw new VexError("NOT_FOUND", `the log holds no ${topic}/${partition}`, {
          fields: { topic, partition },
        });
      const answers = await log.append(places.map((place) => messages[place] as ProducedMessage));
      places.forEach((place, index) => {
        offsets[place] = answers[index] as ProducedOffset;
      });
    });
    // All are awaited, so that an error never leaves a write of this call running.
    const outcomes = await Promise.allSettled(writes);
    const failures = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reason);
    if (failures.length === 0) return offsets;
    // What may have been written says more than what was not.
    const failure = failures.find((reason) => vexErrorFrom(reason).doubt) ?? failures[0];
    if (failures.length === outcomes.length || vexErrorFrom(failure).doubt) throw failure;
    throw partlyWritten(topic, failure);
  }

  partitionFor(key: Buffer, partitions: number): number {
    return partitionFor(key, partitions);
  }

  async read(
    topic: string,
    partition: number,
    from: bigint,
    to: bigint,
    onBatch: (batch: LogBatch) => Promise<void> | void,
  ): Promise<void> {
    const log = (await this.#partitionsOf(topic))[partition];
    if (!log || from < log.range.low || from > log.range.high) {
      throw new VexError("NOT_FOUND", `${topic}/${partition} does not hold offset ${from}`, {
        fields: { topic, partition, offset: from },
      });
    }
    const cursor = { offset: from, base: null, position: 0 };
    while (cursor.offset < to) {
      const batch = await log.read(cursor);
      if (!batch) return;
      const end = batch.to > to ? to : batch.to;
      await onBatch({ ...batch, to: end, records: batch.records.filter(({ offset }) => offset < to) });
    }
  }

  #place(key: Buffer | null, partitions: number): number {
    return key === null ? this.#keyless++ % partitions : partitionFor(key, partitions);
  }

  async #partitionsOf(topic: string): Promise<LocalPartition[]> {
    const partitions = await this.#topics.get(topic);
    if (!partitions) throw new VexError("NOT_FOUND", `no topic ${topic}`, { fields: { topic } });
    return partitions;
  }

  async #opened(topic: string): Promise<void> {
    const { partitions } = (await readJson(this.#topicFile(topic))) as { partitions: number };
    const opened = this.#openPartitions(topic, partitions);
    this.#topics.set(topic, opened);
    await opened;
  }

  async #create(topic: string, partitions: number): Promise<LocalPartition[]> {
    if (!this.#lock) throw new VexError("UNAVAILABLE", "the local log is not started");
    const opened = await this.#openPartitions(topic, partitions);
    const created = new Date((this.#options.now ?? Date.now)()).toISOString();
    await writeJson(this.#topicFile(topic), { partitions, created });
    await syncDirectory(this.#options.directory);
    return opened;
  }

  async #openPartitions(topic: string, partitions: number): Promise<LocalPartition[]> {
    const { directory, logger, now, segmentBytesMax } = this.#options;
    const opened: LocalPartition[] = [];
    for (let partition = 0; partition < partitions; partition++) {
      opened.push(
        await LocalPartition.open(partition, join(directory, topic, String(partition)), {
          now: now ?? Date.now,
          ...(segmentBytesMax === undefined ? {} : { segmentBytesMax }),
          onTornTail: (kept, bytes) =>
            logger.warn(
              { kept, bytes },
              "the torn end of the local log, a write that was cut off, was put aside",
            ),
        }),
      );
    }
    return opened;
  }

  async #identify(): Promise<string> {
    const path = join(this.#options.directory, "log.json");
    const known = (await readJson(path)) as { format?: number; cluster?: string } | null;
    if (!known) {
      const cluster = `local-${randomUUID()}`;
      await writeJson(path, { format: FORMAT, cluster });
      return cluster;
    }
    if (known.format !== FORMAT || typeof known.cluster !== "string") {
      throw new VexError(
        "MISMATCH",
        `local log ${path} has format ${known.format}, this version reads ${FORMAT}: use another --data-dir`,
      );
    }
    return known.cluster;
  }

  /** One after another, and none after the end: the directory is somebody else's then. */
  #report(topic: string, group: string | undefined, offsets: Map<number, bigint>): Promise<void> {
    if (group === undefined || offsets.size === 0 || this.#closed) return Promise.resolve();
    this.#reports = this.#reports.then(() => this.#writeReport(topic, group, offsets));
    return this.#reports;
  }

  async #writeReport(topic: string, group: string, offsets: Map<number, bigint>): Promise<void> {
    const directory = join(this.#options.directory, "@reports");
    try {
      await mkdir(directory, { recursive: true });
      const entries = [...offsets].map(([partition, offset]) => [partition, String(offset)]);
      await writeJson(join(directory, `${encodeURIComponent(group)}.json`), {
        topic,
        next: Object.fromEntries(entries),
      });
    } catch (error) {
      this.#options.logger.debug({ err: error }, "offsets were not reported");
    }
  }

  #topicFile(topic: string): string {
    return join(this.#options.directory, topic, "topic.json");
  }
}

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new VexError("CORRUPT", `${path} is not JSON`, { cause: error });
  }
}

/** Whole or not at all, and durable: temp, fsync, rename, fsync of the directory. */
async function writeJson(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${randomUUID()}`;
  const handle = await open(temporary, "w");
  try {
    await handle.writeFile(`${JSON.stringify(value)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, path);
  await syncDirectory(join(path, ".."));
}
