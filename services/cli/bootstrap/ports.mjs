/*
 * Choosing TCP ports on the loopback interface.
 *
 * The rule: a default port that is taken is replaced by the next free one, and that is announced;
 * a port that the user gave and that is taken ends with exit code 4. A free port may be taken by
 * somebody else before its server binds it: the server's own error then decides.
 */
import { createServer } from "node:net";
import { EXIT, LauncherError } from "./errors.mjs";

export const HOST = "127.0.0.1";
/** How far above a default we look; beyond it something else is wrong with the machine. */
const PORT_TRIES_MAX = 100;

/** Can a server bind this port now? */
export function isFree(port, host = HOST) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * `given` (the user's) or `preferred` (a default, or the one used last time) or the next free port
 * from `from`. Answers {port, moved}: moved = another than the preferred. `taken` lists ports
 * already promised to others in this start.
 * @param {{name: string, given?: number, preferred?: number, from?: number, taken?: (number | undefined)[], free?: (port: number) => Promise<boolean>}} wish
 * @returns {Promise<{port: number, moved: boolean}>}
 */
export async function choosePort({ name, given, preferred, from = preferred, taken = [], free = isFree }) {
  if (given !== undefined) {
    if (taken.includes(given) || !(await free(given))) {
      throw new LauncherError(
        EXIT.inUse,
        `port ${given} for ${name} is in use: stop its owner or give another`,
      );
    }
    return { port: given, moved: false };
  }
  const candidates = [preferred];
  for (let i = 0; i < PORT_TRIES_MAX; i += 1) candidates.push(from + i);
  for (const port of candidates) {
    if (port <= 65_535 && !taken.includes(port) && (await free(port)))
      return { port, moved: port !== preferred };
  }
  throw new LauncherError(
    EXIT.inUse,
    `no free port for ${name} from ${from} to ${from + PORT_TRIES_MAX - 1}`,
  );
}

/**
 * `count` distinct ports that the kernel says are free. All are held open together, so that they
 * differ; `offset` also checks port + offset (SeaweedFS puts its gRPC servers there).
 */
export async function freePorts(count, offset = 0) {
  const servers = [];
  try {
    const ports = [];
    for (let tries = 0; ports.length < count && tries < count * PORT_TRIES_MAX; tries += 1) {
      const server = await listen(0);
      servers.push(server);
      const { port } = server.address();
      if (offset > 0 && (port + offset > 65_535 || !(await isFree(port + offset)))) continue;
      ports.push(port);
    }
    if (ports.length < count) throw new LauncherError(EXIT.inUse, `no ${count} free ports on ${HOST}`);
    return ports;
  } finally {
    await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  }
}

function listen(port) {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ port, host: HOST, exclusive: true }, () => resolve(server));
  });
}
