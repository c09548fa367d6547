/**
 * The socket under kafkajs: reads into one buffer that is used again, and hands over whole responses.
 *
 * Node gives every read of a plain socket a new 64 KiB buffer, and kafkajs joins those of a response
 * afterwards, twice: for a fetch of 8 MiB that is 128 buffers for the garbage collector and two copies
 * from memory that has left the caches. Every Kafka response begins with its length, so here each read
 * is copied while it is still in the cache to its place in a buffer of exactly that length, and kafkajs'
 * connections get it as the answer that it is.
 *
 * TLS sockets cannot read into a given buffer; they stay kafkajs' own kind.
 */
import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ISocketFactory } from "kafkajs";
import { VexError } from "../../process/error.ts";
import { type Connection, connections } from "./internals.ts";

/** What one read takes at most: a quarter of the socket buffer that Linux grows to, well inside L2. */
const READ_BYTES = 256 * 1024;
/** A fetch is 8 MiB and one batch; batches are bounded by a broker's message.max.bytes, mostly 1 MiB. */
const RESPONSE_BYTES_MAX = 512 * 1024 * 1024;
const LENGTH_BYTES = 4;
const CORRELATION_BYTES = 4;
const KEEP_ALIVE_MS = 60_000;

const wholeSockets = new WeakSet<Socket>();

export const openSocket: ISocketFactory = ({ host, port, ssl, onConnect }) => {
  if (ssl)
    return connectTls({ host, port, servername: host, ...ssl }, onConnect).setKeepAlive(true, KEEP_ALIVE_MS);
  const responses = new Responses((response) => socket.emit("data", response));
  const onread = {
    buffer: Buffer.allocUnsafeSlow(READ_BYTES),
    callback: (length: number, bytes: Uint8Array): boolean => {
      try {
        responses.push(bytes.subarray(0, length));
        return true;
      } catch (error) {
        socket.destroy(error as Error);
        return false;
      }
    },
  };
  const socket = connect({ host, port, onread }, onConnect);
  wholeSockets.add(socket);
  return socket.setKeepAlive(true, KEEP_ALIVE_MS);
};

const joinAndProcess = connections.processData;
connections.processData = function processData(this: Connection, bytes: Buffer): void {
  // While it authenticates, kafkajs has its own idea of what a response is.
  if (this.authHandlers !== null || !wholeSockets.has(this.socket)) {
    joinAndProcess.call(this, bytes);
    return;
  }
  const size = bytes.length - LENGTH_BYTES;
  const correlationId = bytes.readInt32BE(LENGTH_BYTES);
  const payload = bytes.subarray(LENGTH_BYTES + CORRELATION_BYTES);
  this.requestQueue.fulfillRequest({ size, correlationId, payload });
};

/** Cuts a stream of bytes into responses, their length in front. */
export class Responses {
  readonly #emit: (response: Buffer) => void;
  /** The response being filled: at first only its length. */
  #response = Buffer.alloc(LENGTH_BYTES);
  #filled = 0;

  constructor(emit: (response: Buffer) => void) {
    this.#emit = emit;
  }

  /** Takes the next bytes and keeps none of them. Throws where they cannot be a broker's. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + this.#response.length - this.#filled);
      this.#response.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === this.#response.length) this.#complete();
    }
  }

  #complete(): void {
    const response = this.#response;
    const bytes = LENGTH_BYTES + response.readInt32BE(0);
    if (bytes === response.length) {
      this.#response = Buffer.alloc(LENGTH_BYTES);
      this.#filled = 0;
      this.#emit(response);
      return;
    }
    if (bytes < LENGTH_BYTES || bytes > RESPONSE_BYTES_MAX) {
      const message = `a response of ${bytes} bytes, at most ${RESPONSE_BYTES_MAX}: is this the port of a Kafka broker?`;
      throw new VexError("UNAVAILABLE", message);
    }
    this.#response = Buffer.allocUnsafeSlow(bytes);
    this.#response.set(response);
  }
}
