import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Lake, type SourceOptions } from "@vexlake/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ensureCollection, findCollection, isOpen, readCatalog } from "./catalog.ts";
import type { LogSource } from "./log/source.ts";

const SOURCE: SourceOptions = { kind: "local", cluster: "c", topic: "t", starts: { 0: "0" } };
const SHAPE = { db: 0, dim: 2, metric: "cosine", format: "f32" };

let folder: string;
let lake: Lake;

async function reopen(): Promise<void> {
  const store = { url: join(folder, "lake") };
  lake = await Lake.open({ store, role: "test", instance: "catalog", spoolDir: join(folder, "spool") });
}

async function create(name: string): Promise<string> {
  const answer = await lake.alter({ op: "create", ...SHAPE, name, source: SOURCE });
  return (JSON.parse(answer) as { incarnation: string }).incarnation;
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "vexlake-catalog-"));
  await reopen();
});

afterEach(async () => {
  await lake.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("readCatalog", () => {
  it("should list the others beside a collection that cannot be opened, and name its error", async () => {
    const [bad, good] = [await create("bad"), await create("good")];
    await lake.close();
    writeFileSync(join(folder, "lake", "c", bad, "HEAD"), "damage");
    await reopen();

    const listed = await readCatalog(lake);

    expect(listed.map(({ name, live }) => [name, isOpen(live)])).toEqual([
      ["bad", false],
      ["good", true],
    ]);
    expect(listed[0]?.live).toMatchObject({ incarnation: bad, code: "CORRUPT" });
    expect((await findCollection(lake, 0, "good")).live.incarnation).toBe(good);
    await expect(findCollection(lake, 0, "bad")).rejects.toMatchObject({ code: "CORRUPT" });
    // It exists, so nothing is to be created: no log is asked.
    const wanted = { ...SHAPE, name: "bad", partitions: 1, from: { at: "latest" } } as const;
    await ensureCollection(lake, {} as LogSource, wanted);
    await lake.alter({ op: "drop", db: 0, name: "bad" });
    expect((await readCatalog(lake)).map(({ name }) => name)).toEqual(["good"]);
  });
});
