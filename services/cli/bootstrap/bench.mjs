/*
 * `npm run bench -- <name> [options]`: the same bootstrap as `npm start`, then bench/main.ts under
 * the pinned Node with the optimised core.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { buildAddon } from "./addon.mjs";
import { EXIT, LauncherError, main } from "./errors.mjs";
import { install, runNode, runtimeEnv, runtimeNode } from "./install.mjs";
import { ROOT } from "./paths.mjs";
import { requirePrerequisites } from "./prerequisites.mjs";
import { Progress } from "./progress.mjs";

await main(async () => {
  const script = join(ROOT, "bench", "main.ts");
  if (!existsSync(script)) throw new LauncherError(EXIT.internal, "bench/main.ts is missing");
  const progress = new Progress();
  await requirePrerequisites(ROOT);
  await install(progress);
  const { addon, embed } = await buildAddon({ profile: "fast", progress });
  const env = { ...runtimeEnv(), VEXLAKE_CORE: addon, VEXLAKE_EMBED: embed };
  return await runNode(runtimeNode(), [script, ...process.argv.slice(2)], env);
});
