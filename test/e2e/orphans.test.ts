/*
 * What a creation leaves that is killed before its collection has a name, and `vexlake gc --orphans`. The races
 * with creators that live, and deaths at every other point, are tested in Rust.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { startVexlake, vexlake, vexlakeJson } from "../harness/processes.ts";
import { temporaryFolder } from "../harness/services.ts";

/** Seven processes, one after another, on a machine that other suites use as well. */
const STORY_MS_MAX = 180_000;

interface Report {
  collected: Record<string, object>;
  left: string[];
  orphans: { incarnation: string; objects: number; bytes: number }[];
}

const folder = temporaryFolder();
const dataDir = join(folder.path, "up");
const here = ["--data-dir", dataDir];
const gc = (...args: string[]) => vexlakeJson<Report>(["gc", "--orphans", ...args, ...here]);
const incarnations = () => readdirSync(join(dataDir, "lake", "c"));

afterAll(() => folder.remove());

it(
  "should remove the incarnation of a creation that was killed before its name, and nothing else",
  async () => {
    const create = (name: string) => ["collection", "create", name, "--dim", "2", ...here];
    await vexlakeJson(create("kept"));
    const [kept] = incarnations();
    // The first commit is the incarnation's, the second the catalog's.
    const config = { query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" } };
    const env = { VEXLAKE_CRASH_AT: "commit:before-create:2" };
    const node = await startVexlake("up", { dir: folder.path, config, env });
    const body = JSON.stringify({ name: "lost", dim: 2 });
    const headers = { "content-type": "application/json" };
    await expect(
      fetch(`${node.http}/api/v1/collections`, { method: "POST", body, headers }),
    ).rejects.toThrow();
    expect((await node.ended).signal).toBe("SIGKILL");
    const [orphan] = incarnations().filter((id) => id !== kept);
    const objects = () => readdirSync(join(dataDir, "lake", "c", orphan as string)).sort();
    expect(objects()).toEqual(["HEAD", "bases", "commits"]);

    // Too young by default.
    expect(await gc()).toMatchObject({ left: [], orphans: [] });
    const { stdout } = await vexlake(["gc", "--orphans", "--dry-run", "--grace-ms", "0", ...here]);
    expect(stdout).toContain(`${orphan}: has no name and would be removed, 0 objects`);
    expect(await gc("--grace-ms", "0")).toMatchObject({
      left: [orphan],
      orphans: [{ incarnation: orphan, objects: 0, bytes: 0 }],
    });
    // The fence against a creator that was not dead after all.
    expect(existsSync(join(dataDir, "lake", "c", orphan as string, "HEAD"))).toBe(true);

    await vexlakeJson(create("lost"));
    const after = await gc("--dry-run", "--grace-ms", "0");
    expect(after).toMatchObject({ left: [], orphans: [] });
    expect(Object.keys(after.collected).map((where) => where.split("/")[1])).toEqual(["kept", "lost"]);
    expect(Object.keys(after.collected)[0]).toBe(`0/kept/${kept}`);
  },
  STORY_MS_MAX,
);

it("should refuse to look for orphans in one collection", async () => {
  const { code, stderr } = await vexlake(["gc", "kept", "--orphans", ...here]);
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining("--orphans") });
});
