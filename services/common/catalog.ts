/**
 * Collections as every service sees them: the core's description, typed, and the two things that need
 * catalog and log together: creating a collection and choosing where its incarnation begins.
 */
import type { Lake, SourceOptions } from "@vexlake/core";
import { z } from "zod";
import type { LogSource } from "./log/source.ts";
import { topicFor } from "./log/topic.ts";
import { CORE_CODES, VexError, vexErrorFrom } from "./process/error.ts";

const digits = z.string().regex(/^\d+$/);

const ledger = z.object({
  kept: digits,
  superseded: digits,
  dead_lettered: digits,
  not_records: digits,
  lost: digits,
});

const partition = z.object({
  source: z.number(),
  partition: z.number(),
  applied: digits,
  checkpoint: z.object({
    start: digits,
    next: digits,
    log_time: z.number(),
    last: z.object({ offset: digits, timestamp: z.number(), crc32c: z.number() }).nullable(),
    ledger,
  }),
});

const source = z.object({
  rank: z.number(),
  epoch: z.number(),
  kind: z.enum(["kafka", "local"]),
  cluster: z.string(),
  topic: z.string(),
  compacted: z.boolean().default(false),
  starts: z.record(z.string(), digits),
});

const incarnation = z.object({
  incarnation: z.string(),
  schema: z.object({ dim: z.number(), metric: z.string(), format: z.enum(["f32", "protobuf", "json"]) }),
  sources: z.record(z.string(), source),
  version: z.number(),
  versionWhenMs: z.number(),
  records: z.number(),
  committedRecords: z.number(),
  segments: z.number(),
  entries: z.number(),
  bytes: z.number(),
  feedBytes: z.number(),
  ledger,
  dropped: z.number(),
  pins: z.record(z.string(), z.number()),
  retainFrom: z.number(),
  retired: z.boolean(),
  partitions: z.array(partition),
});

const unreadable = z.object({ incarnation: z.string(), code: z.enum(CORE_CODES), message: z.string() });

const listing = z.object({
  db: z.number(),
  name: z.string(),
  live: z.union([incarnation, unreadable]),
  fed: z.array(z.union([incarnation, unreadable])),
});

export type Incarnation = z.infer<typeof incarnation>;
/** An incarnation that has a name and cannot be opened, with what the core said. */
export type Unreadable = z.infer<typeof unreadable>;
/** A name and what it means; one damaged incarnation must not hide the others. */
export type Listing = z.infer<typeof listing>;
export type Collection = Listing & { live: Incarnation };

export function isOpen(of: Incarnation | Unreadable): of is Incarnation {
  return !("code" in of);
}

/** The incarnation, or its own error where it cannot be opened. */
export function opened(of: Incarnation | Unreadable): Incarnation {
  if (isOpen(of)) return of;
  const { incarnation, code, message } = of;
  throw new VexError(code, `incarnation ${incarnation} cannot be opened: ${message}`);
}

type Describer = Pick<Lake, "describe">;

export async function readCatalog(lake: Describer): Promise<Listing[]> {
  return parseCore("collections", z.array(listing), await lake.describe({ what: "collections" }));
}

/** An incarnation as `refresh` or `describe` answer it. */
export function parseIncarnation(answer: string | Uint8Array): Incarnation {
  return parseCore("an incarnation", incarnation, answer);
}

export async function findCollection(lake: Describer, db: number, name: string): Promise<Collection> {
  const all = await readCatalog(lake);
  const found = all.find((one) => one.db === db && one.name === name);
  if (found) return { ...found, live: opened(found.live) };
  const others = all.map((one) => `${one.db}/${one.name}`).join(", ") || "none";
  throw new VexError("NOT_FOUND", `there is no collection ${db}/${name}; there are: ${others}`);
}

export interface LiveSource {
  id: number;
  topic: string;
  kind: string;
  cluster: string;
  /** Patches are refused. */
  compacted: boolean;
}

/** The source that new records of an incarnation come from: the one of the highest rank and epoch. */
export function liveSource(of: Incarnation): LiveSource {
  const sources = Object.entries(of.sources);
  sources.sort(([, a], [, b]) => b.rank - a.rank || b.epoch - a.epoch);
  const [id, { topic, kind, cluster, compacted }] = sources[0] as (typeof sources)[number];
  return { id: Number(id), topic, kind, cluster, compacted };
}

/** Where an incarnation begins in each partition. */
export type Beginning =
  | { at: "earliest" | "latest" }
  | { at: "time"; timeMs: number }
  | { at: "offsets"; offsets: Map<number, bigint> };

