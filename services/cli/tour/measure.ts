/** Latency, recall against the exact answer, and sentences that must find their own passage. */
import { seeded } from "../../common/seeded.ts";
import { embedTexts } from "../embedder.ts";
import type { Hit } from "./client.ts";
import { COLLECTION, type Passage, pick, type Sample, type TourContext, vectorOf } from "./tour.ts";

const SEARCHES = 1_000;
const RECALL_QUERIES = 200;
const KNOWN_ITEMS = 200;
/** Share of known items that must be among the ten nearest. */
const KNOWN_SHARE_MIN = 0.8;
const K = 10;
/** Two records within this of each other are a tie: either may be the tenth. */
const TIE = 1e-6;
const WORDS_MIN = 8;
const WORDS_MAX = 30;

/** One connection, one search at a time, after a warm-up. */
export async function measureSearches({ client, report }: TourContext, sample: Sample): Promise<void> {
  const queries = pick(sample.passages.length, SEARCHES, 11).map((index) => vectorOf(sample, index));
  for (const query of queries.slice(0, 50)) await client.search(COLLECTION, query, K);
  const micros: number[] = [];
  for (const query of queries) {
    const before = process.hrtime.bigint();
    await client.search(COLLECTION, query, K);
    micros.push(Number(process.hrtime.bigint() - before) / 1_000);
  }
  micros.sort((a, b) => a - b);
  const at = (share: number): string =>
    ((micros[Math.floor(share * micros.length)] as number) / 1_000).toFixed(2);
  report.fact(
    "searches",
    `${SEARCHES} over ${sample.passages.length} records, one at a time: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`,
  );
}

/** What searches through lists promise at the default effort. */
const RECALL_MIN = 0.98;

/** Tie-aware: a result counts when its score reaches that of the exact tenth. */
export function recallOf(found: Hit[], truth: Hit[]): number {
  if (truth.length === 0) return 1;
  const bar = (truth.at(-1) as Hit).score - TIE;
  return found.filter(({ score }) => score >= bar).length / truth.length;
}

export async function measureRecall({ client, report }: TourContext, sample: Sample): Promise<void> {
  const queries = pick(sample.passages.length, RECALL_QUERIES, 13).map((index) => vectorOf(sample, index));
  let sum = 0;
  for (const query of queries) {
    const [found, truth] = [
      await client.search(COLLECTION, query, K),
      await client.search(COLLECTION, query, K, true),
    ];
    sum += recallOf(found, truth);
  }
  const recall = sum / queries.length;
  report.check(
    "recall@10 against TRUTH",
    `${recall.toFixed(4)} (up to 20,000 records are scanned exactly, more go through lists)`,
    recall >= RECALL_MIN,
  );
}

/** Cuts sentences out of passages; each must find the passage it came from. */
export async function measureKnownItems(
  { client, report, model }: TourContext,
  sample: Sample,
): Promise<void> {
  const queries = cutQueries(sample.passages, KNOWN_ITEMS);
  const vectors = await embedTexts(
    model,
    queries.map(({ text }) => text),
  );
  let found = 0;
  for (const [i, { key }] of queries.entries()) {
    const hits = await client.search(COLLECTION, vectors[i] as Buffer, K);
    if (hits.some(({ id }) => id === key)) found += 1;
  }
  const share = found / queries.length;
  const percent = (100 * share).toFixed(1);
  report.check(
    "known items",
    `${found} of ${queries.length} sentences find their passage among ten (${percent} %)`,
    share >= KNOWN_SHARE_MIN,
  );
}

/** Seeded runs of 8 to 30 words, from passages long enough to have one. */
function cutQueries(passages: Passage[], count: number): { key: string; text: string }[] {
  const random = seeded(17);
  const queries: { key: string; text: string }[] = [];
  for (const index of pick(passages.length, passages.length, 19)) {
    if (queries.length === count) break;
    const { key, text } = passages[index] as Passage;
    const sentences = text
      .split(/(?<=[.!?])\s+/)
      .map((sentence) => sentence.split(/\s+/).slice(0, WORDS_MAX));
    const long = sentences.filter((words) => words.length >= WORDS_MIN);
    const words = long[Math.floor(random() * long.length)];
    if (words) queries.push({ key, text: words.join(" ") });
  }
  return queries;
}
