/**
 * Attributes as they enter the log: a JSON object as text, at most 64 KiB. They are stored as they came;
 * parsing only decides whether they may be stored, so that a client hears of it instead of a dead-letter
 * topic.
 */
import { ReplyError } from "./errors.ts";

export const ATTRIBUTES_BYTES_MAX = 65_536;

/** The same bytes, or an error that names the field and both values. Empty means: no attributes. */
export function checkAttributes(text: Buffer): Buffer {
  if (text.length > ATTRIBUTES_BYTES_MAX) {
    throw new ReplyError(
      "ERR",
      `attributes have ${text.length} bytes, at most ${ATTRIBUTES_BYTES_MAX} are possible`,
    );
  }
  if (text.length === 0) return text;
  let value: unknown;
  try {
    value = JSON.parse(text.toString());
  } catch {
    throw new ReplyError("ERR", "attributes are not JSON, expected a JSON object");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    const got = value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`;
    throw new ReplyError("ERR", `attributes are ${got}, expected a JSON object`);
  }
  return text;
}
