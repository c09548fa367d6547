import { spawn } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type QueryNode, startQueryNode } from "./node.ts";

let node: QueryNode;

beforeAll(async () => {
  node = await startQueryNode();
});

afterAll(async () => {
  await node?.close();
});

/** Runs a program of Debian's redis-tools; a machine without it fails by its name. */
function run(program: string, args: string[], input = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ["-h", node.host, "-p", String(node.port), ...args]);
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk;
    });
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk;
    });
    child.on("error", (cause) =>
      reject(new Error(`${program} (package redis-tools) did not start`, { cause })),
    );
    child.on("close", (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${program} ended with ${code}: ${output}`));
    });
    child.stdin.end(input);
  });
}

describe("redis-cli", () => {
  it("should run commands one by one, in both protocols", async () => {
    expect(await run("redis-cli", ["VSET", "vec:1", "[0.1, 0.2, 0.3]"])).toBe("OK\n");
    expect(await run("redis-cli", ["VGET", "vec:1"])).toBe("[0.100000, 0.200000, 0.300000]\n");
    expect(await run("redis-cli", ["-3", "VSEARCH", "[0.1, 0.2, 0.3]", "10"])).toBe("vec:1\n");
    expect(await run("redis-cli", ["-3", "--no-raw", "VADD", "docs", "VALUES", "2", "1", "0", "a"])).toBe(
      "(true)\n",
    );
    expect(await run("redis-cli", ["-3", "--no-raw", "VSIM", "docs", "ELE", "a", "WITHSCORES"])).toBe(
      '1# "a" => (double) 1\n',
    );
    expect(await run("redis-cli", ["INFO", "server"])).toContain("vexlake_version");
  });

  it("should run a script from its standard input and a mass insertion with --pipe", async () => {
    const script = "SELECT 1\nVADD s VALUES 2 1 0 a\nVADD s VALUES 2 0 1 b\nVCARD s\n";
    expect(await run("redis-cli", [], script)).toBe("OK\n1\n1\n2\n");
    const bulk = Array.from({ length: 500 }, (_, i) => `VADD bulk VALUES 2 1 ${i} e${i}\r\n`).join("");
    expect(await run("redis-cli", ["--pipe"], bulk)).toContain("errors: 0, replies: 500");
    expect(await run("redis-cli", ["VCARD", "bulk"])).toBe("500\n");
  });
});

describe("redis-benchmark", () => {
  it("should finish pipelined reads, searches and writes without an error", async () => {
    const common = ["-q", "-c", "4", "-P", "16", "-e"];
    expect(await run("redis-benchmark", [...common, "-n", "5000", "-t", "ping"])).toContain(
      "requests per second",
    );
    await run("redis-cli", ["VADD", "bench", "VALUES", "2", "1", "0", "a"]);
    const search = ["VSIM", "bench", "VALUES", "2", "1", "0.5", "COUNT", "10"];
    expect(await run("redis-benchmark", [...common, "-n", "2000", ...search])).toContain(
      "requests per second",
    );
    const write = ["-r", "1000", "VADD", "bench", "VALUES", "2", "1", "0.5", "e:__rand_int__"];
    expect(await run("redis-benchmark", [...common, "-n", "2000", ...write])).toContain(
      "requests per second",
    );
    expect(Number(await run("redis-cli", ["VCARD", "bench"]))).toBeGreaterThan(500);
  });
});
