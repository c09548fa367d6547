/*
 * `npm test`: the same bootstrap as `npm start` (prerequisites, install), then the whole test run
 * of test/harness/run.ts under the pinned Node.
 */
import { join } from "node:path";
import { EXIT, LauncherError, main } from "./errors.mjs";
import { install, runNode, runtimeNode } from "./install.mjs";
import { ROOT } from "./paths.mjs";
import { requirePrerequisites } from "./prerequisites.mjs";
import { Progress } from "./progress.mjs";

await main(async () => {
  if (process.argv.length > 2) {
    throw new LauncherError(
      EXIT.usage,
      "npm test takes no options: it runs everything. For one file: npx --no vitest run <file>",
    );
  }
  await requirePrerequisites(ROOT);
  await install(new Progress());
  return await runNode(runtimeNode(), [join(ROOT, "test", "harness", "run.ts")]);
});
