import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CargoMessages, countPackages } from "./addon.mjs";
import { installStamp, satisfiesEngines } from "./install.mjs";
import { cacheDir, dataLayout } from "./paths.mjs";
import { choosePort, freePorts, isFree } from "./ports.mjs";
import { atLeast, judgeKafkaRuntime, missingPrerequisites, parseVersion } from "./prerequisites.mjs";
import {
  isSameProcess,
  leftover,
  parseStat,
  readJson,
  startProcess,
  startTimeOf,
  takeLock,
  waitReady,
  writeJson,
} from "./processes.mjs";
import { estimateSeconds, formatSeconds, Progress } from "./progress.mjs";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vexlake-bootstrap-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("paths", () => {
  it("should follow XDG_CACHE_HOME", () => {
    expect(cacheDir({ XDG_CACHE_HOME: "/c" }, "linux")).toBe("/c/vexlake");
    expect(cacheDir({}, "linux")).toMatch(/\.cache\/vexlake$/);
    expect(cacheDir({}, "darwin")).toMatch(/Library\/Caches\/vexlake$/);
  });

  it("should lay out the data directory as the design fixes it", () => {
    const layout = dataLayout("/d");
    expect([
      layout.lake,
      layout.log,
      layout.kafka,
      layout.redis,
      layout.pids,
      layout.ports,
      layout.launcherLock,
    ]).toEqual([
      "/d/lake",
      "/d/log",
      "/d/kafka",
      "/d/redis",
      "/d/run/pids",
      "/d/run/ports.json",
      "/d/run/launcher.lock",
    ]);
  });
});

describe("prerequisites", () => {
  const complete = {
    platform: "linux",
    libc: "glibc",
    node: [18, 19, 0],
    npm: "/usr/bin/npm",
    cargo: [1, 94, 0],
    linker: "/usr/bin/cc",
  };

  it("should accept a machine that has everything", () => {
    expect(missingPrerequisites(complete, "apt-get")).toEqual([]);
  });

  it("should list everything that is missing at once, each with its install line", () => {
    const bare = { ...complete, node: [16, 0, 0], npm: undefined, cargo: undefined, linker: undefined };
    const missing = missingPrerequisites(bare, "apt-get");
    expect(missing.map((part) => part.what)).toEqual([
      "Node >= 18 (found 16.0.0)",
      "npm",
      "Rust >= 1.94 (found none)",
      "a C linker (cc)",
    ]);
    expect(missing.at(-1)?.install).toBe("sudo apt-get install -y build-essential");
    expect(missingPrerequisites(bare, "brew").at(-1)?.install).toBe("xcode-select --install");
  });

  it("should say rustup update where an old Rust came from rustup", () => {
    const old = { ...complete, cargo: [1, 93, 9], rustup: "/bin/rustup" };
    expect(missingPrerequisites(old, "apt-get")[0]?.install).toBe("rustup update stable");
  });

  it("should refuse musl and Windows by name", () => {
    expect(missingPrerequisites({ ...complete, libc: "musl" }, "apk")[0]?.what).toMatch(/glibc/);
    expect(missingPrerequisites({ ...complete, platform: "win32" }, undefined)[0]?.install).toMatch(/WSL/);
  });

  it("should compare versions by number, not by text", () => {
    expect(atLeast([1, 100], [1, 94])).toBe(true);
    expect(atLeast([1], [1, 94])).toBe(false);
    expect(atLeast([2], [1, 94])).toBe(true);
    expect(atLeast(undefined, [1])).toBe(false);
    expect(parseVersion('openjdk version "17.0.15" 2025-04-15')).toEqual([17, 0, 15]);
    expect(parseVersion("none")).toBeUndefined();
  });

  it("should run Kafka only with Java >= 17 and a source of jars", () => {
    const java = { javaVersion: [17, 0, 1], maven: undefined, repository: undefined, jarsCached: false };
    expect(judgeKafkaRuntime(java).usable).toBe(false);
    expect(judgeKafkaRuntime({ ...java, maven: "/usr/bin/mvn" }).usable).toBe(true);
    expect(judgeKafkaRuntime({ ...java, repository: "https://repository.example" }).usable).toBe(true);
    expect(judgeKafkaRuntime({ ...java, jarsCached: true }).usable).toBe(true);
    expect(judgeKafkaRuntime({ ...java, jarsCached: true, javaVersion: [11] }).why).toMatch(
      /Java >= 17 was not found/,
    );
  });
});

