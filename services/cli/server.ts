/** Calls the HTTP surface of the running lake; its errors keep their code. */
import { VexError } from "../common/process/error.ts";
import { type Context, requireRunning } from "./context.ts";

/** A flush of a full memtable to a slow store, or a verify of some million records, fits. */
const CALL_MS_MAX = 600_000;

export async function serverCall(
  context: Context,
  method: "GET" | "POST",
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { http } = requireRunning(context);
  const url = `http://${http}${path}`;
  let response: Response;
  try {
    response = await fetch(url, {
      method,
      signal: AbortSignal.timeout(CALL_MS_MAX),
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
  } catch (cause) {
    throw new VexError("UNREACHABLE", `${url} does not answer: ${(cause as Error).message}`, { cause });
  }
  const answer = (await response.json().catch(() => ({}))) as { code?: string; message?: string };
  if (response.ok) return answer;
  throw new VexError(
    (answer.code ?? "INTERNAL") as "INTERNAL",
    answer.message ?? `${url} answered ${response.status}`,
  );
}
