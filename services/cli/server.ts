/** Calls the HTTP surface of the running lake; its errors keep their code. */
import { bearer } from "../common/process/admission.ts";
import { isErrorCode, VexError } from "../common/process/error.ts";
import { formatAddress } from "../common/process/listen.ts";
import { addressOf, type Context } from "./context.ts";

/** A flush of a full memtable to a slow store, or a verify of some million records, fits. */
const CALL_MS_MAX = 600_000;

export async function serverCall(
  context: Context,
  method: "GET" | "POST",
  path: string,
  body?: unknown,
): Promise<unknown> {
  const url = `http://${formatAddress(addressOf(context, "http"))}${path}`;
  const headers: Record<string, string> = {};
  if (context.password !== undefined) headers.authorization = bearer(context.password);
  if (body !== undefined) headers["content-type"] = "application/json";
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  let response: Response;
  try {
    response = await fetch(url, { method, headers, signal: AbortSignal.timeout(CALL_MS_MAX), ...content });
  } catch (cause) {
    throw new VexError("UNREACHABLE", `${url} does not answer: ${(cause as Error).message}`, { cause });
  }
  const answer = (await response.json().catch(() => ({}))) as { code?: unknown; message?: string };
  if (response.ok) return answer;
  const code = isErrorCode(answer.code) ? answer.code : "INTERNAL";
  throw new VexError(code, answer.message ?? `${url} answered ${response.status}`);
}
