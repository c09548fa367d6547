/**
 * Listening on a TCP port, for HTTP and RESP alike.
 *
 * A taken port is IN_USE (exit 4) when a person chose it, else the next free one of PORTS_TRIED is taken and
 * the caller announces it (DESIGN §11). Every other refusal (a port below 1024 without the right, an address
 * this machine does not have) is a configuration that cannot be used: CONFIG, exit 2.
 */
import type { AddressInfo, ListenOptions, Server } from "node:net";
import { ConfigError, VexError } from "./error.ts";

/** A default port and the 20 above it: three roles of several lakes on one machine. */
export const PORTS_TRIED = 20;

export interface ListenAddress {
  host: string;
  port: number;
}

/** "host:port" or "[v6]:port"; port 0 takes any free one. */
export function parseAddress(text: string): ListenAddress {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) throw new VexError("CONFIG", `address "${text}" is not host:port`);
  return { host: (match[1] ?? match[2]) as string, port };
}

/** As `parseAddress` reads it back and a URL takes it: an IPv6 host stands in brackets. */
export function formatAddress({ host, port }: ListenAddress): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Listens and answers where; `given` says that a person chose the port. */
export async function listenOn(
  server: Server,
  { host, port: first }: ListenAddress,
  given: boolean,
  options: Pick<ListenOptions, "backlog"> = {},
): Promise<ListenAddress> {
  const last = given || first === 0 ? first : Math.min(65_535, first + PORTS_TRIED);
  for (let port = first; ; port++) {
    try {
      await listen(server, { ...options, host, port });
      return { host, port: (server.address() as AddressInfo).port };
    } catch (cause) {
      const fields = { host, port };
      if ((cause as NodeJS.ErrnoException).code !== "EADDRINUSE") {
        const where = formatAddress(fields);
        throw new ConfigError(`cannot listen on ${where}: ${(cause as Error).message}`, { cause, fields });
      }
      if (port >= last) {
        const message = `port ${port} on ${host} is taken; choose another`;
        throw new VexError("IN_USE", message, { cause, fields });
      }
    }
  }
}

function listen(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: Error): void => reject(error);
    server.once("error", refuse);
    server.listen(options, () => {
      server.off("error", refuse);
      resolve();
    });
  });
}
