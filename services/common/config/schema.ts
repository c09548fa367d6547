/**
 * vexlake.yaml as one zod object (DESIGN §11). Keys are those of the file; an unknown key is an error,
 * because a misspelt limit that silently stays at its default is found in production.
 *
 * Secrets have no key here: they come from the environment only (AWS_*, see load.ts).
 */
import { z } from "zod";

const MIB = 1024 * 1024;

/** "host:port"; IPv6 hosts in brackets. */
const address = z.string().regex(/^(\[[0-9A-Fa-f:.]+\]|[^:[\]\s]+):\d{1,5}$/, "expected host:port");
const port = (text: string) => address.default(text);
const bytes = (min: number) => z.number().int().min(min).max(Number.MAX_SAFE_INTEGER);
const milliseconds = (min: number, max: number) => z.number().int().min(min).max(max);

export const storeSection = z.strictObject({
  /** A path, file:// or s3://bucket/prefix; absent: <data-dir>/lake. */
  url: z.string().min(1).optional(),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  region: z.string().min(1).optional(),
  path_style: z.boolean().default(true),
});

export const logSection = z.strictObject({
  kind: z.enum(["kafka", "local"]).default("local"),
  brokers: z.array(address).min(1).max(64).optional(),
  group: z.string().min(1).max(200).default("vexlake"),
  /** The broker's floor is 6 s; beyond a minute a dead member's partitions wait too long. */
  session_timeout_ms: milliseconds(6_000, 60_000).default(6_000),
});

export const jobsSection = z.strictObject({
  /** Absent: jobs run in this process. */
  redis: z.url({ protocol: /^rediss?$/ }).optional(),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,64}$/)
    .default("vexlake"),
});

export const querySection = z.strictObject({
  resp: port("127.0.0.1:6380"),
  http: port("127.0.0.1:8080"),
  /** Tail beyond this is a named state: reads serve the snapshot and the prefix, and say so (DESIGN §7). */
  tail_bytes: bytes(MIB).default(256 * MIB),
  cache_bytes_max: bytes(MIB).default(512 * MIB),
  /** Share of searches through lists that are compared with exact ones, behind their back; 0 turns it off. */
  recall_sample_ratio: z.number().min(0).max(1).default(0.001),
});

export const ingestSection = z.strictObject({
  http: port("127.0.0.1:8081"),
  memory_bytes_max: bytes(16 * MIB).default(1024 * MIB),
  seal_bytes: bytes(MIB).default(64 * MIB),
  seal_age_ms: milliseconds(100, 3_600_000).default(10_000),
  bad_record: z.enum(["dlq", "skip", "fail"]).default("dlq"),
});

export const compactorSection = z.strictObject({
  http: port("127.0.0.1:8082"),
  memory_bytes_max: bytes(16 * MIB).default(512 * MIB),
  bytes_per_second_max: bytes(MIB).default(100 * MIB),
  /** Deletes are kept until every partition has passed them by this much: 7 days, at most 10 years. */
  delete_retention_ms: milliseconds(0, 315_360_000_000).default(604_800_000),
});

/** A collection declared in the file is created at start when it is missing, never changed. */
export const collectionEntry = z.strictObject({
  dim: z.number().int().min(1).max(65_536),
  metric: z.enum(["cosine", "l2", "ip", "l1"]).default("cosine"),
  partitions: z.number().int().min(1).max(1_024).default(4),
  format: z.enum(["f32", "protobuf", "json"]).default("f32"),
});

export const configSchema = z
  .strictObject({
    store: storeSection.prefault({}),
    log: logSection.prefault({}),
    jobs: jobsSection.prefault({}),
    query: querySection.prefault({}),
    ingest: ingestSection.prefault({}),
    compactor: compactorSection.prefault({}),
    collections: z.record(z.string().min(1).max(255), collectionEntry).default({}),
  })
  .superRefine((config, context) => {
    if (config.log.kind === "kafka" && !config.log.brokers) {
      context.addIssue({ code: "custom", path: ["log", "brokers"], message: "kind kafka needs brokers" });
    }
    // Two sealed memtables may be on their way out while a third fills.
    if (config.ingest.seal_bytes * 3 > config.ingest.memory_bytes_max) {
      context.addIssue({
        code: "custom",
        path: ["ingest", "seal_bytes"],
        message: `three times ${config.ingest.seal_bytes} exceeds memory_bytes_max ${config.ingest.memory_bytes_max}`,
      });
    }
  });

export type Config = z.infer<typeof configSchema>;

/** Sections whose keys an environment variable or flag may set; collections come from the file only. */
export const SECTIONS = {
  store: storeSection,
  log: logSection,
  jobs: jobsSection,
  query: querySection,
  ingest: ingestSection,
  compactor: compactorSection,
} as const;
export type SectionName = keyof typeof SECTIONS;