describe("install stamp", () => {
  it("should change with the lockfile and the platform", () => {
    const stamp = installStamp("a", "linux", "x64");
    expect(installStamp("a", "linux", "x64")).toBe(stamp);
    expect(installStamp("b", "linux", "x64")).not.toBe(stamp);
    expect(installStamp("a", "linux", "arm64")).not.toBe(stamp);
  });

  it("should compare the host's Node with engines", () => {
    expect(satisfiesEngines("20.20.2", ">=24")).toBe(false);
    expect(satisfiesEngines("24.0.0", ">=24")).toBe(true);
    expect(satisfiesEngines("26.10.0", ">=24")).toBe(true);
  });
});

describe("lockfile", () => {
  const root = join(import.meta.dirname, "../../..");
  const text = readFileSync(join(root, "package-lock.json"), "utf8");
  const { packages } = JSON.parse(text) as {
    packages: Record<
      string,
      { integrity?: string; link?: boolean; resolved?: string; optionalDependencies?: object }
    >;
  };

  it("should hold every platform's optional package, because npm ci refuses it otherwise", () => {
    const locked = new Set(Object.keys(packages).map((path) => path.split("node_modules/").at(-1)));
    const absent = Object.values(packages)
      .flatMap((each) => Object.keys(each.optionalDependencies ?? {}))
      .filter((name) => !locked.has(name));
    expect(absent).toEqual([]);
  });

  it("should lock every package by digest and name no host", () => {
    const external = Object.entries(packages).filter(
      ([path, each]) => path.includes("node_modules/") && !each.link,
    );
    expect(external.filter(([, each]) => !each.integrity || each.resolved)).toEqual([]);
    expect(external.length).toBeGreaterThan(100);
  });

  it("should pin the dependencies of this package exactly", () => {
    const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    const ranges = { ...own.dependencies, ...own.devDependencies, ...own.optionalDependencies };
    for (const version of Object.values(ranges)) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  });
});

describe("ports", () => {
  const free = (taken: number[]) => async (port: number) => !taken.includes(port);

  it("should take the default port when it is free", async () => {
    expect(await choosePort({ name: "x", preferred: 9092, from: 9093, free: free([]) })).toEqual({
      port: 9092,
      moved: false,
    });
  });

  it("should move to the next free port when the default is taken", async () => {
    const chosen = await choosePort({ name: "x", preferred: 6379, from: 16_379, free: free([6379, 16_379]) });
    expect(chosen).toEqual({ port: 16_380, moved: true });
  });

  it("should end with exit code 4 when a given port is taken", async () => {
    const call = choosePort({ name: "x", given: 7000, preferred: 1, free: free([7000]) });
    await expect(call).rejects.toMatchObject({ exitCode: 4 });
    const promised = choosePort({ name: "x", given: 7000, preferred: 1, taken: [7000], free: free([]) });
    await expect(promised).rejects.toMatchObject({ exitCode: 4 });
  });

  it("should see a real listener", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    expect(await isFree(port)).toBe(false);
    await new Promise((resolve) => server.close(resolve));
    expect(await isFree(port)).toBe(true);
  });

  it("should hand out distinct ports that leave room for an offset", async () => {
    const ports = await freePorts(5, 10_000);
    expect(new Set(ports).size).toBe(5);
    for (const port of ports) expect(port + 10_000).toBeLessThanOrEqual(65_535);
  });
});

