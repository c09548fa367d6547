/**
 * How failures reach a client. One table maps the codes of errors (DESIGN §9, §11) to the word that starts a
 * RESP error and to an HTTP status; nothing else in this folder chooses either.
 */
import { type ErrorCode, vexErrorFrom } from "../common/process/error.ts";

/** What a client is told: `code` is the first word of a RESP error. */
export class ReplyError extends Error {
  override readonly name = "ReplyError";
  readonly code: string;
  /** of the HTTP answer */
  readonly status: number;

  constructor(code: string, message: string, status = STATUS_OF_REPLY.get(code) ?? 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const STATUS_OF_REPLY = new Map<string, number>([
  ["TRYAGAIN", 503],
  ["LOADING", 503],
  ["READONLY", 403],
  ["NOAUTH", 401],
]);

/** Code → RESP word and HTTP status. What to do is in the word: TRYAGAIN and LOADING may be sent again. */
const TABLE = new Map<ErrorCode, { code: string; status: number }>([
  ["INVALID", { code: "ERR", status: 400 }],
  ["NOT_FOUND", { code: "ERR", status: 404 }],
  ["CORRUPT", { code: "ERR", status: 500 }],
  ["INTERNAL", { code: "ERR", status: 500 }],
  ["CONFLICT", { code: "TRYAGAIN", status: 409 }],
  ["UNAVAILABLE", { code: "TRYAGAIN", status: 503 }],
  ["UNREACHABLE", { code: "TRYAGAIN", status: 503 }],
  ["FENCED", { code: "READONLY", status: 403 }],
]);

/** Any failure as what a client is told. The message stays: it names what went wrong. */
export function asReplyError(thrown: unknown): ReplyError {
  if (thrown instanceof ReplyError) return thrown;
  const { code, message } = vexErrorFrom(thrown);
  const mapped = TABLE.get(code);
  return new ReplyError(mapped?.code ?? "ERR", message, mapped?.status ?? 500);
}

/** The failure inside a batch's answer, as an error that can be thrown. */
export function fromFailure(failure: { code: string; message: string }): ReplyError {
  return asReplyError(Object.assign(new Error(failure.message), { code: failure.code }));
}

/** Something that the surface names but this build does not do; says so instead of pretending. */
export function notThereYet(what: string): ReplyError {
  return new ReplyError("ERR", `${what} is not there yet`, 501);
}

export function wrongArity(command: string): ReplyError {
  return new ReplyError("ERR", `wrong number of arguments for '${command}' command`);
}
