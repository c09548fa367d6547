/**
 * For unit tests of this folder only: a core that records what it is told and stands where a test says.
 */
import { RECORD_ENTRY_BYTES } from "../../log/table.ts";
import type { AppendBatch, AppendResult, CoreFeed } from "../core.ts";

type Last = { offset: string; timestamp: number; crc32c: number } | null;

/** Takes stretches as the real one does: from its next offset on, refusing gaps. */
export class RecordingCore implements CoreFeed {
  readonly appended: AppendBatch[] = [];
  readonly partitions = new Map<number, { applied: bigint; next: bigint; last: Last }>();
  retired = false;
  memtableBytes = 0;
  refreshes = 0;
  /** Replaces parts of an answer, or throws. */
  script: (batch: AppendBatch) => Partial<AppendResult> | Promise<Partial<AppendResult>> = () => ({});

  constructor(partitions: number) {
    for (let i = 0; i < partitions; i++) this.partitions.set(i, { applied: 0n, next: 0n, last: null });
  }

  async append(batch: AppendBatch): Promise<AppendResult> {
    const state = this.partitions.get(batch.partition);
    if (!state || batch.from > state.applied) {
      throw Object.assign(new Error(`next is ${state?.applied}`), { code: "CONFLICT" });
    }
    const over = await this.script(batch);
    this.appended.push(batch);
    const count = batch.table.length / RECORD_ENTRY_BYTES;
    const result: AppendResult = {
      next: batch.to,
      accepted: count,
      notRecords: Number(batch.to - batch.from) - count,
      memtableBytes: this.memtableBytes,
      bad: [],
      acks: [],
      ...over,
    };
    state.applied = result.next;
    return result;
  }

  async refresh(): Promise<string> {
    this.refreshes += 1;
    const partitions = [...this.partitions].map(([partition, { applied, next, last }]) => ({
      source: 0,
      partition,
      applied: String(applied),
      checkpoint: { start: "0", next: String(next), log_time: 0, last, ledger: {} },
    }));
    return JSON.stringify({ retired: this.retired, feedBytes: this.memtableBytes, partitions, version: 1 });
  }

  keys(partition: number): string[] {
    return this.appended
      .filter((batch) => batch.partition === partition)
      .flatMap(({ table, buffers }) => {
        const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
        return Array.from({ length: table.length / RECORD_ENTRY_BYTES }, (_, i) => {
          const at = i * RECORD_ENTRY_BYTES + 16;
          const [index, start, length] = [0, 4, 8].map((o) => view.getUint32(at + o, true)) as [
            number,
            number,
            number,
          ];
          return Buffer.from(buffers[index] as Uint8Array).toString("utf8", start, start + length);
        });
      });
  }
}
