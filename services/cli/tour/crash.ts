/**
 * The crash: SIGKILL of the whole `vexlake up` after a flush has uploaded its segment and before the
 * commit that would name it. What was acknowledged is in the log; what was uploaded is an orphan.
 */
import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { type CollectionView, until } from "./client.ts";
import { withWriter } from "./sample.ts";
import { COLLECTION, pick, type Sample, type TourContext } from "./tour.ts";

/** Records written again before the crash: same keys, so that the collection stays what it is. */
const REWRITTEN = 500;
const CRASH_AT = "flush:uploaded:1";

interface Ready {
  resp: string;
  http: string;
}

export async function crash(tour: TourContext, sample: Sample): Promise<void> {
  const { client, report } = tour;
  if (process.send === undefined) {
    report.fact("crash", "left out: it needs the launcher (npm start), which restarts the lake");
    return;
  }
  const before = (await client.collection(COLLECTION)) as CollectionView;
  client.moveTo(await restart(CRASH_AT));
  const known = await listSegments(tour, before.incarnation);
  const killed = exited();
  const rewritten = pick(sample.passages.length, REWRITTEN, 23);
  await withWriter(tour, before.source.topic, (write) => write(sample, rewritten));
  // The flush dies with the process: that is the point.
  await client.post(`/api/v1/flush?collection=${COLLECTION}`).catch(() => null);
  const signal = await killed;
  report.check(
    "killed between upload and commit",
    `VEXLAKE_CRASH_AT=${CRASH_AT} ended vexlake up by ${signal}`,
    signal === "SIGKILL",
  );

  client.moveTo(await restart());
  const uploaded = (await listSegments(tour, before.incarnation)).filter((id) => !known.includes(id));
  const live = await liveSegments(tour);
  const orphan = uploaded.find((id) => !live.includes(id));
  report.check(
    "the orphan",
    `segment ${orphan} is in the store, no commit names it; gc removes it`,
    orphan !== undefined,
  );
  await until(
    "everything produced to be visible",
    async () => (await client.collection(COLLECTION))?.records === before.records,
  );
  await client.post(`/api/v1/flush?collection=${COLLECTION}`);
  const reports = await client.post(`/api/v1/verify?collection=${COLLECTION}`);
  const verified = Object.values(reports)[0] as {
    ok: boolean;
    recounted: boolean;
    missing: number;
    duplicated: number;
    offsets: number;
    version: number;
  };
  const { ok, recounted, missing, duplicated, offsets, version } = verified;
  report.check(
    "verify after the kill",
    `lost ${missing}, duplicated ${duplicated} of ${offsets} offsets at version ${version}`,
    // Without a recount "lost 0" would only say that the sums agree.
    ok && recounted && offsets === sample.passages.length + REWRITTEN,
  );
}

/** Asks the launcher for a fresh `vexlake up`. */
function restart(crashAt?: string): Promise<Ready> {
  return new Promise((resolve, reject) => {
    const listen = (message: { op?: string; ready?: Ready; error?: string }): void => {
      if (message.op !== "restart") return;
      process.off("message", listen);
      if (message.ready) resolve(message.ready);
      else reject(new Error(`the lake did not start again: ${message.error}`));
    };
    process.on("message", listen);
    process.send?.({ op: "restart", ...(crashAt === undefined ? {} : { crashAt }) });
  });
}

/** The signal that ends `vexlake up` next. */
function exited(): Promise<string | null> {
  return new Promise((resolve) => {
    const listen = (message: { event?: string; signal?: string | null }): void => {
      if (message.event !== "exited") return;
      process.off("message", listen);
      resolve(message.signal ?? null);
    };
    process.on("message", listen);
  });
}

/** As any script would: `vexlake files … --format json`. */
async function liveSegments({ dataDir }: TourContext): Promise<string[]> {
  const main = fileURLToPath(new URL("../main.ts", import.meta.url));
  const args = [main, "files", COLLECTION, "--format", "json", "--data-dir", dataDir];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 });
  const { segments } = JSON.parse(stdout) as { segments: { id: string }[] };
  return segments.map(({ id }) => id);
}

/** Segment ids as they lie in the store, whatever any commit says. */
async function listSegments({ store }: TourContext, incarnation: string): Promise<string[]> {
  if (!store.startsWith("s3://")) {
    const folder = join(store, "c", incarnation, "seg");
    return existsSync(folder) ? readdirSync(folder).sort() : [];
  }
  const url = new URL(store);
  const endpoint =
    process.env.VEXLAKE_STORE_ENDPOINT ?? process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL;
  const s3 = new S3Client({
    forcePathStyle: true,
    region: process.env.AWS_REGION ?? "us-east-1",
    ...(endpoint === undefined ? {} : { endpoint }),
  });
  const prefix = `${url.pathname.slice(1)}/c/${incarnation}/seg/`.replace(/^\//, "");
  const listed = await s3.send(new ListObjectsV2Command({ Bucket: url.host, Prefix: prefix }));
  const ids = (listed.Contents ?? []).map(({ Key }) => Key?.slice(prefix.length).split("/")[0] ?? "");
  return [...new Set(ids)].sort();
}
