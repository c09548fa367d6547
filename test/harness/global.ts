/*
 * vitest's global setup: one resolver for the whole run, behind a small HTTP endpoint on the
 * loopback interface, because suites run in worker processes. A service starts when the first
 * suite asks for it, so a run of unit tests starts none. At the end everything is stopped and the
 * table "service → how it was provided → suites" is printed (or left to `npm test`, which asks
 * for it in a file by VEXLAKE_TEST_TABLE).
 */
import { existsSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestProject } from "vitest/node";
import { addonPath } from "../../services/cli/bootstrap/addon.mjs";
import { Resolver, SERVICE_NAMES, type ServiceName } from "./resolve.ts";
import { formatTable, type TableRow } from "./table.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** The endpoint of the run's resolver. */
    harness: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  // A run of `npx vitest` without the launcher tests the addon of the last development build.
  const addon = addonPath("dev");
  if (!process.env.VEXLAKE_CORE && existsSync(addon)) process.env.VEXLAKE_CORE = addon;

  const resolver = new Resolver();
  const rows = new Map<ServiceName, TableRow>();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url ?? "/", "http://harness");
    const name = SERVICE_NAMES.find((each) => `/${each}` === url.pathname);
    if (!name) {
      response.writeHead(404).end();
      return;
    }
    const provided = await resolver.resolve(name);
    const row = rows.get(name) ?? { service: name, how: provided.how, run: 0, skipped: 0 };
    if (provided.address === undefined) row.skipped += 1;
    else row.run += 1;
    rows.set(name, row);
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(provided));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  project.provide("harness", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);

  return async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await resolver.close();
    const used = [...rows.values()];
    const { VEXLAKE_TEST_TABLE: file } = process.env;
    if (file) writeFileSync(file, JSON.stringify(used));
    else if (used.length > 0) process.stderr.write(`\n${formatTable(used)}\n`);
  };
}
