/** What the steps of the tour share. */
import { seeded } from "../../common/seeded.ts";
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

/** `count` distinct indexes below `length`. */
export function pick(length: number, count: number, seed: number): number[] {
  const random = seeded(seed);
  const chosen = new Set<number>();
  while (chosen.size < Math.min(count, length)) chosen.add(Math.floor(random() * length));
  return [...chosen];
}