describe("processes", () => {
  it("should read the start time behind a name with brackets and spaces", () => {
    const fields = ["S", ...Array.from({ length: 30 }, (_, index) => `${index + 4}`)];
    expect(parseStat(`42 (a) b (c)) ${fields.join(" ")}`)).toBe("22");
    expect(parseStat(`42 (x) ${["Z", ...fields.slice(1)].join(" ")}`)).toBeUndefined();
  });

  it("should take a reused pid for another process", () => {
    const record = { pid: process.pid, startTime: startTimeOf(process.pid) };
    expect(isSameProcess(record)).toBe(true);
    expect(isSameProcess({ ...record, startTime: "1" })).toBe(false);
    expect(isSameProcess({ pid: 1, startTime: startTimeOf(1) })).toBe(false);
    expect(isSameProcess(undefined)).toBe(false);
  });

  const sleeper = (name: string, script = "setInterval(() => {}, 1000)") =>
    startProcess({
      name,
      command: process.execPath,
      args: ["-e", script],
      logFile: join(folder, `${name}.log`),
      pidFile: join(folder, "pids", `${name}.json`),
      details: { port: 7 },
    });

  it("should find a running leftover again and stop it", async () => {
    const child = await sleeper("left");
    const found = leftover("left", child.pidFile, child.logFile);
    expect(found?.record).toMatchObject({ pid: child.pid, port: 7 });
    expect(await found?.stop()).toBe(true);
    // Gone as a process; that it was our child is told to us a little later.
    await expect.poll(() => child.alive()).toBe(false);
    expect(leftover("left", child.pidFile, child.logFile)).toBeUndefined();
  });

  it("should kill what does not heed SIGTERM", async () => {
    const child = await sleeper(
      "stubborn",
      "process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('armed')",
    );
    await waitReady(
      child,
      async () => {
        if (!readFileSync(child.logFile, "utf8").includes("armed")) throw new Error("not armed yet");
      },
      20_000,
    );
    expect(await child.stop(100)).toBe(false);
    expect(child.alive()).toBe(false);
  });

  it("should report the log of a child that ends while starting", async () => {
    const child = await sleeper("broken", "console.error('no such disk'); process.exit(3)");
    const waiting = waitReady(child, () => Promise.reject(new Error("refused")), 20_000);
    await expect(waiting).rejects.toThrow(/broken: ended while starting\nno such disk/);
  });

  it("should say which program could not be started", async () => {
    const start = startProcess({
      name: "ghost",
      command: join(folder, "absent"),
      args: [],
      logFile: join(folder, "g.log"),
      pidFile: join(folder, "g.json"),
    });
    await expect(start).rejects.toThrow(/ghost could not be started/);
  });

  it("should give the lock to one holder and take it from a dead one", () => {
    const lock = join(folder, "run", "lock");
    const release = takeLock(lock);
    expect(() => takeLock(lock)).toThrow(expect.objectContaining({ exitCode: 4 }));
    release();
    const dead = spawn(process.execPath, ["-e", ""]);
    writeJson(lock, { pid: dead.pid, startTime: "1" });
    takeLock(lock)();
    writeFileSync(lock, "{torn");
    takeLock(lock)();
    expect(readdirSync(join(folder, "run"))).toEqual([]);
  });

  it("should not take the lock of another away at the end", () => {
    const lock = join(folder, "run", "lock");
    const release = takeLock(lock);
    writeJson(lock, { pid: process.pid, startTime: "of another" });
    release();
    expect(readJson(lock)).toMatchObject({ startTime: "of another" });
  });

  it("should have one winner where many find a dead holder's lock at the same moment", async () => {
    const lock = join(folder, "run", "lock");
    const module = new URL("./processes.mjs", import.meta.url);
    const script = `
      import { existsSync } from "node:fs";
      import { takeLock } from ${JSON.stringify(module.href)};
      console.log("here");
      while (!existsSync(process.argv[1]));
      try { takeLock(process.argv[2]); console.log("won"); } catch (error) { console.log("lost " + error.exitCode); }
      process.stdin.resume();
    `;
    const go = join(folder, "go");
    const args = ["--input-type=module", "-e", script, go, lock];
    const contenders = Array.from({ length: 4 }, () => {
      const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
      const said: string[] = [];
      createInterface({ input: child.stdout }).on("line", (line) => said.push(line));
      return { child, said };
    });
    const all = async (lines: number) =>
      await expect
        .poll(() => contenders.every(({ said }) => said.length === lines), { timeout: 30_000 })
        .toBe(true);
    try {
      await all(1);
      writeJson(lock, { pid: process.pid, startTime: "1" });
      writeFileSync(go, "");
      await all(2);
      const ends = contenders.map(({ said }) => said[1]).sort();
      expect(ends).toEqual(["lost 4", "lost 4", "lost 4", "won"]);
    } finally {
      for (const { child } of contenders) child.kill();
    }
  });

  it("should stop in order at a Ctrl-C that reaches the launcher and its child", async () => {
    const urlOf = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
    const child = join(folder, "child.mts");
    writeFileSync(
      child,
      `import { Shutdown } from ${urlOf("../../common/process/shutdown.ts")};
       const shutdown = new Shutdown({ info() {}, error() {} } as never);
       shutdown.add("flush", async () => {
         await new Promise((resolve) => setTimeout(resolve, 300));
         console.log("flushed");
       });
       shutdown.onSignals();
       setInterval(() => {}, 1_000);
       console.log("ready");`,
    );
    const parent = `
      import { runNode } from ${urlOf("./install.mjs")};
      process.exit(await runNode(process.execPath, [${JSON.stringify(child)}]));
    `;
    const launcher = spawn(process.execPath, ["--input-type=module", "-e", parent], {
      detached: true,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const said: string[] = [];
    createInterface({ input: launcher.stdout }).on("line", (line) => said.push(line));
    const exited = new Promise((resolve) => launcher.once("close", (code) => resolve(code)));
    await expect.poll(() => said, { timeout: 30_000 }).toEqual(["ready"]);
    // As a terminal does it: to every process of the group.
    process.kill(-(launcher.pid as number), "SIGINT");
    expect(await exited).toBe(0);
    expect(said).toEqual(["ready", "flushed"]);
  });
});

describe("progress", () => {
  it("should trust the expectation first and the pace later", () => {
    expect(estimateSeconds(0, 200, 10, 240)).toBe(230);
    expect(estimateSeconds(100, 200, 60, 240)).toBe(60);
    expect(estimateSeconds(200, 200, 60, 240)).toBe(0);
    expect(estimateSeconds(0, 0, 1)).toBeUndefined();
    expect(formatSeconds(185)).toBe("3 min 05 s");
  });

  it("should print a line per phase and one every 15 s without a TTY", () => {
    const lines: string[] = [];
    let now = 0;
    const stream = { isTTY: false, write: (text: string) => lines.push(text) > 0 };
    const phase = new Progress(stream as never, () => now).phase("build");
    for (now = 1_000; now <= 31_000; now += 1_000) phase.update(`at ${now}`);
    phase.done("ok");
    expect(lines).toEqual(["build …\n", "build: at 15000\n", "build: at 30000\n", "build: ok (32 s)\n"]);
  });
});

describe("building the core", () => {
  it("should count what a build compiles, a repeated package once", () => {
    const tree = "vexlake-node v0.1.0 (/src/crates/node)\nserde v1.0.0\n\nserde v1.0.0 (*)\nserde v2.0.0\n";
    expect(countPackages(tree)).toBe(3);
  });

  it("should count a package once and find the artifacts", () => {
    const messages = new CargoMessages();
    const artifact = (name: string, kind: string, more: object) =>
      JSON.stringify({
        reason: "compiler-artifact",
        package_id: name,
        target: { name, kind: [kind] },
        profile: { test: false },
        filenames: [],
        ...more,
      });
    messages.accept(artifact("serde", "custom-build", {}));
    expect(messages.done.size).toBe(0);
    messages.accept(artifact("serde", "lib", {}));
    messages.accept(artifact("serde", "lib", {}));
    messages.accept(artifact("vexlake_node", "cdylib", { filenames: ["/t/libvexlake_node.so", "/t/x.d"] }));
    messages.accept(
      artifact("vexlake_node", "cdylib", { profile: { test: true }, filenames: ["/t/other.so"] }),
    );
    messages.accept(artifact("vexlake-embed", "bin", { executable: "/t/vexlake-embed" }));
    messages.accept("   Compiling serde");
    messages.accept(artifact("libc", "lib", { fresh: true }));
    expect([messages.done.size, messages.fresh]).toEqual([4, 1]);
    expect([messages.done.size, messages.addon, messages.embed]).toEqual([
      4,
      "/t/libvexlake_node.so",
      "/t/vexlake-embed",
    ]);
  });
});

describe("launchers", () => {
  it("should answer a usage error with exit code 2 and say nothing on standard output", () => {
    const script = new URL("./start.mjs", import.meta.url).pathname;
    try {
      execFileSync(process.execPath, [script, "--bogus"], { encoding: "utf8", stdio: "pipe" });
      expect.unreachable("it must fail");
    } catch (error) {
      expect(error).toMatchObject({
        status: 2,
        stdout: "",
        stderr: expect.stringContaining("unknown option --bogus"),
      });
    }
  });
});
