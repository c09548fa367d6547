/*
 * What the end-to-end suites see of a running node, over its own surfaces: HTTP for exact records and
 * counts, RESP through ioredis for everything a Redis client does. And `Model`: what must be there.
 */
import { Redis } from "ioredis";
import { expect } from "vitest";
import type { Vexlake } from "../harness/processes.ts";
import { until } from "../harness/processes.ts";
import type { Change } from "../harness/records.ts";

export interface ServedRecord {
  id: string;
  vector: number[];
  attrs: unknown;
}

/** Of GET /api/v1/collections/<name>. */
export interface ServedCollection {
  incarnation: string;
  version: number;
  records: number;
  segments: number;
  source: { topic: string; cluster: string };
}

/** Ids of one GET; the API takes as many. */
const IDS_MAX = 100;

export function redisOf(node: Pick<Vexlake, "resp">): Redis {
  return new Redis({ ...node.resp, maxRetriesPerRequest: 1, retryStrategy: () => null });
}

export async function collectionOf(node: Pick<Vexlake, "http">, name: string): Promise<ServedCollection> {
  return (await call(node, "GET", `/api/v1/collections/${name}`)) as ServedCollection;
}

/** The records of these ids that are there, by id. */
export async function recordsOf(
  node: Pick<Vexlake, "http">,
  collection: string,
  ids: string[],
): Promise<Map<string, ServedRecord>> {
  const found = new Map<string, ServedRecord>();
  for (let at = 0; at < ids.length; at += IDS_MAX) {
    const query = ids.slice(at, at + IDS_MAX).map((id) => `&id=${encodeURIComponent(id)}`);
    const path = `/api/v1/records?collection=${collection}${query.join("")}`;
    const { records } = (await call(node, "GET", path)) as { records: (ServedRecord | null)[] };
    for (const record of records) if (record) found.set(record.id, record);
  }
  return found;
}

/** An HTTP call whose status must be 2xx. */
export async function call(
  node: Pick<Vexlake, "http">,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const answer = await rawCall(node, method, path, body);
  if (answer.status >= 300)
    throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
}

export async function rawCall(
  { http }: Pick<Vexlake, "http">,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; body: Record<string, unknown> }> {
  const content = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
  const response = await fetch(`${http}${path}`, { method, ...content });
  const text = await response.text();
  return { status: response.status, body: text === "" ? {} : JSON.parse(text) };
}

export interface Expected {
  vector: number[];
  attrs: unknown;
}

/** The records that a run of accepted changes leaves behind, by the rules of schemas/records.md. */
export class Model {
  readonly records = new Map<string, Expected>();
  /** Of the live records, in milliseconds; a record has that of its newest change. */
  readonly eventTimes = new Map<string, number | null>();
  /** Every id ever written, deleted ones included. */
  readonly ids = new Set<string>();
  offsets = 0;

  apply({ id, op = "upsert", vector, attrs, eventTime }: Change): void {
    this.offsets += 1;
    this.ids.add(id);
    this.eventTimes.set(id, eventTime ?? null);
    if (op === "delete") this.eventTimes.delete(id);
    const before = this.records.get(id);
    const given = attrs === undefined ? null : JSON.parse(attrs);
    if (op === "delete") this.records.delete(id);
    else if (op === "upsert") this.records.set(id, { vector: [...(vector ?? [])], attrs: given });
    else if (before === undefined)
      throw new Error(`${op} on ${id}, which has no record: a mistake of the test`);
    else if (op === "set-vector") this.records.set(id, { ...before, vector: [...(vector ?? [])] });
    else this.records.set(id, { ...before, attrs: given });
  }

  /** Waits until the node serves exactly these records; a difference past the deadline is shown. */
  async served(node: Pick<Vexlake, "http">, collection: string, deadlineMs = 30_000): Promise<void> {
    const ids = [...this.ids];
    const deadline = performance.now() + deadlineMs;
    await until(
      `${collection} to serve ${this.records.size} records`,
      async () => {
        const found = await recordsOf(node, collection, ids);
        if (this.#same(found)) return true;
        if (performance.now() > deadline)
          expect(this.#plain(found)).toEqual(Object.fromEntries(this.records));
        return false;
      },
      deadlineMs + 10_000,
    );
    expect((await collectionOf(node, collection)).records).toBe(this.records.size);
  }

  #same(found: Map<string, ServedRecord>): boolean {
    return (
      JSON.stringify(sorted(this.#plain(found))) === JSON.stringify(sorted(Object.fromEntries(this.records)))
    );
  }

  #plain(found: Map<string, ServedRecord>): Record<string, Expected> {
    const plain = [...found.values()].map(({ id, vector, attrs }) => [
      id,
      { vector: vector.map(Math.fround), attrs },
    ]);
    return Object.fromEntries(plain) as Record<string, Expected>;
  }
}

function sorted(records: Record<string, Expected>): [string, Expected][] {
  return Object.entries(records).sort(([a], [b]) => (a < b ? -1 : 1));
}
