/**
 * For unit tests of this folder only: a RESP server on a free port over the fake core, and a client that
 * sends bytes and reads replies as plain values.
 */
import { connect, type Socket } from "node:net";
import { Registry } from "prom-client";
import { Collections } from "../collections.ts";
import { QueryMetrics } from "../metrics.ts";
import { RespServer, type RespServerOptions } from "../resp/server.ts";
import { Writer } from "../writer.ts";
import { FakeCore, FakeLog } from "./fake-core.ts";

export interface Harness {
  core: FakeCore;
  log: FakeLog;
  collections: Collections;
  server: RespServer;
  metrics: QueryMetrics;
  port: number;
  client(options?: { allowHalfOpen?: boolean }): Promise<TestClient>;
  close(): Promise<void>;
}

export interface HarnessOptions extends Partial<Omit<RespServerOptions, "context">> {
  password?: string;
  visibleMsMax?: number;
  /** leave the catalog unread, as while the lake is opening */
  unopened?: boolean;
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const { password, visibleMsMax, unopened, ...serverOptions } = options;
  const core = new FakeCore();
  const log = new FakeLog(core);
  const clock = (): number => Date.now();
  const collections = new Collections({
    core,
    log,
    visibility: log,
    clock,
    onFailure: () => undefined,
    onFlip: () => undefined,
  });
  const writer = new Writer({
    core,
    log,
    visibility: log,
    collections,
    ...(visibleMsMax === undefined ? {} : { visibleMsMax }),
  });
  const metrics = new QueryMetrics(new Registry(), {
    connections: () => 0,
    queuedBytes: () => 0,
    flipping: () => 0,
  });
  const server = new RespServer({
    ...serverOptions,
    context: {
      core,
      collections,
      writer,
      visibility: log,
      metrics,
      password,
      version: "0.0.0",
      startedMs: clock(),
      clock,
      settings: new Map([
        ["save", ""],
        ["appendonly", "yes"],
        ["maxclients", "10000"],
      ]),
    },
  });
  if (unopened !== true) await collections.list();
  const { port } = await server.start({ host: "127.0.0.1", port: 0 }, true);
  const clients: TestClient[] = [];
  return {
    core,
    log,
    collections,
    server,
    metrics,
    port,
    async client(options = {}) {
      const client = await TestClient.connect(port, options);
      clients.push(client);
      return client;
    },
    async close() {
      for (const client of clients) client.socket.destroy();
      await server.close();
    },
  };
}

export type Value = string | number | boolean | null | Value[] | Map<Value, Value> | Error;

export class TestClient {
  readonly socket: Socket;
  #buffer = Buffer.alloc(0);
  #waiting: (() => void)[] = [];
  ended = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#wake();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.ended = true;
      this.#wake();
    });
  }

  static connect(port: number, options: { allowHalfOpen?: boolean } = {}): Promise<TestClient> {
    return new Promise((resolve, reject) => {
      const at = { port, host: "127.0.0.1", ...options };
      const socket = connect(at, () => resolve(new TestClient(socket)));
      socket.once("error", reject);
    });
  }

  send(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  async call(...args: (string | number | Buffer)[]): Promise<Value> {
    this.send(encodeRequest(args));
    return await this.read();
  }

  async pipeline(requests: (string | number | Buffer)[][]): Promise<Value[]> {
    this.send(Buffer.concat(requests.map(encodeRequest)));
    const replies: Value[] = [];
    for (let i = 0; i < requests.length; i += 1) replies.push(await this.read());
    return replies;
  }

  /** Everything that came until the server ended the connection. */
  async untilEnd(): Promise<string> {
    while (!this.ended) await this.#more();
    return this.#buffer.toString("latin1");
  }

  /** The next reply; an error reply is a value, not thrown. */
  async read(): Promise<Value> {
    while (true) {
      const parsed = decode(this.#buffer, 0);
      if (parsed !== undefined) {
        this.#buffer = this.#buffer.subarray(parsed.next);
        return parsed.value;
      }
      if (this.ended) throw new Error(`the server ended the connection: ${this.#buffer.toString("latin1")}`);
      await this.#more();
    }
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

export function encodeRequest(args: (string | number | Buffer)[]): Buffer {
  const parts = args.map((arg) => (Buffer.isBuffer(arg) ? arg : Buffer.from(String(arg))));
  return Buffer.concat([
    Buffer.from(`*${parts.length}\r\n`),
    ...parts.flatMap((part) => [Buffer.from(`$${part.length}\r\n`), part, Buffer.from("\r\n")]),
  ]);
}

interface Decoded {
  value: Value;
  next: number;
}

function decode(buffer: Buffer, at: number): Decoded | undefined {
  const end = buffer.indexOf("\r\n", at);
  if (end === -1) return undefined;
  const line = buffer.toString("utf8", at + 1, end);
  const next = end + 2;
  switch (String.fromCharCode(buffer[at] as number)) {
    case "+":
      return { value: line, next };
    case "-":
      return { value: new Error(line), next };
    case ":":
    case ",":
      return { value: Number(line), next };
    case "#":
      return { value: line === "t", next };
    case "_":
      return { value: null, next };
    case "$":
    case "=":
      return bulk(buffer, Number(line), next);
    case "*":
    case "~":
      return items(buffer, Number(line), next);
    case "%": {
      const found = items(buffer, 2 * Number(line), next);
      if (found === undefined) return undefined;
      const flat = found.value as Value[];
      const map = new Map<Value, Value>();
      for (let i = 0; i < flat.length; i += 2) map.set(flat[i] as Value, flat[i + 1] as Value);
      return { value: map, next: found.next };
    }
    default:
      throw new Error(`unexpected reply ${JSON.stringify(buffer.toString("latin1", at, end))}`);
  }
}

function bulk(buffer: Buffer, length: number, at: number): Decoded | undefined {
  if (length === -1) return { value: null, next: at };
  if (buffer.length < at + length + 2) return undefined;
  return { value: buffer.toString("utf8", at, at + length), next: at + length + 2 };
}

function items(buffer: Buffer, count: number, at: number): Decoded | undefined {
  if (count === -1) return { value: null, next: at };
  const values: Value[] = [];
  let next = at;
  for (let i = 0; i < count; i += 1) {
    const item = decode(buffer, next);
    if (item === undefined) return undefined;
    values.push(item.value);
    next = item.next;
  }
  return { value: values, next };
}
