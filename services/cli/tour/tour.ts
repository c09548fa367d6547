/** What the steps of the tour share. */
import type { LakeClient } from "./client.ts";
import type { Report } from "./report.ts";

/** The collection that the sample goes to. */
export const COLLECTION = "docs";
export const DIM = 256;

export interface TourContext {
  client: LakeClient;
  /** null: the log is local and belongs to the lake, so that records go through RESP. */
  brokers: string[] | null;
  dataDir: string;
  passages: string;
  model: string;
  vectors: string;
  store: string;
  report: Report;
}

export interface Passage {
  key: string;
  package: string;
  path: string;
  title: string;
  text: string;
}

export interface Sample {
  passages: Passage[];
  /** All vectors, one after another: DIM float32 little endian each. */
  vectors: Buffer;
}

export function vectorOf(sample: Sample, index: number): Buffer {
  return sample.vectors.subarray(index * DIM * 4, (index + 1) * DIM * 4);
}

/** mulberry32: the same picks in every run. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** `count` distinct indexes below `length`. */
export function pick(length: number, count: number, seed: number): number[] {
  const random = seeded(seed);
  const chosen = new Set<number>();
  while (chosen.size < Math.min(count, length)) chosen.add(Math.floor(random() * length));
  return [...chosen];
}
