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
 * - Replies of an awaited group are written as the client takes them. What cannot wait so (one reply, or those
 *   of commands that answer at once) is held up to OUTPUT_BYTES_MAX; beyond it, or when a client takes nothing
 *   for SLOW_READER_MS, the connection is closed and the reason counted. One that reads slowly is not.
 * - Requests are held up to the budget of all connections (input-budget.ts).
 * - After a malformed request the replies before it are sent, then Redis's error text, then the end.
 */
import type { Socket } from "node:net";
import { Arguments } from "../commands/arguments.ts";
import type { Call, CommandContext } from "../commands/command.ts";
import { execute, type Outcome, type Prepared } from "../commands/execute.ts";
import { resolve } from "../commands/registry.ts";
import { ReplyError } from "../errors.ts";
import { Encoder } from "./encoder.ts";
import type { Farewells } from "./farewell.ts";
import type { InputBudget } from "./input-budget.ts";
import { ProtocolError, type Request, RequestParser } from "./parser.ts";
import type { Session } from "./session.ts";

/** Most neighbours that run together: 256 searches of 1,024 dimensions are 1 MiB of vectors in one call. */
export const GROUP_MAX = 256;
/**
 * Replies are sent at the latest when this much has gathered, so that a long pipeline starts to answer early.
 */
const FLUSH_BYTES = 256 * 1024;
/**
 * Most bytes that may wait for a client: the largest answer (execute.ts, 128 MiB) twice. Redis has no limit for
 * normal clients by default; a lake node protects its memory.
 */
export const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;
/** A client that takes nothing for this long while replies wait is gone or stuck. */
export const SLOW_READER_MS = 60_000;

export interface ConnectionOptions {
  socket: Socket;
  session: Session;
  context: CommandContext;
  input: InputBudget;
  farewells: Farewells;
  /** called when this is no client any more */
  onClosed: () => void;
  slowReaderMs?: number;
  outputBytesMax?: number;
}

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #parser: RequestParser;
  readonly #out = new Encoder();
  /** understood, and not part of a group yet */
  #held: Prepared[] = [];
  /** awaited */
  #running: Prepared[] = [];
  #malformed: ProtocolError | undefined;
  /** a group is awaited, or the client has to read first */
  #busy = false;
  /** no request is run and no reply written any more */
  #ended = false;
  /** of the input budget */
  #share = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    const { socket, session } = options;
    this.#parser = new RequestParser({ authenticated: () => session.authenticated });
    socket.on("data", (chunk: Buffer) => this.#received(chunk));
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      this.#ended = true;
      this.#leave();
    });
  }

  get session(): Session {
    return this.#options.session;
  }

  /** Ends the connection at once; the reason is counted. */
  close(reason: string): void {
    if (!this.#ended) this.#options.context.metrics.closed(reason);
    this.#ended = true;
    this.#options.socket.destroy();
  }

  #received(chunk: Buffer): void {
    if (this.#ended) return;
    this.#options.context.metrics.bytesIn += chunk.length;
    this.#parser.push(chunk);
    if (!this.#busy) this.#turn();
    this.#account();
  }

  /** Tells the budget what is held for this client; one request too large for it ends the connection. */
  #account(): void {
    if (this.#ended) return;
    const now = this.#parser.heldBytes + frameBytes(this.#running) + frameBytes(this.#held);
    const fits = this.#options.input.change(this.#share, now);
    this.#share = now;
    if (!fits) this.close("input-limit");
  }

  #leave(): void {
    this.#options.input.change(this.#share, 0);
    this.#share = 0;
    this.#options.onClosed();
  }

  /** Runs groups until nothing complete is left, or one has to be awaited. */
  #turn(): void {
    while (!this.#ended) {
      const group = this.#nextGroup();
      if (group.length === 0) break;
      const started = performance.now();
      const outcomes = execute(group);
      if (outcomes instanceof Promise) {
        this.#running = group;
        this.#flush();
        this.#wait(outcomes.then((settled) => this.#settleAwaited(group, settled, started)));
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
      const prepared = this.#held.shift() ?? this.#nextPrepared();
      if (prepared === undefined) break;
      if (group.length > 0 && prepared.command.kind !== (group[0] as Prepared).command.kind) {
        this.#held.unshift(prepared);
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
    const seconds = this.#settled(started);
    for (const [i, outcome] of outcomes.entries()) this.#write(group[i] as Prepared, outcome, seconds);
  }

  /** What has been answered is written as the client takes it; what was left out heads the next group. */
  async #settleAwaited(group: Prepared[], outcomes: Outcome[], started: number): Promise<void> {
    this.#held.unshift(...group.slice(outcomes.length));
    const seconds = this.#settled(started);
    for (const [i, outcome] of outcomes.entries()) {
      if (this.#ended) return;
      this.#write(group[i] as Prepared, outcome, seconds);
      if (this.#out.length >= FLUSH_BYTES) await this.#settleOutput();
    }
    await this.#settleOutput();
  }

  /** The seconds that a group took. */
  #settled(started: number): number {
    this.session.lastMs = this.#options.context.clock();
    return (performance.now() - started) / 1000;
  }

  #write({ name }: Prepared, outcome: Outcome, seconds: number): void {
    this.#out.protocol = this.session.protocol;
    if (outcome instanceof ReplyError) this.#out.error(outcome.code, outcome.message);
    else outcome(this.#out);
    const code = outcome instanceof ReplyError ? outcome.code : "OK";
    this.#options.context.metrics.command(name, seconds, code);
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
      .then(() => {
        this.#busy = false;
        this.#running = [];
        if (this.#ended) return;
        this.#turn();
        this.#account();
        if (!this.#busy && !this.#ended) socket.resume();
      })
      .catch((error) => {
        // Commands answer their own failures; what arrives here is a defect of this file.
        this.close("internal");
        throw error;
      });
  }

  /** Of an awaited group: replies go out, and a client that does not read is waited for. */
  async #settleOutput(): Promise<void> {
    if (this.#ended) return;
    this.#flush();
    if (!this.#ended && this.#options.socket.writableNeedDrain) await this.#drained();
  }

  /** Resolves when the client has taken what was written, or is gone. */
  #drained(): Promise<void> {
    const { socket, slowReaderMs } = this.#options;
    return new Promise((resolve) => {
      // Node's own timer of a socket: each byte that the client takes winds it up again, those inside of one
      // large write too.
      const stuck = (): void => this.close("slow-reader");
      socket.setTimeout(slowReaderMs ?? SLOW_READER_MS, stuck);
      const done = (): void => {
        socket.setTimeout(0, stuck);
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
    this.#leave();
    this.#options.farewells.say(this.#options.socket);
  }
}

function frameBytes(prepared: readonly Prepared[]): number {
  let bytes = 0;
  for (const { call } of prepared) bytes += call.args.request.frame.length;
  return bytes;
}
