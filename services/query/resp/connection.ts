/**
 * One RESP connection: bytes in → requests → groups of neighbours that run together → replies in order →
 * bytes out.
 *
 * Steps of a turn: take requests from the parser while they are of one kind (up to GROUP_MAX), run them as a
 * group, write their outcomes, go on. A group that answers at once costs no turn of the event loop; while one
 * is awaited the socket is not read, so a client that floods is slowed down by its own TCP window and others
 * are not affected.
 *
 * Invariants
 * - Replies leave in the order of the requests, each exactly one.
 * - Replies wait in memory only up to OUTPUT_BYTES_MAX; beyond it, or when a client reads nothing for
 *   SLOW_READER_MS, the connection is closed and the reason counted.
 * - After a malformed request the replies before it are sent, then Redis's error text, then the end.
 */
import type { Socket } from "node:net";
import { Arguments } from "../commands/arguments.ts";
import type { Call, CommandContext } from "../commands/command.ts";
import { execute, type Outcome, type Prepared } from "../commands/execute.ts";
import { resolve } from "../commands/registry.ts";
import { ReplyError } from "../errors.ts";
import { Encoder } from "./encoder.ts";
import { ProtocolError, type Request, RequestParser } from "./parser.ts";
import type { Session } from "./session.ts";

/** Most neighbours that run together: 256 searches of 1,024 dimensions are 1 MiB of vectors in one call. */
export const GROUP_MAX = 256;
/**
 * Replies are sent at the latest when this much has gathered, so that a long pipeline starts to answer early.
 */
const FLUSH_BYTES = 256 * 1024;
/**
 * Most bytes that may wait for a client. The largest single reply is 10,000 results with ids and attributes:
 * at 1 KiB + 4 KiB each 50 MiB. Redis has no limit for normal clients by default; a lake node protects its
 * memory.
 */
export const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;
/** A client that takes nothing for this long while replies wait is gone or stuck. */
export const SLOW_READER_MS = 60_000;

