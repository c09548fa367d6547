/**
 * Verify: hands every record between an incarnation's starts and its checkpoints to the core's recount.
 *
 * Where the log's low mark has passed a start, reading begins at the low mark; the core then sees that
 * it was not given everything and checks only what it can.
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
  const { stretches } = begun.parse(JSON.parse(answer));
  for (const { source, partition, start, next } of stretches) {
    const topic = of.sources[String(source)]?.topic ?? "";
    const held = (await log.ranges(topic))?.find((range) => range.partition === partition);
    const low = held?.low ?? 0n;
    const from = BigInt(start) < low ? low : BigInt(start);
    if (held === undefined || from >= BigInt(next)) continue;
    await log.read(topic, partition, from, BigInt(next), async (batch) => {
      const { buffers, table } = packBatch(batch);
      const { from, to } = batch;
      await lake.verify({ step: "add", session, source, partition, from, to, buffers, table });
    });
  }
  return report.parse(JSON.parse(await lake.verify({ step: "finish", session })));
}
