/** The tour's connection to the lake: RESP by ioredis, HTTP by fetch. Follows a restart to new ports. */
import { Redis } from "ioredis";
import { z } from "zod";
import { bearer } from "../../common/process/admission.ts";
import { parseAddress } from "../../common/process/listen.ts";

/** Waiting for something that the lake does by itself: flushes, merges, a restart. */
export const WAIT_MS_MAX = 120_000;
const POLL_MS = 50;

const collectionView = z.looseObject({
  incarnation: z.string(),
  source: z.looseObject({ topic: z.string() }),
  partitions: z.number(),
  version: z.number(),
  records: z.number(),
  segments: z.number(),
  bytes: z.number(),
});
export type CollectionView = z.infer<typeof collectionView>;

export interface Hit {
  id: string;
  score: number;
}

export class LakeClient {
  resp: string;
  http: string;
  readonly #password: string | undefined;
  #redis: Redis | null = null;

  constructor(at: { resp: string; http: string; password: string | undefined }) {
    this.resp = at.resp;
    this.http = at.http;
    this.#password = at.password;
  }

  get redis(): Redis {
    if (this.#redis === null) {
      this.#redis = new Redis({
        ...parseAddress(this.resp),
        ...(this.#password === undefined ? {} : { password: this.#password }),
        maxRetriesPerRequest: 2,
        retryStrategy: () => 200,
      });
      // Connection errors reach the commands that wait; a killed server is part of the tour.
      this.#redis.on("error", () => {});
    }
    return this.#redis;
  }

  moveTo(at: { resp: string; http: string }): void {
    this.close();
    this.resp = at.resp;
    this.http = at.http;
  }

  close(): void {
    this.#redis?.disconnect();
    this.#redis = null;
  }

  async search(collection: string, query: Buffer, count: number, truth = false): Promise<Hit[]> {
    const args: (string | Buffer)[] = [collection, "FP32", query, "WITHSCORES", "COUNT", String(count)];
    if (truth) args.push("TRUTH");
    const reply = (await this.redis.call("VSIM", ...args)) as string[];
    const hits: Hit[] = [];
    for (let i = 0; i < reply.length; i += 2)
      hits.push({ id: reply[i] as string, score: Number(reply[i + 1]) });
    return hits;
  }

  async collection(name: string): Promise<CollectionView | null> {
    const headers = this.#headers();
    const response = await fetch(`http://${this.http}/api/v1/collections/${encodeURIComponent(name)}`, {
      headers,
    });
    if (response.status === 404) return null;
    return collectionView.parse(await checked(response));
  }

  async post(path: string, body?: unknown): Promise<Record<string, unknown>> {
    const headers = this.#headers();
    const init: RequestInit = { method: "POST", headers };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      headers["content-type"] = "application/json";
    }
    return (await checked(await fetch(`http://${this.http}${path}`, init))) as Record<string, unknown>;
  }

  #headers(): Record<string, string> {
    return this.#password === undefined ? {} : { authorization: bearer(this.#password) };
  }
}

async function checked(response: Response): Promise<unknown> {
  const answer: unknown = await response.json();
  if (response.ok) return answer;
  throw new Error(`${response.url} answered ${response.status}: ${JSON.stringify(answer)}`);
}

/** Polls until `look` answers something; fails with `what` at the deadline. */
export async function until<T>(what: string, look: () => Promise<T | null | undefined | false>): Promise<T> {
  const deadline = Date.now() + WAIT_MS_MAX;
  for (;;) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${WAIT_MS_MAX / 1_000} s`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
