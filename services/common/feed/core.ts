/**
 * What a feed needs of `@vexlake/core`, and how it reads the core's description of an incarnation.
 *
 * The core owns where a partition stands: `applied` is the next offset that this process will consume,
 * what is only in memory included. u64 cross as decimal text.
 */
import type { AppendBatch, AppendResult } from "@vexlake/core";
import { z } from "zod";
import type { Fingerprint } from "../log/fingerprint.ts";
import { VexError } from "../process/error.ts";

export type { AppendBatch, AppendResult };

export interface CoreFeed {
  append(batch: AppendBatch): Promise<AppendResult>;
  /** Follows the commits; answers the incarnation's description as JSON. */
  refresh(incarnation: string): Promise<string>;
}

const u64 = z.string().regex(/^\d{1,20}$/);

const description = z.looseObject({
  retired: z.boolean(),
  feedBytes: z.number(),
  partitions: z.array(
    z.looseObject({
      source: z.number().int(),
      partition: z.number().int(),
      applied: u64,
      checkpoint: z.looseObject({
        next: u64,
        last: z.looseObject({ offset: u64, timestamp: z.number(), crc32c: z.number() }).nullish(),
      }),
    }),
  ),
});

export interface FeedPartition {
  applied: bigint;
  /** Committed next offset. */
  next: bigint;
  /** Of the last committed record, null before any. */
  last: Fingerprint | null;
}

export interface FeedDescription {
  retired: boolean;
  /** Bytes that this process holds of it in memory. */
  feedBytes: number;
  /** Of the asked source, by partition. */
  partitions: Map<number, FeedPartition>;
}

export function parseDescription(json: string, source: number): FeedDescription {
  const parsed = description.safeParse(JSON.parse(json));
  if (!parsed.success) {
    throw new VexError("INTERNAL", `the core's description does not parse: ${z.prettifyError(parsed.error)}`);
  }
  const partitions = new Map<number, FeedPartition>();
  for (const entry of parsed.data.partitions) {
    if (entry.source !== source) continue;
    const { next, last } = entry.checkpoint;
    partitions.set(entry.partition, {
      applied: BigInt(entry.applied),
      next: BigInt(next),
      last: last ? { offset: BigInt(last.offset), timestamp: last.timestamp, crc32c: last.crc32c } : null,
    });
  }
  const { retired, feedBytes } = parsed.data;
  return { retired, feedBytes, partitions };
}
