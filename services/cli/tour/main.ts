/**
 * The tour: an outside client that loads real text into the running lake, measures it, kills it, and
 * counts what is left. Every number is measured in this run.
 *
 * 1. Embed the corpus that was cut from this machine's documentation; create collection `docs`.
 * 2. Produce every passage to its topic, in rounds with a flush after each: files, versions.
 * 3. Let compaction merge the small files: before → after.
 * 4. 1,000 searches; recall@10 against TRUTH; 200 sentences that must find their own passage.
 * 5. Arm a SIGKILL between "uploaded" and "committed", write, flush: the process dies, a segment that
 *    no commit names stays behind. Start again, flush, recount: lost 0, duplicated 0.
 * 6. The report, and how to go on.
 *
 * It talks RESP, HTTP and Kafka only; the launcher does the killing and restarting over IPC. A second
 * run finds the sample loaded and only says how to go on. Exit code 1 when a check failed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { EXIT } from "../../common/process/exit.ts";
import { LakeClient } from "./client.ts";
import { crash } from "./crash.ts";
import { measureKnownItems, measureRecall, measureSearches } from "./measure.ts";
import { Report } from "./report.ts";
import { loadSample, mergeSample, prepareSample, sampleLoaded } from "./sample.ts";
import { COLLECTION, type TourContext } from "./tour.ts";

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      resp: { type: "string" },
      http: { type: "string" },
      store: { type: "string" },
      log: { type: "string" },
      brokers: { type: "string" },
      "data-dir": { type: "string" },
    },
    strict: true,
  });
  const dataDir = values["data-dir"] ?? ".vexlake";
  const passages = join(dataDir, "sample", "passages.jsonl");
  const client = new LakeClient({
    resp: values.resp ?? "127.0.0.1:6380",
    http: values.http ?? "127.0.0.1:8080",
    password: process.env.VEXLAKE_PASSWORD || undefined,
  });
  const tour: TourContext = {
    client,
    brokers: values.brokers?.split(",") ?? null,
    dataDir,
    passages,
    model: join(dataDir, "sample", "model.bin"),
    vectors: join(dataDir, "sample", "vectors.f32"),
    store: values.store ?? join(dataDir, "lake"),
    report: new Report(process.stdout.isTTY === true),
  };
  try {
    if (!existsSync(passages)) throw new Error(`no corpus at ${passages}`);
    if (await sampleLoaded(tour)) {
      tour.report.say(
        `the sample is loaded: collection ${COLLECTION}, ${(await client.collection(COLLECTION))?.records} records`,
      );
      howToGoOn(tour, values.http ?? "", values.resp ?? "");
      return EXIT.ok;
    }
    const sample = await prepareSample(tour);
    await loadSample(tour, sample);
    await mergeSample(tour);
    await measureSearches(tour, sample);
    await measureRecall(tour, sample);
    await measureKnownItems(tour, sample);
    await crash(tour, sample);
    tour.report.print();
    howToGoOn(tour, client.http, client.resp);
    return tour.report.ok ? EXIT.ok : EXIT.checkFailed;
  } finally {
    client.close();
    process.disconnect?.();
  }
}

function howToGoOn({ report }: TourContext, http: string, resp: string): void {
  const port = resp.split(":").at(-1);
  report.say("");
  report.say("go on:");
  report.say(`  npx --no vexlake search ${COLLECTION} "how do I retry a promise"`);
  report.say(
    `  redis-cli -p ${port} VSET vec:1 "[0.1, 0.2, 0.3]"      redis-cli -p ${port} VSEARCH "[0.1, 0.2, 0.3]" 10`,
  );
  report.say(
    `  http://${http}/        segments, lag, commits            http://${http}/jobs    compaction jobs`,
  );
  report.say(`  duckdb -c "$(npx --no vexlake files ${COLLECTION} --format duckdb)"`);
  report.say(`  npx --no vexlake verify ${COLLECTION}`);
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`tour: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exitCode = EXIT.checkFailed;
}
