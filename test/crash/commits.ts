/*
 * The commits of an incarnation as they appear, and who made them; and every segment id that any commit ever
 * named, read from the objects themselves (line 1 of a commit is JSON) rather than through our reader.
 */
import type { Lake } from "@vexlake/core";
import { tableFromIPC } from "apache-arrow";
import { type Incarnation, parseIncarnation } from "../../services/common/catalog.ts";
import { listKeys, readObject } from "../harness/oracles.ts";
import type { S3Service } from "../harness/services.ts";

export interface Commit {
  version: number;
  instance: string;
  kind: string;
}

/** Reads at a time. */
const READS_MAX = 16;

export class Commits {
  readonly all: Commit[] = [];
  readonly #lake: Lake;
  readonly #incarnation: string;

  constructor(lake: Lake, incarnation: string) {
    this.#lake = lake;
    this.#incarnation = incarnation;
  }

  /** Follows the chain; `all` is complete up to the version answered here. */
  async follow(): Promise<Incarnation> {
    const now = parseIncarnation(await this.#lake.refresh(this.#incarnation));
    const limit = now.version - (this.all.at(-1)?.version ?? -1);
    if (limit > 0) {
      const what = { what: "commits", incarnation: this.#incarnation, limit } as const;
      const table = tableFromIPC((await this.#lake.describe(what)) as Uint8Array);
      const rows = table.toArray().map((row) => row.toJSON() as Record<string, unknown>);
      for (const row of rows.reverse()) {
        const version = Number(row.version);
        if (version <= (this.all.at(-1)?.version ?? -1)) continue;
        this.all.push({ version, instance: String(row.instance), kind: String(row.kind) });
      }
    }
    return now;
  }

  appends(): Commit[] {
    return this.all.filter(({ kind }) => kind === "append");
  }

  appendsBy(pid: number): number {
    return this.appends().filter(({ instance }) => instance.endsWith(`-${pid}`)).length;
  }
}

/** Segment ids that lie in the store, whatever any commit says. */
export async function storedSegments(s3: S3Service, prefix: string): Promise<Set<string>> {
  const keys = await listKeys(s3, `${prefix}/seg/`);
  return new Set(keys.map((key) => key.slice(`${prefix}/seg/`.length).split("/")[0] as string));
}

/** Segment ids that stand anywhere in any commit under the prefix of an incarnation. */
export async function namedSegments(s3: S3Service, prefix: string, ids: Set<string>): Promise<Set<string>> {
  const waiting = await listKeys(s3, `${prefix}/commits/`);
  const named = new Set<string>();
  const worker = async () => {
    for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
      const [line = ""] = (await readObject(s3, key)).split("\n", 1);
      for (const id of ids) if (line.includes(id)) named.add(id);
    }
  };
  await Promise.all(Array.from({ length: READS_MAX }, worker));
  return named;
}