/** `earliest`, `latest`, an ISO time or epoch milliseconds, or `partition:offset,…`. */
export function parseBeginning(text: string): Beginning {
  if (text === "earliest" || text === "latest") return { at: text };
  if (/^\d+:\d+(,\d+:\d+)*$/.test(text)) {
    const pairs = text.split(",").map((pair) => pair.split(":") as [string, string]);
    return { at: "offsets", offsets: new Map(pairs.map(([p, offset]) => [Number(p), BigInt(offset)])) };
  }
  // Date.parse takes a bare number for a month or a year.
  const timeMs = /^\d+$/.test(text) ? (text.length >= 10 ? Number(text) : Number.NaN) : Date.parse(text);
  if (Number.isNaN(timeMs)) {
    throw new VexError(
      "INVALID",
      `from is ${JSON.stringify(text)}, expected earliest, latest, a time or p:offset,…`,
    );
  }
  return { at: "time", timeMs };
}

/** A topic as the source of a new incarnation. The topic exists. */
export async function sourceFrom(log: LogSource, topic: string, from: Beginning): Promise<SourceOptions> {
  const ranges = await log.ranges(topic);
  if (ranges === null) throw new VexError("NOT_FOUND", `the log has no topic ${topic}`);
  const times = from.at === "time" ? await log.offsetsAt(topic, from.timeMs) : [];
  if (from.at === "offsets") {
    const unknown = [...from.offsets.keys()].find((p) => !ranges.some(({ partition }) => partition === p));
    if (unknown !== undefined) {
      throw new VexError("INVALID", `from names partition ${unknown}, ${topic} has ${ranges.length}`);
    }
  }
  const starts: Record<string, string> = {};
  for (const { partition, low, high } of ranges) {
    let start = from.at === "latest" ? high : low;
    if (from.at === "time") start = times.find((time) => time.partition === partition)?.offset ?? high;
    if (from.at === "offsets") {
      const wanted = from.offsets.get(partition) ?? low;
      if (wanted < low || wanted > high) {
        throw new VexError(
          "INVALID",
          `offset ${wanted} of ${topic}/${partition} is outside of ${low} to ${high}`,
        );
      }
      start = wanted;
    }
    starts[String(partition)] = start.toString();
  }
  const [cluster, compacted] = [await log.cluster(), await log.isCompacted(topic)];
  return { kind: log.kind, cluster, topic, compacted, starts };
}

export interface NewCollection {
  db: number;
  name: string;
  dim: number;
  metric: string;
  partitions: number;
  format: string;
  from: Beginning;
  /** Absent: the collection's own, by name. */
  topic?: string;
}

/** Creates topic and collection; CONFLICT when the name is taken. Answers the incarnation. */
export async function createCollection(
  lake: Pick<Lake, "alter" | "describe">,
  log: LogSource,
  { partitions, from, topic = "", ...shape }: NewCollection,
): Promise<string> {
  await refuseVersionName(lake, shape);
  const name = topic === "" ? topicFor(shape.db, shape.name) : topic;
  await log.ensureTopic(name, partitions);
  const source = await sourceFrom(log, name, from);
  const answer = await lake.alter({ op: "create", ...shape, source });
  return (JSON.parse(answer) as { incarnation: string }).incarnation;
}

/**
 * `docs@v1` is how a version of `docs` is read. A collection of that name would from then on answer instead of
 * the version, so it is not made.
 */
async function refuseVersionName(
  lake: Describer,
  { db, name }: Pick<NewCollection, "db" | "name">,
): Promise<void> {
  const at = name.lastIndexOf("@");
  if (at < 1) return;
  const named = name.slice(0, at);
  const taken = (await readCatalog(lake)).some((one) => one.db === db && one.name === named);
  if (!taken) return;
  throw new VexError("INVALID", `${name} names a version of collection ${named}, and versions are only read`);
}

/** As createCollection, but a collection that exists is left as it is. */
export async function ensureCollection(lake: Lake, log: LogSource, wanted: NewCollection): Promise<void> {
  const all = await readCatalog(lake);
  if (all.some(({ db, name }) => db === wanted.db && name === wanted.name)) return;
  try {
    await createCollection(lake, log, wanted);
  } catch (lost) {
    // Somebody else was faster: theirs serves as well.
    if (vexErrorFrom(lost).code !== "CONFLICT") throw lost;
  }
}

/** A collection's source names another log than the running one: readable, but neither fed nor written. */
export function foreignSource(of: Incarnation, log: { kind: string; cluster: string }): string | null {
  const { topic, kind, cluster } = liveSource(of);
  if (kind === log.kind && cluster === log.cluster) return null;
  return `topic ${topic} lies on ${kind} ${cluster}, the running log is ${log.kind} ${log.cluster}`;
}

function parseCore<T>(what: string, schema: z.ZodType<T>, answer: string | Uint8Array): T {
  if (typeof answer !== "string") throw new VexError("INTERNAL", `the core described ${what} as bytes`);
  const parsed = schema.safeParse(JSON.parse(answer));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new VexError("INTERNAL", `the core's ${what}: ${issue?.path.join(".")}: ${issue?.message}`);
}
