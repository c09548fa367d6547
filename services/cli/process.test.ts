/** What every role shows at /metrics of the core: here the real one, on a lake that a test damages. */
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { Lake } from "@vexlake/core";
import type { Registry } from "prom-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder } from "../../test/harness/services.ts";
import { processRegistry } from "./process.ts";

const SOURCE = { kind: "local", cluster: "c", topic: "t", starts: { 0: "0" } } as const;
const SHAPE = { op: "create", db: 0, dim: 2, metric: "l2", format: "f32", source: SOURCE } as const;

describe("the metrics of a role", () => {
  const folder = temporaryFolder();
  const catalogHead = join(folder.path, "lake", "catalog", "HEAD");
  let lake: Lake;
  let registry: Registry;

  beforeAll(async () => {
    const store = { url: join(folder.path, "lake") };
    lake = await Lake.open({ store, role: "test", instance: "0", spoolDir: join(folder.path, "spool") });
    registry = processRegistry("test", lake);
  });

  afterAll(async () => {
    await lake.close();
    folder.remove();
  });

  async function counted(what: "checks" | "violations", invariant: string): Promise<number> {
    const name = `vexlake_invariant_${what}_total`;
    const line = (await registry.metrics())
      .split("\n")
      .find((text) => text.startsWith(`${name}{invariant="${invariant}"`));
    return Number(line?.slice(line.lastIndexOf(" ")));
  }

  it("should show how often each invariant was checked and broken, and the groups of the core", async () => {
    await lake.alter({ ...SHAPE, name: "a" });
    expect(await counted("checks", "head-monotone")).toBeGreaterThan(0);
    expect(await counted("violations", "head-monotone")).toBe(0);
    expect(await counted("violations", "ledger-adds-up")).toBe(0);
    const text = await registry.metrics();
    expect(text).toMatch(/vexlake_cache_bytes_max\{role="test"\} \d+/);
    expect(text).not.toContain("vexlake_invariants");
  });

  it("should refuse and count a HEAD that somebody put back", async () => {
    const before = join(folder.path, "HEAD");
    copyFileSync(catalogHead, before);
    await lake.alter({ ...SHAPE, name: "b" });
    copyFileSync(before, catalogHead);
    await expect(lake.refresh(null)).rejects.toMatchObject({ code: "CORRUPT" });
    expect(await counted("violations", "head-monotone")).toBe(1);
  });
});
