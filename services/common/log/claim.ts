/**
 * What every LogSource does with an assignment, whatever the log: ask the handlers where the partitions
 * start, check the answers against what the log holds, retry what may heal.
 *
 * A claim is void once a newer assignment arrived (`current()` is false); its answer is then dropped.
 */
import { VexError, vexErrorFrom } from "../process/error.ts";
import type { ConsumerHandlers, PartitionRange, StoppedState, StopReason } from "./source.ts";

/** Waits between tries of a claim: 100 ms doubling to 5 s, as long as the assignment stands. */
export const CLAIM_BACKOFF_MIN_MS = 100;
export const CLAIM_BACKOFF_MAX_MS = 5_000;

export type Claimed = { partition: number; high: bigint } & ({ next: bigint } | { stopped: StoppedState });

/** null: a newer assignment arrived meanwhile. */
export async function claimPartitions(options: {
  topic: string;
  partitions: number[];
  handlers: ConsumerHandlers;
  ranges: () => Promise<PartitionRange[] | null>;
  current: () => boolean;
}): Promise<Claimed[] | null> {
  const { topic, partitions, handlers, current } = options;
  let toldAway = false;
  for (let wait = CLAIM_BACKOFF_MIN_MS; current(); wait = Math.min(wait * 2, CLAIM_BACKOFF_MAX_MS)) {
    try {
      const held = await options.ranges();
      const ranges = (held ?? []).filter(({ partition }) => partitions.includes(partition));
      const answers = await handlers.claim(ranges);
      if (!current()) return null;
      if (toldAway) handlers.away?.(null);
      return partitions.map((partition) => judge(topic, partition, ranges, answers.get(partition)));
    } catch (thrown) {
      const error = vexErrorFrom(thrown);
      if (!error.retriable) return current() ? partitions.map((p) => failed(topic, p, error)) : null;
      handlers.away?.(error.message);
      toldAway = true;
      await pause(wait);
    }
  }
  return null;
}

/** The stop that the log's range demands at `next`, null if the partition can go on. */
export function rangeStop(topic: string, next: bigint, range: PartitionRange): StoppedState | null {
  const { partition, low, high } = range;
  if (next < low) {
    return stoppedState(topic, "retention-passed", partition, {
      message: `retention passed the consumer of ${topic}/${partition}: next is ${next}, the log starts at ${low}`,
      lost: { from: next, to: low },
    });
  }
  if (next > high) {
    return stoppedState(topic, "beyond-end", partition, {
      message: `${topic}/${partition} ends at ${high}, before the next offset ${next}: another or a shortened log`,
      lost: { from: high, to: next },
    });
  }
  return null;
}

export function stoppedState(
  topic: string,
  reason: StopReason,
  partition: number | undefined,
  rest: { message: string; lost?: { from: bigint; to: bigint } },
): StoppedState {
  const where = partition === undefined ? topic : `${topic} --partition ${partition}`;
  return {
    ...(partition === undefined ? {} : { partition }),
    reason,
    ...rest,
    accept: `vexlake source accept --topic ${where}`,
  };
}

/** The state after an error that no retry heals; the error may name it in `fields.stop`. */
export function stopOf(topic: string, partition: number, thrown: unknown): StoppedState {
  const error = vexErrorFrom(thrown);
  const named = error.fields.stop as StopReason | undefined;
  const reason: StopReason = named ?? (error.code === "FENCED" ? "fenced" : "failed");
  return stoppedState(topic, reason, partition, { message: `${error.code}: ${error.message}` });
}

function judge(
  topic: string,
  partition: number,
  ranges: PartitionRange[],
  answer: bigint | { stopped: StoppedState } | undefined,
): Claimed {
  const range = ranges.find((candidate) => candidate.partition === partition);
  if (!range) {
    const message = `the log holds no ${topic}/${partition}`;
    return {
      partition,
      high: 0n,
      stopped: stoppedState(topic, "topic-missing", partition, { message }),
    };
  }
  if (answer === undefined) {
    return failed(topic, partition, new VexError("INTERNAL", `no start was given for ${topic}/${partition}`));
  }
  if (typeof answer !== "bigint") return { partition, high: range.high, stopped: answer.stopped };
  const stopped = rangeStop(topic, answer, range);
  return stopped ? { partition, high: range.high, stopped } : { partition, high: range.high, next: answer };
}

function failed(topic: string, partition: number, error: VexError): Claimed {
  return { partition, high: 0n, stopped: stopOf(topic, partition, error) };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
