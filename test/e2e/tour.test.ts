/*
 * The tour as a suite: the same program that `npm start` runs, over a lake that this test starts, kills and
 * restarts in the launcher's place. Real text of this machine, a real broker, every check of its report.
 */
import { execFile, fork } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect, it } from "vitest";
import { ROOT } from "../../services/cli/bootstrap/paths.mjs";
import { startVexlake, type Vexlake } from "../harness/processes.ts";
import { suite, temporaryFolder, unique } from "../harness/services.ts";

/** Enough text for the tour's own bar of 10,000 passages. */
const PASSAGES = "12000";
/** Cutting, embedding with the tests' profile, loading and two restarts take a minute on a busy machine. */
const TOUR_MS_MAX = 300_000;

await suite(["kafka"], "the tour", ({ kafka }) => {
  const folder = temporaryFolder("vexlake-tour-");
  const config = {
    log: { kind: "kafka", brokers: [kafka.brokers], group: unique("tour") },
    query: { resp: "127.0.0.1:0", http: "127.0.0.1:0" },
  };
  let node: Vexlake;
  const start = async (env: Record<string, string> = {}): Promise<Vexlake> => {
    node = await startVexlake("up", { dir: folder.path, config, env });
    return node;
  };

  afterAll(async () => {
    await node?.stop();
    folder.remove();
  });

  async function tour(): Promise<{ code: number | null; output: string }> {
    const args = ["--resp", node.ready.resp, "--http", node.ready.http, "--store", node.ready.store];
    args.push("--log", "kafka", "--brokers", kafka.brokers, "--data-dir", node.dataDir);
    const script = join(ROOT, "services", "cli", "tour", "main.ts");
    const child = fork(script, args as string[], { stdio: ["ignore", "pipe", "pipe", "ipc"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        output += chunk.toString();
      });
    }
    // What the launcher does: end what runs, start it anew, tell of every end.
    child.on("message", async ({ crashAt }: { crashAt?: string }) => {
      await Promise.race([node.stop(), node.ended]).catch(() => {});
      await node.ended;
      const { ready } = await start(crashAt === undefined ? {} : { VEXLAKE_CRASH_AT: crashAt });
      if (crashAt !== undefined) {
        void node.ended.then((end) => child.connected && child.send({ event: "exited", ...end }));
      }
      child.send({ op: "restart", ready });
    });
    // Not at "exit": what it printed last may still be on its way.
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    return { code, output };
  }

  it(
    "should load, merge, search, be killed and lose nothing",
    async () => {
      await start();
      const corpus = join(ROOT, "services", "cli", "sample", "corpus.mjs");
      const cut = [corpus, "--data-dir", node.dataDir, "--count", PASSAGES];
      await promisify(execFile)(process.execPath, cut, { cwd: ROOT });
      const { code, output } = await tour();
      expect(output).toContain("every check passed");
      for (const check of ["compaction", "known items", "killed between upload and commit", "the orphan"]) {
        expect(output).toMatch(new RegExp(`✓ ${check}`));
      }
      expect(output).toMatch(/✓ verify after the kill\s+lost 0, duplicated 0/);
      expect(code, output).toBe(0);
    },
    TOUR_MS_MAX,
  );

  it(
    "should load nothing again the second time",
    async () => {
      const { code, output } = await tour();
      expect(output).toContain("the sample is loaded");
      expect(code, output).toBe(0);
    },
    TOUR_MS_MAX,
  );
});
