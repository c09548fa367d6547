import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bringUp, preferredPort, reap } from "./components.mjs";
import { dataLayout } from "./paths.mjs";
import { isSameProcess, readJson } from "./processes.mjs";
import { redisRuntime } from "./provision.mjs";
import { LakeProcesses } from "./supervise.mjs";
import { runTour } from "./tour.mjs";
import { Up } from "./up.mjs";

const DEADLINE_MS = 20_000;
const POLL_MS = 20;

/** Stands for `vexlake up` here: what is under test is the supervision, not the lake. */
const CHILD = `
  const { appendFileSync } = require("node:fs");
  const note = (text) => appendFileSync(process.argv[2], text + "\\n");
  note("start " + process.pid + " " + (process.env.VEXLAKE_CRASH_AT ?? "-"));
  process.on("SIGTERM", () => { note("stop " + process.pid); process.exit(0); });
  if (process.argv[3]) process.exit(Number(process.argv[3]));
  console.log("ready resp=127.0.0.1:1 http=127.0.0.1:2 log=local store=dir version=0");
  setInterval(() => {}, 1000);
`;

let folder: string;
let notes: string;
let lake: LakeProcesses;
let said: string[];
let printed: PassThrough;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vexlake-supervise-"));
  notes = join(folder, "notes");
  writeFileSync(join(folder, "child.cjs"), CHILD);
  said = [];
  printed = new PassThrough();
  lake = new LakeProcesses((text: string) => said.push(text));
});
afterEach(async () => {
  await lake.stop();
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

function upOf(...args: string[]): Up {
  return upWith({}, ...args);
}

function upWith(options: { onReady?: () => void }, ...args: string[]): Up {
  return new Up({
    node: process.execPath,
    script: join(folder, "child.cjs"),
    args: [notes, ...args],
    env: process.env,
    layout: dataLayout(folder),
    out: printed,
    ...options,
  });
}

function starts(): { pid: number; crashAt: string }[] {
  if (!existsSync(notes)) return [];
  const lines = readFileSync(notes, "utf8")
    .split("\n")
    .filter((line) => line.startsWith("start "));
  return lines.map((line) => ({ pid: Number(line.split(" ")[1]), crashAt: line.split(" ")[2] ?? "" }));
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS;
  while (!holds()) {
    if (Date.now() > deadline)
      throw new Error(`no ${what} within ${DEADLINE_MS} ms; notes: ${said.join(" | ")}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

describe("supervision of vexlake up", () => {
  it("should answer the parsed ready line and record the pid", async () => {
    expect(await lake.addUp(upOf())).toMatchObject({ resp: "127.0.0.1:1", version: "0" });
    expect(String(printed.read())).toMatch(/^ready resp=.*\n$/);
    expect(isSameProcess(readJson(join(folder, "run", "pids", "up.json")))).toBe(true);
  });

  it("should start it again after a kill", async () => {
    await lake.addUp(upOf());
    process.kill(starts()[0]?.pid ?? 0, "SIGKILL");
    await until("second start", () => starts().length === 2);
    expect(said).toEqual(["vexlake up was ended by SIGKILL: starting it again"]);
  });

  it("should pass on the exit code of a start that fails", async () => {
    await expect(lake.addUp(upOf("4"))).rejects.toMatchObject({ exitCode: 4 });
  });

  it("should stop it with SIGTERM and leave no pid file", async () => {
    await lake.addUp(upOf());
    await lake.stop();
    expect(readFileSync(notes, "utf8")).toContain(`stop ${starts()[0]?.pid}`);
    expect(existsSync(join(folder, "run", "pids", "up.json"))).toBe(false);
  });

  it("should reap one that an earlier launcher left", async () => {
    await lake.addUp(upOf());
    const { pid } = starts()[0] ?? { pid: 0 };
    lake.stopping();
    await reap("up", dataLayout(folder), (text: string) => said.push(text));
    expect(said).toEqual([`up: stopping process ${pid} of an earlier run`]);
    expect(readFileSync(notes, "utf8")).toContain(`stop ${pid}`);
  });
});

describe("a stop", () => {
  it("should end a vexlake up that is being started", async () => {
    const ready = lake.addUp(upOf());
    await Promise.all([expect(ready).rejects.toThrow("before it was ready"), lake.stop()]);
    expect(existsSync(join(folder, "run", "pids", "up.json"))).toBe(false);
  });

  it("should let nothing be started after it", async () => {
    await lake.addUp(upOf());
    const restarted = expect(lake.restart(undefined)).rejects.toThrow("not started");
    await Promise.all([lake.stop(), restarted]);
    await expect(lake.addUp(upOf())).rejects.toThrow("not started");
    expect(starts()).toHaveLength(1);
    expect(said).toEqual([]);
  });

  it("should end an engine that is being started again", async () => {
    const stopped: string[] = [];
    const engine = (name: string, exited: Promise<unknown>) =>
      ({ exited: () => exited, stop: async () => stopped.push(name) }) as never;
    const { promise: again, resolve } = Promise.withResolvers<never>();
    lake.addEngine("kafka", engine("first", Promise.resolve()), () => again);
    await until("restart", () => said.length === 1);
    const stop = lake.stop();
    resolve(engine("second", new Promise(() => {})));
    await stop;
    expect(stopped).toEqual(["second"]);
  });
});

describe("the choice of a log", () => {
  it("should be remembered only once a lake is ready", async () => {
    let remembered = 0;
    const onReady = () => {
      remembered += 1;
    };
    await expect(lake.addUp(upWith({ onReady }, "5"))).rejects.toMatchObject({ exitCode: 5 });
    expect(remembered).toBe(0);
    await lake.addUp(upWith({ onReady }));
    expect(remembered).toBe(1);
  });
});

describe("the tour's crash", () => {
  it("should arm a crash, tell the tour of it, and start again when asked", async () => {
    await lake.addUp(upOf());
    const script = join(folder, "tour.cjs");
    writeFileSync(
      script,
      `const heard = [];
       process.on("message", (message) => {
         heard.push(message.op ?? message.event);
         if (heard.length === 2) process.kill(JSON.parse(require("node:fs").readFileSync(process.argv[2], "utf8")).pid, "SIGKILL");
         if (heard.length === 3) process.send({ op: "restart" });
         if (heard.length === 4) process.exit(heard.join() === "exited,restart,exited,restart" && message.ready.version === "0" ? 3 : 9);
       });
       process.send({ op: "restart", crashAt: "commit:before-create:1" });`,
    );
    const args = [join(folder, "run", "pids", "up.json")];
    const tour = await runTour({
      node: process.execPath,
      script,
      args,
      env: process.env,
      lake,
      layout: dataLayout(folder),
    });
    expect(await tour.exited).toBe(3);
    await tour.stop();
    expect(starts().map((start) => start.crashAt)).toEqual(["-", "commit:before-create:1", "-"]);
    expect(said).toEqual([]);
  });
});

describe("engines", () => {
  it("should prefer the port of the last run", () => {
    expect(preferredPort("kafka", { kafka: 9100 })).toBe(9100);
    expect(preferredPort("redis", {})).toBe(6379);
  });

  it.skipIf(!redisRuntime().usable)(
    "should adopt a Redis that still answers and restart one that died",
    async () => {
      const layout = dataLayout(folder);
      const say = (text: string) => said.push(text);
      const first = await bringUp("redis", layout, () => {});
      const second = await bringUp("redis", layout, say);
      expect(second.supervised.pid).toBe(first.supervised.pid);
      expect(said).toEqual([expect.stringMatching(/adopted process \d+ of an earlier run/)]);
      let current = second.supervised;
      lake.addEngine("redis", second.supervised, async () => {
        current = (await bringUp("redis", layout, () => {})).supervised;
        return current;
      });
      process.kill(first.supervised.pid, "SIGKILL");
      await until("second Redis", () => current !== second.supervised);
      expect(current.pid).not.toBe(first.supervised.pid);
    },
  );
});