export interface ConnectionOptions {
  socket: Socket;
  session: Session;
  context: CommandContext;
  /** called once, when the socket is closed */
  onClosed: () => void;
  slowReaderMs?: number;
  outputBytesMax?: number;
}

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #parser: RequestParser;
  readonly #out = new Encoder();
  #held: Prepared | undefined;
  #malformed: ProtocolError | undefined;
  /** a group is awaited, or the client has to read first */
  #busy = false;
  #ended = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    const { socket, session } = options;
    this.#parser = new RequestParser({ authenticated: () => session.authenticated });
    socket.on("data", (chunk: Buffer) => this.#received(chunk));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#ended = true;
      options.onClosed();
    });
  }

  get session(): Session {
    return this.#options.session;
  }

  /** Ends the connection at once; the reason is counted. */
  close(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#options.context.metrics.closed(reason);
    this.#options.socket.destroy();
  }

  #received(chunk: Buffer): void {
    if (this.#ended) return;
    this.#options.context.metrics.bytesIn += chunk.length;
    this.#parser.push(chunk);
    if (!this.#busy) this.#turn();
  }

  /** Runs groups until nothing complete is left, or one has to be awaited. */
  #turn(): void {
    while (!this.#ended) {
      const group = this.#nextGroup();
      if (group.length === 0) break;
      const started = performance.now();
      const outcomes = execute(group);
      if (outcomes instanceof Promise) {
        this.#flush();
        this.#wait(outcomes.then((settled) => this.#settle(group, settled, started)));
        return;
      }
      this.#settle(group, outcomes, started);
      if (this.#out.length >= FLUSH_BYTES && !this.#flush()) return;
    }
    if (!this.#ended) this.#finishTurn();
  }

  #finishTurn(): void {
    if (this.#malformed !== undefined) {
      this.#out.error("ERR", this.#malformed.message);
      this.#end("protocol-error");
    } else if (this.session.closing) {
      this.#end("quit");
    } else {
      this.#flush();
    }
  }

  /** The next requests of one kind; plain commands stand alone. */
  #nextGroup(): Prepared[] {
    const group: Prepared[] = [];
    while (group.length < GROUP_MAX && !this.session.closing) {
      const prepared = this.#held ?? this.#nextPrepared();
      this.#held = undefined;
      if (prepared === undefined) break;
      if (group.length > 0 && prepared.command.kind !== (group[0] as Prepared).command.kind) {
        this.#held = prepared;
        break;
      }
      group.push(prepared);
      if (prepared.command.kind === "plain") break;
    }
    return group;
  }

  #nextPrepared(): Prepared | undefined {
    const request = this.#nextRequest();
    if (request === undefined) return undefined;
    const args = new Arguments(request);
    const call: Call = { args, session: this.session, context: this.#options.context };
    const resolved = resolve(call);
    if (resolved === "not-redis") {
      this.close("not-redis");
      return undefined;
    }
    this.session.lastCommand = resolved.name;
    return { ...resolved, call };
  }

  #nextRequest(): Request | undefined {
    if (this.#malformed !== undefined || this.#ended) return undefined;
    try {
      return this.#parser.next();
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#malformed = error;
      return undefined;
    }
  }

  #settle(group: Prepared[], outcomes: Outcome[], started: number): void {
    const { context } = this.#options;
    const seconds = (performance.now() - started) / 1000;
    this.session.lastMs = context.clock();
    for (const [i, outcome] of outcomes.entries()) {
      const { name } = group[i] as Prepared;
      this.#out.protocol = this.session.protocol;
      if (outcome instanceof ReplyError) this.#out.error(outcome.code, outcome.message);
      else outcome(this.#out);
      context.metrics.command(name, seconds, outcome instanceof ReplyError ? outcome.code : "OK");
      // An awaited group may answer much; what is ready leaves, and the output limit is looked at, reply by
      // reply.
      if (this.#busy && this.#out.length >= FLUSH_BYTES) this.#flush();
    }
  }

  /**
   * Hands the written replies to the socket; false when the client has to read before anything else is run.
   */
  #flush(): boolean {
    const { socket, context, outputBytesMax } = this.#options;
    if (this.#out.length === 0 || this.#ended) return !this.#ended;
    const bytes = this.#out.take();
    context.metrics.bytesOut += bytes.length;
    const room = socket.write(bytes);
    if (socket.writableLength > (outputBytesMax ?? OUTPUT_BYTES_MAX)) {
      this.close("output-limit");
      return false;
    }
    if (room || this.#busy) return true;
    this.#wait(this.#drained());
    return false;
  }

  /** Stops reading until `work` is done, then goes on with the next turn. */
  #wait(work: Promise<void>): void {
    const { socket } = this.#options;
    this.#busy = true;
    socket.pause();
    void work
      .then(() => this.#settleOutput())
      .then(() => {
        this.#busy = false;
        if (this.#ended) return;
        this.#turn();
        if (!this.#busy && !this.#ended) socket.resume();
      })
      .catch((error) => {
        // Commands answer their own failures; what arrives here is a defect of this file.
        this.close("internal");
        throw error;
      });
  }

  /** After an awaited group: its replies go out, and a client that does not read is waited for. */
  async #settleOutput(): Promise<void> {
    if (this.#ended) return;
    this.#flush();
    if (!this.#ended && this.#options.socket.writableNeedDrain) await this.#drained();
  }

  #drained(): Promise<void> {
    const { socket, slowReaderMs } = this.#options;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.close("slow-reader"), slowReaderMs ?? SLOW_READER_MS);
      const done = (): void => {
        clearTimeout(timer);
        socket.off("drain", done);
        socket.off("close", done);
        resolve();
      };
      socket.once("drain", done);
      socket.once("close", done);
    });
  }

  #end(reason: string): void {
    this.#flush();
    if (this.#ended) return;
    this.#ended = true;
    this.#options.context.metrics.closed(reason);
    this.#options.socket.end();
  }
}
