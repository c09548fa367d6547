/**
 * Sockets that have been told the last word: replies written, FIN sent, and the client has not hung up yet.
 *
 * 1. The last words and FIN are sent. Reading goes on, into nothing: bytes that nobody reads would hide the
 *    client's own end for ever, and would turn our FIN into a reset that eats the last words.
 * 2. The client hangs up, and the socket is gone. One that does not has FAREWELL_MS.
 *
 * They are no clients any more: they count to no limit of clients and are in no list, so their own number is
 * bounded here. Ending the server ends them at once.
 */
import type { Socket } from "node:net";

/** At most 256 KiB are unwritten when a connection ends (connection.ts): 50 KiB/s is fast enough. */
export const FAREWELL_MS = 5_000;
/** A tenth of the most clients: a flood of refused ones must not take the file descriptors of those served. */
export const LEAVING_MAX = 1_000;

export class Farewells {
  readonly #leaving = new Map<Socket, NodeJS.Timeout>();
  readonly #ms: number;

  constructor(ms: number = FAREWELL_MS) {
    this.#ms = ms;
  }

  get size(): number {
    return this.#leaving.size;
  }

  /** Ends a socket that has a listener for its errors. */
  say(socket: Socket, lastWords = ""): void {
    if (socket.destroyed || this.#leaving.size >= LEAVING_MAX) return void socket.destroy();
    const timer = setTimeout(() => socket.destroy(), this.#ms);
    this.#leaving.set(socket, timer);
    socket.once("close", () => {
      clearTimeout(timer);
      this.#leaving.delete(socket);
    });
    socket.end(lastWords);
    socket.resume();
  }

  close(): void {
    for (const socket of this.#leaving.keys()) socket.destroy();
  }
}
