/*
 * Python environments. The tests' has the outside oracles: DuckDB and pyarrow read the lake's Parquet
 * as any tool would, redis-py speaks to our RESP port; benches have the peers that they measure.
 * Versions are pinned; an environment lives in the user's cache and its name carries a digest of
 * the list.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT, LauncherError } from "../errors.mjs";
import { execute, onPath } from "../exec.mjs";
import { cached, isCached, sha256 } from "./cache.mjs";

const ORACLES = "oracles";
const REQUIREMENTS = "duckdb==2.0.0\npyarrow==26.0.1\nredis==8.1.0\n";

export function pythonRuntime() {
  if (isCached(keyOf(ORACLES, REQUIREMENTS)) || onPath("python3"))
    return { usable: true, why: "in a virtual environment" };
  return { usable: false, why: "python3 was not found" };
}

/** The path of the oracles' `python`; made on first use. */
export async function pythonOracles() {
  return await pythonWith(ORACLES, REQUIREMENTS);
}

/** The path of the `python` of an environment with these requirements; made on first use. */
export async function pythonWith(name, requirements) {
  const folder = await cached(keyOf(name, requirements), async (into) => {
    await must("python3", ["-m", "venv", into], "is python3-venv installed?");
    const file = join(into, "requirements.txt");
    writeFileSync(file, requirements);
    const pip = ["-m", "pip", "install", "-q", "--only-binary", ":all:", "-r", file];
    await must(join(into, "bin", "python"), pip, "are the packages reachable with pip's settings?");
  });
  return join(folder, "bin", "python");
}

function keyOf(name, requirements) {
  return `python-${name}-${sha256(requirements).slice(0, 12)}`;
}

async function must(command, args, hint) {
  const result = await execute(command, args);
  if (result.code === 0) return;
  const said = `${result.stdout}${result.stderr}`.trim().split("\n").slice(-6).join("\n");
  throw new LauncherError(
    EXIT.prerequisite,
    `${command} ${args.slice(0, 3).join(" ")} failed (${hint}):\n${said}`,
  );
}
