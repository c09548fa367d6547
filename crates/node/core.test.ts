/** The border to Rust: how failures cross it. What the engine does is tested in Rust. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CoreError, Lake, type VectorArgument } from "@vexlake/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const NOBODY = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

async function failure(work: () => unknown): Promise<CoreError> {
  try {
    await work();
  } catch (error) {
    return error as CoreError;
  }
  throw new Error("nothing was thrown");
}

describe("errors of the core", () => {
  const folder = mkdtempSync(join(tmpdir(), "vexlake-core-"));
  let lake: Lake;

  beforeAll(async () => {
    const store = { url: join(folder, "lake") };
    lake = await Lake.open({ store, role: "test", instance: "core", spoolDir: join(folder, "spool") });
  });

  afterAll(async () => {
    await lake.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("should turn a panic into INTERNAL, and answer the next call", async () => {
    const error = await failure(() => Lake.doctor(true));
    expect(error).toBeInstanceOf(Error);
    expect(error.code).toBe("INTERNAL");
    expect(JSON.parse(Lake.doctor())).toMatchObject({ format: 1 });
  });

  it("should carry a code and a message that names what was asked", async () => {
    expect(await failure(() => lake.refresh(NOBODY))).toMatchObject({ code: "NOT_FOUND" });
    const refused = await failure(() => lake.refresh("not-a-ulid"));
    expect(refused).toMatchObject({ code: "INVALID", message: expect.stringContaining("not-a-ulid") });
  });

  it("should refuse a command or an option that it does not know", async () => {
    const unknown = { op: "rename", db: 0, name: "docs" } as unknown as Parameters<Lake["alter"]>[0];
    expect(await failure(() => lake.alter(unknown))).toMatchObject({ code: "INVALID" });
    const misspelt = { store: { url: join(folder, "other") }, role: "test", instance: "core", spooldir: "x" };
    expect(await failure(() => Lake.open(misspelt as never))).toMatchObject({ code: "INVALID" });
  });

  it("should judge a vector for a collection that is not there yet", async () => {
    const check = (vector: VectorArgument) =>
      lake.search([{ collection: "", vector, k: 0, scope: "snapshot", withAttrs: false }]);
    const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
    const [right] = await check({ kind: "f32", bytes: floats(1, 2, 3) });
    expect(right?.error).toBeUndefined();
    const text = (bytes: string) => ({ kind: "text", bytes: Buffer.from(bytes) }) as const;
    for (const wrong of [
      { kind: "f32", bytes: floats(1, Number.NaN) } as const,
      text("[1e999]"),
      text("[x]"),
    ])
      expect((await check(wrong))[0]?.error?.code).toBe("INVALID");
  });

  it("should answer each search of a group for itself", async () => {
    const request = {
      collection: NOBODY,
      vector: { kind: "f32", bytes: new Uint8Array(8) },
      k: 1,
      scope: "fresh",
      withAttrs: false,
    } as const;
    const [one, two] = await lake.search([request, request]);
    expect(one?.error?.code).toBe("NOT_FOUND");
    expect(two?.error?.code).toBe("NOT_FOUND");
  });

  it("should refuse a search of a version that names none", async () => {
    const request = { collection: NOBODY, vector: { kind: "f32", bytes: new Uint8Array(8) }, k: 1 } as const;
    const [answer] = await lake.search([{ ...request, scope: "at", withAttrs: false }]);
    expect(answer?.error).toMatchObject({ code: "INVALID", message: expect.stringContaining("version") });
  });

  it("should end a recount that fails or is aborted, and bound how many run at once", async () => {
    const shape = { db: 0, name: "docs", dim: 2, metric: "l2", format: "f32" };
    const source = { kind: "local", cluster: "c", topic: "t", starts: { "0": "0" } } as const;
    const { incarnation } = JSON.parse(await lake.alter({ op: "create", ...shape, source }));
    const begin = (session: string) => lake.verify({ step: "begin", session, incarnation });
    await begin("fails");
    const batch = { partition: 0, from: 0n, to: 1n, buffers: [], table: new Uint8Array(0) };
    await failure(() => lake.verify({ step: "add", session: "fails", source: 9, ...batch }));
    expect(await failure(() => lake.verify({ step: "finish", session: "fails" }))).toMatchObject({
      code: "INVALID",
      message: 'no recount "fails" was begun',
    });
    for (let session = 0; session < 16; session++) await begin(`${session}`);
    expect(await failure(() => begin("one more"))).toMatchObject({ code: "UNAVAILABLE" });
    for (let session = 0; session < 16; session++)
      await lake.verify({ step: "abort", session: `${session}` });
    await begin("after");
    expect(JSON.parse(await lake.verify({ step: "finish", session: "after" }))).toMatchObject({ ok: true });
  });

  it("should say that it is closed", async () => {
    const store = { url: join(folder, "lake") };
    const other = await Lake.open({ store, role: "test", instance: "two", spoolDir: join(folder, "spool2") });
    await other.close();
    const closed = { code: "UNAVAILABLE", message: "the lake is closed" };
    expect(await failure(() => other.refresh(NOBODY))).toMatchObject(closed);
    expect(await failure(() => other.metrics())).toMatchObject(closed);
  });
});
