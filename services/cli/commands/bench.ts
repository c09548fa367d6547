/**
 * bench: drives a running server as redis-benchmark would: -c connections, each with one VSIM on its way,
 * -n requests in all. Queries are stored vectors of the collection, so every request does real work.
 */
import type { Redis } from "ioredis";
import { VexError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, whole } from "../args.ts";
import { openContext } from "../context.ts";
import { print, printJson } from "../output.ts";
import { withRedis } from "../redis.ts";

const REQUESTS = 10_000;
const CLIENTS = 8;
/** Stored vectors that serve as queries, in turn. */
const QUERIES = 256;

interface Measured {
  seconds: number;
  micros: number[];
}

export async function run(args: Arguments): Promise<number> {
  const context = await openContext(args, "cli");
  const name = args.positionals[0] ?? "docs";
  const db = whole(args, "db", 0, 15) ?? 0;
  const requests = whole(args, "requests", 1, 100_000_000) ?? REQUESTS;
  const clients = whole(args, "clients", 1, 1_000) ?? CLIENTS;
  const count = String(whole(args, "count", 1, 10_000) ?? 10);
  const { seconds, micros } = await withRedis(context, { db, connections: clients }, (connections) =>
    measure(connections, name, requests, count),
  );
  micros.sort((a, b) => a - b);
  const at = (share: number): number =>
    micros[Math.min(micros.length - 1, Math.floor(share * micros.length))] as number;
  const report = {
    collection: name,
    requests,
    clients,
    perSecond: requests / seconds,
    p50Micros: at(0.5),
    p99Micros: at(0.99),
  };
  if (context.json) printJson(report);
  else {
    print(`${requests} VSIM on ${name}, ${clients} connections: ${report.perSecond.toFixed(0)} requests/s`);
    print(`p50 ${(report.p50Micros / 1000).toFixed(2)} ms, p99 ${(report.p99Micros / 1000).toFixed(2)} ms`);
  }
  return EXIT.ok;
}

async function measure(
  connections: Redis[],
  name: string,
  requests: number,
  count: string,
): Promise<Measured> {
  const queries = await storedVectors(connections[0] as Redis, name);
  const micros: number[] = [];
  let sent = 0;
  const started = process.hrtime.bigint();
  const drive = async (redis: Redis): Promise<void> => {
    while (sent < requests) {
      const query = queries[sent++ % queries.length] as Buffer;
      const before = process.hrtime.bigint();
      await redis.call("VSIM", name, "FP32", query, "COUNT", count);
      micros.push(Number(process.hrtime.bigint() - before) / 1_000);
    }
  };
  await Promise.all(connections.map(drive));
  return { seconds: Number(process.hrtime.bigint() - started) / 1e9, micros };
}

/** Vectors of some stored elements: the neighbours of whatever the first results are, as raw bytes. */
async function storedVectors(redis: Redis, name: string): Promise<Buffer[]> {
  const dim = Number(await redis.call("VDIM", name));
  const axis = Buffer.alloc(dim * 4);
  axis.writeFloatLE(1, 0);
  const ids = (await redis.callBuffer("VSIM", name, "FP32", axis, "COUNT", String(QUERIES))) as Buffer[];
  if (ids.length === 0)
    throw new VexError("NOT_FOUND", `collection ${name} is empty: there is nothing to search`);
  const raw = await Promise.all(
    ids.map((id) => redis.callBuffer("VEMB", name, id, "RAW") as Promise<Buffer[]>),
  );
  return raw.map((reply) => reply[1] as Buffer);
}
