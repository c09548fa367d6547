/**
 * The RESP surface of the running lake, for subcommands: where it is, the password, and what ioredis's
 * failures mean. The words that start a RESP error are those of services/query/errors.ts, read backwards, so
 * that a command ends with the same exit code as one that asked over HTTP.
 */
import { Redis } from "ioredis";
import { type ErrorCode, VexError } from "../common/process/error.ts";
import { formatAddress } from "../common/process/listen.ts";
import { addressOf, type Context } from "./context.ts";

const CODE_OF_WORD: Readonly<Record<string, ErrorCode>> = {
  TRYAGAIN: "UNAVAILABLE",
  LOADING: "UNAVAILABLE",
  READONLY: "FENCED",
  NOAUTH: "UNAUTHENTICATED",
  WRONGPASS: "UNAUTHENTICATED",
};
/** ioredis's words for a command whose connection could not be made, or was lost. */
const LOST = /^(Connection is closed|Reached the max retries)/;

/** Runs `work` on so many connections, which end with it. Failures of the server keep their meaning. */
export async function withRedis<T>(
  context: Context,
  { db, connections = 1 }: { db: number; connections?: number },
  work: (redis: Redis[]) => Promise<T>,
): Promise<T> {
  const { host, port } = addressOf(context, "resp");
  const { password } = context;
  let last: Error | undefined;
  const all = Array.from({ length: connections }, () => {
    const options = { host, port, db, maxRetriesPerRequest: 1, retryStrategy: () => null };
    const redis = new Redis({ ...options, ...(password === undefined ? {} : { password }) });
    // It says why; what then fails is the command that waits.
    redis.on("error", (error: Error) => {
      last = error;
    });
    return redis;
  });
  try {
    return await work(all);
  } catch (error) {
    throw meaningOf(error as Error, formatAddress({ host, port }), last);
  } finally {
    for (const redis of all) redis.disconnect();
  }
}

function meaningOf(error: Error, where: string, last: Error | undefined): Error {
  if (error.name === "ReplyError") {
    const [, word = "", rest = ""] = /^(\S+) ?(.*)$/.exec(error.message) ?? [];
    const message = word === "NOAUTH" ? `${rest} (VEXLAKE_PASSWORD)` : rest;
    return new VexError(CODE_OF_WORD[word] ?? "INVALID", message, { cause: error });
  }
  if (!LOST.test(error.message)) return error;
  return new VexError("UNREACHABLE", `${where} does not answer: ${(last ?? error).message}`, {
    cause: error,
  });
}
