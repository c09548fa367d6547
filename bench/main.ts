/** `npm run bench -- <name>`: runs one benchmark; each prints a report and writes it to bench/out/. */
import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { EXIT } from "../services/common/process/exit.ts";
import { describeMachine } from "./machine.ts";

export interface Bench {
  help: string;
  run(args: string[]): Promise<Record<string, unknown>>;
}

const BENCHES: Record<string, () => Promise<Bench>> = {
  cold: () => import("./cold.ts"),
  core: () => import("./core.ts"),
  ingest: () => import("./ingest.ts"),
  live: () => import("./live.ts"),
  search: () => import("./search.ts"),
};

const [name, ...args] = process.argv.slice(2);
const load = name === undefined ? undefined : BENCHES[name];
if (load === undefined) {
  process.stderr.write(`usage: npm run bench -- <${Object.keys(BENCHES).join("|")}> [options]\n`);
  process.exitCode = EXIT.usage;
} else {
  const bench = await load();
  const report = { bench: name, ...describeMachine(), ...(await bench.run(args)) };
  const folder = fileURLToPath(new URL("out/", import.meta.url));
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}.json`, `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
}
