/**
 * Verify: hands every record between an incarnation's starts and its checkpoints to the core's recount.
 *
 * Where the log's low mark has passed a start, reading begins at the low mark; the core then sees that
 * it was not given everything and checks only what it can. So it does for a source whose records the
 * running log does not hold: it lay on another log, or a later epoch of the same topic took its place.
 */
import { randomUUID } from "node:crypto";
import type { Lake } from "@vexlake/core";
import { z } from "zod";
import type { Incarnation } from "./catalog.ts";
import type { LogSource } from "./log/source.ts";
import { packBatch } from "./log/table.ts";

const begun = z.object({
  stretches: z.array(
    z.object({ source: z.number(), partition: z.number(), start: z.string(), next: z.string() }),
  ),
});

const ledger = z.object({
  kept: z.string(),
  superseded: z.string(),
  dead_lettered: z.string(),
  not_records: z.string(),
  lost: z.string(),
});

const report = z.object({
  ok: z.boolean(),
  version: z.number(),
  offsets: z.number(),
  ledger,
  dropped: z.number(),
  entries: z.number(),
  liveRows: z.number(),
  keys: z.number(),
  missing: z.number(),
  duplicated: z.number(),
  forgotten: z.number(),
  timingDependent: z.number(),
  recounted: z.boolean(),
  partitions: z.array(
    z.object({
      source: z.number(),
      partition: z.number(),
      start: z.number(),
      next: z.number(),
      ledger,
      accepted: z.number(),
      refused: z.number(),
      recounted: z.boolean(),
    }),
  ),
  problems: z.array(z.string()),
});

export type VerifyReport = z.infer<typeof report>;

export async function verifyIncarnation(lake: Lake, log: LogSource, of: Incarnation): Promise<VerifyReport> {
  const session = randomUUID();
  const answer = await lake.verify({ step: "begin", session, incarnation: of.incarnation });
  try {
    const { stretches } = begun.parse(JSON.parse(answer));
    const cluster = await log.cluster();
    for (const { source, partition, start, next } of stretches) {
      const topic = heldTopic(of, source, { kind: log.kind, cluster });
      const held = topic && (await log.ranges(topic))?.find((range) => range.partition === partition);
      if (!held) continue;
      const from = BigInt(start) < held.low ? held.low : BigInt(start);
      if (from >= BigInt(next)) continue;
      await log.read(topic, partition, from, BigInt(next), async (batch) => {
        const { buffers, table } = packBatch(batch);
        const { from, to } = batch;
        await lake.verify({ step: "add", session, source, partition, from, to, buffers, table });
      });
    }
    return report.parse(JSON.parse(await lake.verify({ step: "finish", session })));
  } catch (thrown) {
    await lake.verify({ step: "abort", session });
    throw thrown;
  }
}

/** The topic of a source, if the running log holds that source's records under it. */
function heldTopic(of: Incarnation, id: number, log: { kind: string; cluster: string }): string | null {
  const one = of.sources[String(id)];
  if (one?.kind !== log.kind || one.cluster !== log.cluster) return null;
  const replaced = Object.values(of.sources).some(
    ({ kind, cluster, topic, rank, epoch }) =>
      kind === one.kind &&
      cluster === one.cluster &&
      topic === one.topic &&
      (rank > one.rank || (rank === one.rank && epoch > one.epoch)),
  );
  return replaced ? null : one.topic;
}
