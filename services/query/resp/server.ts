/**
 * The RESP server: accepts connections up to a limit, keeps the table of sessions, closes in order.
 */
import { createServer, type Server, type Socket } from "node:net";
import { type ListenAddress, listenOn } from "../../common/process/listen.ts";
import type { CommandContext } from "../commands/command.ts";
import { Connection } from "./connection.ts";
import { Farewells } from "./farewell.ts";
import { InputBudget } from "./input-budget.ts";
import type { Session } from "./session.ts";

/** Redis's maxclients default. */
export const CLIENTS_MAX = 10_000;
/** Redis's tcp-backlog and tcp-keepalive defaults. */
const BACKLOG = 511;
const KEEP_ALIVE_MS = 300_000;

export interface RespServerOptions {
  context: Omit<CommandContext, "sessions">;
  clientsMax?: number;
  slowReaderMs?: number;
  outputBytesMax?: number;
  inputBytesMax?: number;
  farewellMs?: number;
}

export class RespServer {
  readonly #options: RespServerOptions;
  readonly #context: CommandContext;
  readonly #server: Server;
  readonly #connections = new Map<number, Connection>();
  readonly #sessions = new Map<number, Session>();
  readonly #farewells: Farewells;
  readonly #input: InputBudget;
  #lastId = 0;

  constructor(options: RespServerOptions) {
    this.#options = options;
    this.#context = { ...options.context, sessions: this.#sessions };
    this.#farewells = new Farewells(options.farewellMs);
    this.#input = new InputBudget(options.inputBytesMax);
    this.#server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS });
    this.#server.on("connection", (socket) => this.#accept(socket));
  }

  get connections(): number {
    return this.#connections.size;
  }

  /** Sockets that were told the last word and are still open. */
  get leaving(): number {
    return this.#farewells.size;
  }

  /** Bytes of requests that are held for all connections. */
  get inputBytes(): number {
    return this.#input.bytes;
  }

  /** What commands work with; HTTP uses the same. */
  get context(): CommandContext {
    return this.#context;
  }

  /** Listens; a taken port is an error when it was given, else the next free one is used. */
  async start(address: ListenAddress, given: boolean): Promise<ListenAddress> {
    return await listenOn(this.#server, address, given, { backlog: BACKLOG });
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.#connections.values()) connection.close("shutdown");
    this.#farewells.close();
    await closed;
  }

  #accept(socket: Socket): void {
    const { metrics } = this.#context;
    metrics.connectionsTotal += 1;
    if (this.#connections.size >= (this.#options.clientsMax ?? CLIENTS_MAX)) {
      metrics.closed("max-clients");
      socket.on("error", () => socket.destroy());
      this.#farewells.say(socket, "-ERR max number of clients reached\r\n");
      return;
    }
    this.#lastId += 1;
    const id = this.#lastId;
    const session = newSession(id, socket, this.#context);
    this.#sessions.set(id, session);
    this.#connections.set(
      id,
      new Connection({
        socket,
        session,
        context: this.#context,
        input: this.#input,
        farewells: this.#farewells,
        onClosed: () => {
          this.#sessions.delete(id);
          this.#connections.delete(id);
        },
        ...(this.#options.slowReaderMs === undefined ? {} : { slowReaderMs: this.#options.slowReaderMs }),
        ...(this.#options.outputBytesMax === undefined
          ? {}
          : { outputBytesMax: this.#options.outputBytesMax }),
      }),
    );
  }
}

function newSession(id: number, socket: Socket, context: CommandContext): Session {
  const now = context.clock();
  return {
    id,
    address: `${socket.remoteAddress}:${socket.remotePort}`,
    localAddress: `${socket.localAddress}:${socket.localPort}`,
    createdMs: now,
    lastMs: now,
    lastCommand: "NULL",
    db: 0,
    protocol: 2,
    authenticated: context.password === undefined,
    name: "",
    libraryName: "",
    libraryVersion: "",
    noEvict: false,
    noTouch: false,
    closing: false,
    outputBytes: () => socket.writableLength,
  };
}
