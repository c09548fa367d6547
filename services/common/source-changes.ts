/**
 * What a person decides about an incarnation's source: accept what the log lost, or go on with another
 * log. Each is one commit that names the value it replaces; the feeds see it within a second.
 *
 * accept, per partition, by what is found in the log now:
 * - the low mark is above the checkpoint: the offsets in between count as lost, the checkpoint moves;
 * - no checkpoint knows the partition: it is added from its low mark;
 * - the last consumed record reads differently, or the log ends before the checkpoint: it is another
 *   topic by the same name, which becomes the source's next epoch, from its low marks.
 */
import type { Lake } from "@vexlake/core";
import {
  type Beginning,
  type Collection,
  type Incarnation,
  isOpen,
  liveSource,
  sourceFrom,
} from "./catalog.ts";
import { compareFingerprint } from "./log/fingerprint.ts";
import type { LogSource, PartitionRange } from "./log/source.ts";
import { VexError } from "./process/error.ts";

export interface Accepted {
  what: "lost" | "partition-added" | "topic-recreated";
  incarnation: string;
  partition: number;
  from: string;
  to: string;
}

/**
 * Accepts what has stopped the live incarnation and those that are fed beside it, which read the same log
 * and are stopped by the same loss; one that cannot be opened consumes nothing, and stops when it can. `only`
 * limits it to one partition. Answers what there was.
 */
export async function acceptAll(
  lake: Lake,
  log: LogSource,
  { live, fed }: Collection,
  only?: number,
): Promise<Accepted[]> {
  const accepted: Accepted[] = [];
  for (const of of [live, ...fed].filter(isOpen))
    accepted.push(...(await acceptChanges(lake, log, of, only)));
  return accepted;
}

async function acceptChanges(
  lake: Lake,
  log: LogSource,
  of: Incarnation,
  only?: number,
): Promise<Accepted[]> {
  const { incarnation } = of;
  const { id: source, topic } = liveSource(of);
  const ranges = await log.ranges(topic);
  if (ranges === null) throw new VexError("NOT_FOUND", `the log has no topic ${topic}`);
  const accepted: Accepted[] = [];
  for (const range of ranges.filter(({ partition }) => only === undefined || partition === only)) {
    const { partition, low, high } = range;
    const known = of.partitions.find((one) => one.source === source && one.partition === partition);
    if (known === undefined) {
      await lake.alter({ op: "partition-add", incarnation, source, partition, start: low.toString() });
      accepted.push({
        what: "partition-added",
        incarnation,
        partition,
        from: low.toString(),
        to: high.toString(),
      });
      continue;
    }
    const next = BigInt(known.checkpoint.next);
    if (await isAnotherTopic(log, topic, range, known.checkpoint)) {
      const opened = await sourceFrom(log, topic, { at: "earliest" });
      await lake.alter({ op: "source-open", incarnation, source: opened });
      return [{ what: "topic-recreated", incarnation, partition, from: low.toString(), to: high.toString() }];
    }
    // What this process has consumed is not lost, though its commit is still to come.
    const consumed = BigInt(known.applied);
    if (low > consumed) {
      if (consumed > next) {
        const held = `${topic}/${partition} is consumed to ${consumed} and committed to ${next}`;
        throw new VexError("CONFLICT", `${held}: flush first, or the records in between would count as lost`);
      }
      const [from, to] = [next.toString(), low.toString()];
      await lake.alter({ op: "source-accept", incarnation, source, partition, from, to });
      accepted.push({ what: "lost", incarnation, partition, from, to });
    }
  }
  return accepted;
}

async function isAnotherTopic(
  log: LogSource,
  topic: string,
  { partition, low, high }: PartitionRange,
  checkpoint: Incarnation["partitions"][number]["checkpoint"],
): Promise<boolean> {
  if (BigInt(checkpoint.next) > high) return true;
  const { last } = checkpoint;
  if (last === null || BigInt(last.offset) < low || BigInt(last.offset) >= high) return false;
  const remembered = { ...last, offset: BigInt(last.offset) };
  return (await compareFingerprint(log, topic, partition, remembered)) === "different";
}

/** Opens the running log's topic as the next epoch: what the old source delivered stays. */
export async function switchSource(
  lake: Lake,
  log: LogSource,
  of: Incarnation,
  topic: string,
  from: Beginning,
): Promise<{ topic: string; starts: Record<string, string> }> {
  const source = await sourceFrom(log, topic, from);
  await lake.alter({ op: "source-open", incarnation: of.incarnation, source });
  return source;
}
