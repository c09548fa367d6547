/**
 * Who may ask this server: the one password of RESP and HTTP, and no page of another site.
 *
 * - Another site: whatever changes something (every method but GET, HEAD) is refused when a browser says that
 *   a page of another origin sent it. Without this a page that a person happens to visit could write to a
 *   lake on their machine, as a form or a `no-cors` fetch needs no preflight.
 * - Password: `Authorization: Bearer <password>` for programs; `Basic` with any user name, so that a browser
 *   can ask a person. Basic credentials are sent by the browser itself, which is why the first rule also
 *   holds where there is a password.
 */
import { timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { VexError } from "./error.ts";

/** What a client that was not let in may try, for the header WWW-Authenticate. */
export const CHALLENGE = 'Bearer realm="VexLake", Basic realm="VexLake", charset="UTF-8"';

/** Compares in a time that does not tell how much of the password was right. */
export function samePassword(expected: string, given: Uint8Array): boolean {
  const wanted = Buffer.from(expected);
  return given.length === wanted.length && timingSafeEqual(wanted, given);
}

/** The header value with which a program sends the password. Headers are bytes, which JavaScript shows as Latin-1. */
export function bearer(password: string): string {
  return `Bearer ${Buffer.from(password).toString("latin1")}`;
}

/** Throws FENCED for a browser's request from another site that could change something. */
export function refuseCrossSite({ method, headers }: IncomingMessage): void {
  if (method === "GET" || method === "HEAD") return;
  const { origin, host } = headers;
  const site = headers["sec-fetch-site"];
  const foreign = site !== undefined && site !== "same-origin" && site !== "none";
  if (foreign || (origin !== undefined && !sameHost(origin, host)))
    throw new VexError("FENCED", "a page of another site may not change this lake");
}

/** Throws UNAUTHENTICATED without the right password. */
export function requirePassword({ headers }: IncomingMessage, password: string): void {
  const [, scheme = "", given = ""] = /^(\S+) +(.*)$/.exec(headers.authorization ?? "") ?? [];
  let bytes = Buffer.alloc(0);
  if (/^bearer$/i.test(scheme)) bytes = Buffer.from(given, "latin1");
  if (/^basic$/i.test(scheme)) {
    const pair = Buffer.from(given, "base64");
    bytes = pair.subarray(pair.indexOf(":") + 1);
  }
  if (samePassword(password, bytes)) return;
  const message = "the password is missing or wrong: send it as authorization: Bearer";
  throw new VexError("UNAUTHENTICATED", message);
}

function sameHost(origin: string, host: string | undefined): boolean {
  return URL.canParse(origin) && new URL(origin).host === host;
}
