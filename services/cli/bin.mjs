#!/usr/bin/env node
/*
 * The `vexlake` command (`npx --no vexlake …`): runs services/cli/main.ts under the pinned Node,
 * whatever Node the machine has. It installs and builds nothing: that is `npm start`'s job.
 */
import { join } from "node:path";
import { EXIT, LauncherError, main } from "./bootstrap/errors.mjs";
import { isInstalled, runNode, runtimeNode } from "./bootstrap/install.mjs";
import { ROOT } from "./bootstrap/paths.mjs";

await main(async () => {
  if (!isInstalled()) {
    throw new LauncherError(
      EXIT.prerequisite,
      "not installed, or installed from another lockfile: run `npm start` once",
    );
  }
  const script = join(ROOT, "services", "cli", "main.ts");
  const args = ["--disable-warning=TimeoutNegativeWarning", script, ...process.argv.slice(2)];
  return await runNode(runtimeNode(), args);
});
