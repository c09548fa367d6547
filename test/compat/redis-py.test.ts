import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type QueryNode, startQueryNode } from "./node.ts";

const execute = promisify(execFile);
/** Made once and kept: a virtual environment with redis-py, 10 s on a slow machine. */
const ENVIRONMENT = fileURLToPath(new URL("../../target/compat-redis-py", import.meta.url));
const PACKAGE = "redis==8.1.0";
const CHECK = fileURLToPath(new URL("redis_py_check.py", import.meta.url));

let node: QueryNode;
let python: string;

/** VEXLAKE_TEST_REDIS_PY names a python that has redis-py; else one is made. */
async function pythonWithRedis(): Promise<string> {
  const given = process.env.VEXLAKE_TEST_REDIS_PY;
  if (given !== undefined) return given;
  const made = `${ENVIRONMENT}/bin/python`;
  if (!existsSync(`${ENVIRONMENT}/ready`)) {
    await execute("python3", ["-m", "venv", "--clear", ENVIRONMENT]);
    await execute(made, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]);
    await execute("touch", [`${ENVIRONMENT}/ready`]);
  }
  return made;
}

beforeAll(async () => {
  [node, python] = await Promise.all([startQueryNode(), pythonWithRedis()]);
});

afterAll(async () => {
  await node?.close();
});

describe("redis-py", () => {
  for (const protocol of [2, 3]) {
    it(`should understand every vector-set reply over RESP${protocol} with its own parsers`, async () => {
      const { stdout } = await execute(python, [CHECK, node.host, String(node.port), String(protocol)]);
      const seen = JSON.parse(stdout);
      // redis-py hands on what the protocol gives: integers over RESP2, booleans over RESP3.
      expect([seen.added, seen.also, seen.replaced].map(Number)).toEqual([1, 1, 0]);
      expect([seen.set, seen.removed, seen.nothing].map(Number)).toEqual([1, 1, 0]);
      expect(seen).toMatchObject({
        ping: true,
        card: 2,
        dim: 2,
        embedding: [1, 0],
        similar: ["east", "north"],
        by_element: ["north"],
        scores: { east: 1, north: 0.5 },
        attributes: { east: { side: "e" }, north: null },
        near: ["east"],
        attr: { side: "e" },
        size: 2,
      });
      expect(JSON.stringify(seen.both.east)).toMatch(/1.*side/);
    });
  }
});
