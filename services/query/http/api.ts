/**
 * /api/v1: collections, records, search and snapshots as JSON.
 *
 * One table of routes; each answers `Answer` (a status and a body that is JSON text already, because vectors
 * and attributes are put into it as the text they are). Failures answer {"code", "message"} with the status
 * of the one error table. The same core, writer and router as RESP are used, so both surfaces agree on what
 * is visible.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { readBody, requestUrl } from "../../common/process/http.ts";
import type { CommandContext } from "../commands/command.ts";
import { asReplyError, ReplyError } from "../errors.ts";
import type { Answer, ApiRequest } from "./answer.ts";
import { createCollection, dropCollection, listCollections, oneCollection } from "./collections-api.ts";
import { deleteRecord, getRecords, patchRecord, putRecord } from "./records-api.ts";
import { search } from "./search-api.ts";
import { pinSnapshot, snapshots, unpinSnapshot } from "./snapshots-api.ts";

export const API_PATH = "/api/v1";
/** A vector of 65,536 dimensions with 24 characters a number is 1.5 MiB, attributes add 64 KiB. */
export const BODY_BYTES_MAX = 8 * 1024 * 1024;

/** Status → code of common/process/error.ts; 202 is a write that is in the log and not visible yet. */
const CODES = new Map<number, string>([
  [202, "NOT_YET_VISIBLE"],
  [403, "FENCED"],
  [404, "NOT_FOUND"],
  [409, "CONFLICT"],
  [500, "INTERNAL"],
  [501, "NOT_SUPPORTED"],
  [503, "UNAVAILABLE"],
]);

type Route = (request: ApiRequest) => Promise<Answer>;

const ROUTES = new Map<string, Route>([
  ["GET collections", listCollections],
  ["POST collections", createCollection],
  ["GET collections/", oneCollection],
  ["DELETE collections/", dropCollection],
  ["GET records", getRecords],
  ["PUT records", putRecord],
  ["POST records", putRecord],
  ["PATCH records", patchRecord],
  ["DELETE records", deleteRecord],
  ["POST search", search],
  ["GET snapshots", snapshots],
  ["POST snapshots", pinSnapshot],
  ["DELETE snapshots", unpinSnapshot],
]);

export function apiHandler(
  context: CommandContext,
): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    void answer(context, request)
      .catch((error: unknown) => failed(error))
      .then((found) => send(response, found));
  };
}

async function answer(context: CommandContext, request: IncomingMessage): Promise<Answer> {
  const url = requestUrl(request);
  const [resource = "", ...rest] = url.pathname.slice(API_PATH.length + 1).split("/");
  const name = decode(rest.join("/"));
  const path = name === "" ? resource : `${resource}/`;
  const route = ROUTES.get(`${request.method} ${path}`);
  if (route === undefined) throw noRoute(request.method ?? "", path, url.pathname);
  if (!context.collections.opened) throw new ReplyError("LOADING", "VexLake is opening the lake");
  const body = await readBody(request, BODY_BYTES_MAX);
  return await route({ context, name, query: url.searchParams, body });
}

function noRoute(method: string, path: string, pathname: string): ReplyError {
  const methods = [...ROUTES.keys()]
    .filter((route) => route.endsWith(` ${path}`))
    .map((route) => route.split(" ")[0]);
  if (methods.length === 0) return new ReplyError("ERR", `nothing at ${pathname}`, 404);
  return new ReplyError("ERR", `${method} is not possible at ${pathname}, ${methods.join(" and ")} are`, 405);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ReplyError("ERR", `path ${text} is not percent-encoded UTF-8`);
  }
}

function failed(thrown: unknown): Answer {
  const { message, status } = asReplyError(thrown);
  return { status, body: JSON.stringify({ code: CODES.get(status) ?? "INVALID", message }) };
}

function send(response: ServerResponse, { status, body }: Answer): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}
