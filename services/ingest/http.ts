/**
 * What ingest answers over HTTP beside health and metrics: POST /api/v1/flush, /verify, /replay, /accept.
 *
 * The last three need the log, and a local log belongs to this process, so they are served here;
 * with Kafka the command line does the same work by itself.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Lake } from "@vexlake/core";
import {
  findCollection,
  liveSource,
  opened,
  parseBeginning,
  readCatalog,
  sourceFrom,
} from "../common/catalog.ts";
import type { LogSource } from "../common/log/source.ts";
import { VexError } from "../common/process/error.ts";
import { type Handler, sendJson } from "../common/process/http.ts";
import { acceptChanges } from "../common/source-changes.ts";
import { type VerifyReport, verifyIncarnation } from "../common/verify.ts";
import type { Ingest } from "./main.ts";

/** Namespaces are those of SELECT: 0 to 15. */
const DB_MAX = 15;

/** Paths and handlers to mount. */
export function ingestMounts(
  lake: Lake,
  log: LogSource,
  ingest: Ingest,
): { path: string; handler: Handler }[] {
  const post =
    (work: (query: URLSearchParams) => Promise<unknown>): Handler =>
    async (request: IncomingMessage, response: ServerResponse) => {
      if (request.method !== "POST")
        throw new VexError("INVALID", `method is ${request.method}, expected POST`);
      sendJson(response, 200, await work(new URL(request.url ?? "/", "http://localhost").searchParams));
    };
  return [
    { path: "/api/v1/flush", handler: post((query) => flush(lake, ingest, query)) },
    { path: "/api/v1/verify", handler: post((query) => verify(lake, log, query)) },
    { path: "/api/v1/replay", handler: post((query) => replay(lake, log, query)) },
    { path: "/api/v1/accept", handler: post((query) => accept(lake, log, query)) },
  ];
}

function collectionOf(query: URLSearchParams): { db: number; name: string } {
  const name = query.get("collection");
  if (name === null || name === "") throw new VexError("INVALID", "collection is missing");
  return { db: databaseOf(query), name };
}

function databaseOf(query: URLSearchParams): number {
  const db = query.get("db") ?? "0";
  if (/^\d{1,2}$/.test(db) && Number(db) <= DB_MAX) return Number(db);
  throw new VexError("INVALID", `db is ${JSON.stringify(db)}, expected a whole number from 0 to ${DB_MAX}`);
}

async function flush(lake: Lake, ingest: Ingest, query: URLSearchParams): Promise<unknown> {
  const { db, name } = collectionOf(query);
  const { live } = await findCollection(lake, db, name);
  return await ingest.flush(live.incarnation);
}

async function verify(
  lake: Lake,
  log: LogSource,
  query: URLSearchParams,
): Promise<Record<string, VerifyReport>> {
  const names = query.getAll("collection");
  const db = databaseOf(query);
  const all = await readCatalog(lake);
  const reports: Record<string, VerifyReport> = {};
  for (const name of names) await findCollection(lake, db, name);
  for (const one of all) {
    if (names.length > 0 && !(one.db === db && names.includes(one.name))) continue;
    reports[`${one.db}/${one.name}`] = await verifyIncarnation(lake, log, opened(one.live));
  }
  return reports;
}

async function accept(lake: Lake, log: LogSource, query: URLSearchParams): Promise<unknown> {
  const { db, name } = collectionOf(query);
  const partition = query.get("partition");
  const { live } = await findCollection(lake, db, name);
  return await acceptChanges(lake, log, live, partition === null ? undefined : Number(partition));
}

async function replay(lake: Lake, log: LogSource, query: URLSearchParams): Promise<unknown> {
  const { db, name } = collectionOf(query);
  const from = parseBeginning(query.get("from") ?? "");
  const { live } = await findCollection(lake, db, name);
  const source = await sourceFrom(log, liveSource(live).topic, from);
  const withoutEpochs = query.getAll("without-epoch").map(Number);
  return JSON.parse(await lake.alter({ op: "replay-start", db, name, source, withoutEpochs }));
}
