/**
 * What the log contract suite needs of each implementation, and a recording consumer.
 */
import { randomUUID } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KafkaSource } from "../../services/common/log/kafka/source.ts";
import { LocalSource } from "../../services/common/log/local/source.ts";
import type {
  Assignment,
  ConsumerHandlers,
  LogBatch,
  LogConsumer,
  LogRecord,
  LogSource,
  PartitionRange,
  StoppedState,
} from "../../services/common/log/source.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { service } from "../harness/services.ts";

export interface LogUnderTest {
  source: LogSource;
  /** As after a restart of the process: everything is closed and opened anew. */
  reopen(): Promise<LogSource>;
  /** Makes offsets below `before` disappear, as retention does; may reopen. */
  forget(topic: string, partition: number, before: bigint): Promise<void>;
  close(): Promise<void>;
}

/** Brokers from the environment or the test harness; null: no Kafka here, its suites are skipped. */
export async function kafkaBrokers(): Promise<string[] | null> {
  const given = process.env.VEXLAKE_TEST_KAFKA;
  if (given) return given.split(",");
  return (await service("kafka"))?.brokers.split(",") ?? null;
}

export async function openKafka(brokers: string[]): Promise<LogUnderTest> {
  const open = async () => {
    const source = new KafkaSource({ brokers, logger: silentLogger(), metadataAgeMaxMs: 500 });
    await source.start();
    return source;
  };
  const log: LogUnderTest = {
    source: await open(),
    reopen: async () => {
      await log.source.close();
      log.source = await open();
      return log.source;
    },
    forget: (topic, partition, before) =>
      withAdmin(brokers, async (admin) => {
        // deleteTopicRecords needs the topic's metadata and does not load it.
        await admin.fetchTopicOffsets(topic);
        await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] });
      }),
    close: () => log.source.close(),
  };
  return log;
}

/** A kafkajs client of the tests' own, beside the source. */
export async function plainKafka(brokers: string[]) {
  const { default: kafkajs } = await import("kafkajs");
  return new kafkajs.Kafka({ brokers, clientId: "test", logLevel: kafkajs.logLevel.NOTHING });
}

export async function withAdmin<T>(
  brokers: string[],
  use: (admin: import("kafkajs").Admin) => Promise<T>,
): Promise<T> {
  const admin = (await plainKafka(brokers)).admin();
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}

/** Segments of 64 KiB, so that tests cross them. */
export async function openLocal(): Promise<LogUnderTest & { directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), "vexlake-log-"));
  const open = async () => {
    const source = new LocalSource({ directory, logger: silentLogger(), segmentBytesMax: 64 * 1024 });
    await source.start();
    return source;
  };
  const log = {
    directory,
    source: (await open()) as LogSource,
    reopen: async () => {
      await log.source.close();
      log.source = await open();
      return log.source;
    },
    forget: async (topic: string, partition: number, before: bigint) => {
      await log.source.close();
      const path = join(directory, topic, String(partition));
      const names = (await readdir(path)).sort();
      const bases = names.map((name) => BigInt(name.slice(0, 20)));
      // A segment goes when the next one still starts at or before the mark.
      for (const [index, name] of names.entries()) {
        const next = bases[index + 1];
        if (next !== undefined && next <= before) await rm(join(path, name));
      }
      log.source = await open();
    },
    close: async () => {
      await log.source.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
  return log;
}

export function freshTopic(): string {
  return `vexlake.test.${randomUUID()}`;
}

/** Polls until `probe` gives something truthy. */
export async function eventually<T>(
  what: string,
  probe: () => T | Promise<T>,
  deadlineMs = 20_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const value = await probe();
    if (value) return value as NonNullable<T>;
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

type Claim = (partitions: PartitionRange[]) => Map<number, bigint | { stopped: StoppedState }>;

/** Records what a consumer is told; claims from `next`, by default where it stands or the beginning. */
export class Recorder {
  readonly batches: LogBatch[] = [];
  readonly stopped: StoppedState[] = [];
  readonly revoked: number[][] = [];
  readonly claims: PartitionRange[][] = [];
  readonly away: (string | null)[] = [];
  readonly next: Map<number, bigint>;
  /** Awaited inside each `batch`. */
  gate: (batch: LogBatch) => Promise<void> | void = () => undefined;
  onRevoked: () => void = () => undefined;
  claim: Claim;
  consumer!: LogConsumer;

  constructor(options: { next?: Map<number, bigint>; claim?: Claim } = {}) {
    this.next = options.next ?? new Map();
    this.claim =
      options.claim ??
      ((ranges) => new Map(ranges.map(({ partition, low }) => [partition, this.next.get(partition) ?? low])));
  }

  async consume(source: LogSource, topic: string, assignment: Assignment = { kind: "all" }): Promise<this> {
    this.consumer = await source.consume({ topic, assignment }, this.#handlers());
    return this;
  }

  records(partition: number): LogRecord[] {
    return this.batches.filter((batch) => batch.partition === partition).flatMap(({ records }) => records);
  }

  values(partition: number): string[] {
    return this.records(partition).map(({ value }) => String(value));
  }

  /** The end of what was delivered of a partition. */
  end(partition: number): bigint | undefined {
    return this.batches.findLast((batch) => batch.partition === partition)?.to;
  }

  async reached(partition: number, offset: bigint): Promise<void> {
    await eventually(`partition ${partition} at ${offset}`, () => (this.end(partition) ?? -1n) >= offset);
  }

  /** Throws unless the batches of a partition adjoin from `from` on and their records lie inside. */
  checkAdjoining(partition: number, from: bigint): void {
    let next = from;
    for (const batch of this.batches.filter((candidate) => candidate.partition === partition)) {
      if (batch.from !== next) throw new Error(`batch from ${batch.from}, expected ${next}`);
      let last = batch.from - 1n;
      for (const { offset } of batch.records) {
        if (offset <= last || offset >= batch.to) throw new Error(`offset ${offset} outside its batch`);
        last = offset;
      }
      next = batch.to;
    }
  }

  #handlers(): ConsumerHandlers {
    return {
      claim: async (ranges) => {
        this.claims.push(ranges);
        return this.claim(ranges);
      },
      batch: async (batch) => {
        await this.gate(batch);
        this.batches.push(batch);
        this.next.set(batch.partition, batch.to);
      },
      revoked: async (partitions) => {
        this.revoked.push(partitions);
        this.onRevoked();
      },
      stopped: (state) => {
        this.stopped.push(state);
      },
      away: (reason) => {
        this.away.push(reason);
      },
    };
  }
}

export const text = (value: string): Buffer => Buffer.from(value);
export const numbered = (partition: number, count: number, prefix = "v") =>
  Array.from({ length: count }, (_, i) => ({
    partition,
    key: text(`k${i}`),
    value: text(`${prefix}${i}`),
  }));
