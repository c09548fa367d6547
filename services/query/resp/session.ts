/**
 * What the server remembers of one client. Commands read and change it; the connection owns it and the
 * socket.
 */
import type { Protocol } from "./encoder.ts";

export interface Session {
  readonly id: number;
  /** "host:port" of the client and of this server, as CLIENT LIST shows them */
  readonly address: string;
  readonly localAddress: string;
  readonly createdMs: number;
  lastMs: number;
  lastCommand: string;
  db: number;
  protocol: Protocol;
  authenticated: boolean;
  name: string;
  libraryName: string;
  libraryVersion: string;
  noEvict: boolean;
  noTouch: boolean;
  /** set by QUIT: the connection ends once the replies so far are written */
  closing: boolean;
  /** asked by CLIENT LIST: bytes that the client has not read yet */
  outputBytes: () => number;
}
