/** Embedding the corpus, producing it as any producer would, flushing and merging it. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { Kafka, logLevel, type Producer } from "kafkajs";
import { runEmbedder } from "../embedder.ts";
import { byteText } from "../output.ts";
import { type CollectionView, until } from "./client.ts";
import { COLLECTION, DIM, type Passage, type Sample, type TourContext, vectorOf } from "./tour.ts";

const PARTITIONS = 4;
/** Flushes of the load: one more than makes a merge due. */
const ROUNDS = 5;
/** Records of one send: 512 × (1 KiB vector + ~1 KiB text) stay below a broker's 1 MiB when spread over 4 partitions. */
const SEND_RECORDS = 512;
const PASSAGES_ENOUGH = 10_000;

/** A second start finds every passage there: nothing is loaded again. */
export async function sampleLoaded({ client, passages }: TourContext): Promise<boolean> {
  const found = await client.collection(COLLECTION);
  if (found === null || found.records === 0) return false;
  const wanted = readFileSync(passages, "utf8")
    .split("\n")
    .filter((line) => line !== "").length;
  return found.records >= wanted;
}

export async function prepareSample({
  passages: file,
  model,
  vectors,
  report,
}: TourContext): Promise<Sample> {
  const lines = readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  const passages = lines.map((line) => JSON.parse(line) as Passage);
  const bytes = passages.length * DIM * 4;
  const started = performance.now();
  if (!existsSync(model) || !existsSync(vectors) || statSync(vectors).size !== bytes) {
    report.say(`embedding ${passages.length} passages (feature-hashed tf-idf, LSA, ${DIM} dimensions)`);
    await runEmbedder(["train", "--in", file, "--model", model, "--out", vectors, "--dim", String(DIM)]);
  }
  const packages = new Set(passages.map((passage) => passage.package)).size;
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  const what = `${passages.length} passages of ${packages} packages, ${DIM}-d, embedded in ${seconds} s`;
  report.check("real text of this machine", what, passages.length >= PASSAGES_ENOUGH);
  return { passages, vectors: readFileSync(vectors) };
}

/** Produces everything, flushing after each round. */
export async function loadSample(tour: TourContext, sample: Sample): Promise<void> {
  const { client, report } = tour;
  const { passages } = sample;
  if ((await client.collection(COLLECTION)) === null) {
    await client.post("/api/v1/collections", {
      name: COLLECTION,
      dim: DIM,
      metric: "cosine",
      partitions: PARTITIONS,
      format: "f32",
    });
  }
  const { topic } = ((await client.collection(COLLECTION)) as CollectionView).source;
  const started = performance.now();
  const round = Math.ceil(passages.length / ROUNDS);
  await withWriter(tour, topic, async (write) => {
    for (let from = 0; from < passages.length; from += round) {
      const to = Math.min(from + round, passages.length);
      for (let at = from; at < to; at += SEND_RECORDS) {
        await write(sample, range(at, Math.min(at + SEND_RECORDS, to)));
        report.progress(`produced ${Math.min(at + SEND_RECORDS, to)}/${passages.length}`);
      }
      await until(`${to} records visible`, async () => {
        const view = await client.collection(COLLECTION);
        report.progress(`produced ${to}/${passages.length}, visible ${view?.records}`);
        return (view?.records ?? 0) >= to;
      });
      await client.post(`/api/v1/flush?collection=${COLLECTION}`);
    }
  });
  const seconds = (performance.now() - started) / 1_000;
  const rate = Math.round(passages.length / seconds);
  const view = (await client.collection(COLLECTION)) as CollectionView;
  const through = tour.brokers === null ? "RESP into the local log" : "Kafka";
  report.fact(
    "loaded",
    `${passages.length} records through ${through} in ${seconds.toFixed(1)} s (${rate}/s, ${ROUNDS} flushes included)`,
  );
  report.check(
    "committed",
    `version ${view.version}, ${view.records} records, ${byteText(view.bytes)}`,
    view.records === passages.length,
  );
}

/** Waits for the compactor, which sees the small files by itself. */
export async function mergeSample({ client, report }: TourContext): Promise<void> {
  const before = ROUNDS;
  const view = await until("a merge of the small segments", async () => {
    const now = await client.collection(COLLECTION);
    report.progress(`waiting for compaction: ${now?.segments} segments`);
    return now !== null && now.segments < before ? now : null;
  });
  report.check(
    "compaction",
    `${before} segments flushed → ${view.segments}, ${view.records} records as before`,
    view.segments < before,
  );
}

export type Write = (sample: Sample, indexes: number[]) => Promise<void>;

/** A producer for the length of `work`: Kafka's own, or RESP where the log is local. */
export async function withWriter(
  tour: TourContext,
  topic: string,
  work: (write: Write) => Promise<void>,
): Promise<void> {
  if (tour.brokers === null) {
    await work((sample, indexes) => writeByResp(tour, sample, indexes));
    return;
  }
  const kafka = new Kafka({ clientId: "vexlake-tour", brokers: tour.brokers, logLevel: logLevel.NOTHING });
  const producer: Producer = kafka.producer({ idempotent: true });
  await producer.connect();
  try {
    await work(async (sample, indexes) => {
      const messages = indexes.map((index) => ({
        key: (sample.passages[index] as Passage).key,
        value: vectorOf(sample, index),
        headers: { "vexlake-attrs": attributesOf(sample.passages[index] as Passage) },
      }));
      await producer.send({ topic, messages, acks: -1 });
    });
  } finally {
    await producer.disconnect();
  }
}

async function writeByResp({ client }: TourContext, sample: Sample, indexes: number[]): Promise<void> {
  const pipeline = client.redis.pipeline();
  for (const index of indexes) {
    const passage = sample.passages[index] as Passage;
    pipeline.call(
      "VADD",
      COLLECTION,
      "FP32",
      vectorOf(sample, index),
      passage.key,
      "SETATTR",
      attributesOf(passage),
    );
  }
  const replies = await pipeline.exec();
  const failed = replies?.find(([error]) => error !== null);
  if (failed) throw failed[0] as Error;
}

function attributesOf({ package: name, path, title, text }: Passage): string {
  return JSON.stringify({ package: name, path, title, text });
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}
