/**
 * The HTTP server that every role starts: /livez, /readyz, /metrics, and what the role mounts.
 *
 * - /livez answers 200 as long as the event loop turns. It never looks at Kafka or the store: a restart
 *   heals neither.
 * - /readyz runs the named checks, each under a deadline, and answers 200 or 503 with every result.
 * - Mounted handlers are plain `(request, response)` functions, so an express application fits as well.
 *   The longest matching prefix wins; a prefix ends at a path boundary.
 *
 * Invariant: nothing but the two probes, which an orchestrator asks without credentials, is answered before
 * admission.ts let the request in. No handler checks that again.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Registry } from "prom-client";
import { CHALLENGE, refuseCrossSite, requirePassword } from "./admission.ts";
import { VexError, vexErrorFrom } from "./error.ts";
import { type ListenAddress, listenOn } from "./listen.ts";
import type { Logger } from "./logger.ts";

/** A readiness check that hangs is a failed check; kubelets wait 1 s by default, people longer. */
export const READY_DEADLINE_MS = 900;
/** A request must arrive whole within this; a slow sender holds a socket, nothing else. */
export const REQUEST_TIMEOUT_MS = 30_000;
/** Largest body that `readBody` takes unless told otherwise: 64 Ki-dimensional JSON vector ≈ 1 MiB × 8. */
export const BODY_BYTES_MAX = 8 * 1024 * 1024;

export type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;
/** Resolves to null when ready, else to the reason. */
export type ReadyCheck = () => Promise<string | null> | string | null;

export interface HttpServerOptions {
  registry: Registry;
  logger: Logger;
  /** undefined: everybody may ask. */
  password?: string | undefined;
}

export class HttpServer {
  readonly #server: Server;
  readonly #registry: Registry;
  readonly #logger: Logger;
  readonly #password: string | undefined;
  readonly #checks = new Map<string, ReadyCheck>();
  readonly #mounts: { prefix: string; handler: Handler }[] = [];

  constructor(options: HttpServerOptions) {
    this.#registry = options.registry;
    this.#logger = options.logger;
    this.#password = options.password;
    this.#server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
      void this.#serve(request, response);
    });
  }

  /** For upgrades (WebSocket) and sockets; routing stays here. */
  get server(): Server {
    return this.#server;
  }

  addReadyCheck(name: string, check: ReadyCheck): void {
    this.#checks.set(name, check);
  }

  mount(prefix: string, handler: Handler): void {
    this.#mounts.push({ prefix, handler });
    this.#mounts.sort((a, b) => b.prefix.length - a.prefix.length);
  }

  /** Listens; `given` says that a person chose the port, so a taken one is an error. */
  async start(address: ListenAddress, given: boolean): Promise<ListenAddress> {
    return await listenOn(this.#server, address, given);
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const path = requestUrl(request).pathname;
      if (path === "/livez") return sendJson(response, 200, { live: true });
      if (path === "/readyz") return await this.#ready(response);
      refuseCrossSite(request);
      if (this.#password !== undefined) requirePassword(request, this.#password);
      if (path === "/metrics") return await this.#metrics(response);
      const mount = this.#mounts.find(({ prefix }) => under(path, prefix));
      if (!mount) return sendJson(response, 404, { code: "NOT_FOUND", message: `nothing at ${path}` });
      await mount.handler(request, response);
    } catch (error) {
      this.#fail(response, error);
    }
  }

  async #ready(response: ServerResponse): Promise<void> {
    const results = await Promise.all(
      [...this.#checks].map(async ([name, check]) => [name, await runCheck(check)] as const),
    );
    const waiting = results.filter(([, reason]) => reason !== null);
    sendJson(response, waiting.length === 0 ? 200 : 503, {
      ready: waiting.length === 0,
      checks: Object.fromEntries(results.map(([name, reason]) => [name, reason ?? "ok"])),
    });
  }

  async #metrics(response: ServerResponse): Promise<void> {
    const text = await this.#registry.metrics();
    response.writeHead(200, { "content-type": this.#registry.contentType });
    response.end(text);
  }

  #fail(response: ServerResponse, thrown: unknown): void {
    const error = vexErrorFrom(thrown);
    if (error.code === "INTERNAL") this.#logger.error({ err: thrown }, "request failed");
    if (response.headersSent) return void response.destroy();
    if (error.code === "UNAUTHENTICATED") response.setHeader("www-authenticate", CHALLENGE);
    sendJson(response, HTTP_STATUS[error.code] ?? 500, {
      code: error.code,
      message: error.message,
      fields: error.fields,
    });
  }
}

/** The HTTP column of the one error table; RESP's stands with the RESP server. */
export const HTTP_STATUS: Partial<Record<VexError["code"], number>> = {
  INVALID: 400,
  UNAUTHENTICATED: 401,
  NOT_FOUND: 404,
  CONFLICT: 409,
  FENCED: 403,
  UNAVAILABLE: 503,
  UNREACHABLE: 503,
  NOT_SUPPORTED: 501,
};

/** Path and query of a request, as a URL of this server; INVALID when it has none (`OPTIONS *`). */
export function requestUrl({ url = "/" }: IncomingMessage): URL {
  // Not `new URL(url, base)`: there `//name` would be a host, and `//` throws.
  const text = url.startsWith("/") ? `http://localhost${url}` : url;
  if (!URL.canParse(text)) throw new VexError("INVALID", "the request names no path");
  return new URL(text);
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body, (_, value) => (typeof value === "bigint" ? value.toString() : value));
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

/** The whole body; INVALID past `bytesMax`, before more of it is kept. */
export async function readBody(request: IncomingMessage, bytesMax: number = BODY_BYTES_MAX): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += (chunk as Buffer).length;
    if (bytes > bytesMax) throw new VexError("INVALID", `body is longer than ${bytesMax} bytes`);
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks, bytes);
}

function under(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false;
  return prefix.endsWith("/") || path.length === prefix.length || path[prefix.length] === "/";
}

async function runCheck(check: ReadyCheck): Promise<string | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`no answer within ${READY_DEADLINE_MS} ms`), READY_DEADLINE_MS);
  });
  try {
    return await Promise.race([Promise.resolve().then(check), late]);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
  }
}
