/**
 * The vector of a body: a JSON array of numbers, handed on as its bytes, or a base64 string of little-endian
 * float32.
 */
import type { VectorArgument } from "../core.ts";
import { ReplyError } from "../errors.ts";
import { countNumbers, recordFromText } from "../vector-text.ts";
import { parse } from "./sections.ts";

const QUOTE = 0x22;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

export interface VectorField {
  argument: VectorArgument;
  dim: number;
  format: "f32" | "json";
  /** the value of a record with this vector */
  value: Uint8Array;
}

export function readVectorField(bytes: Buffer): VectorField {
  if (bytes[0] === QUOTE) {
    const text = parse<string>(bytes);
    const floats = Buffer.from(text, "base64");
    if (!BASE64.test(text) || floats.length < 4 || floats.length % 4 !== 0) {
      throw new ReplyError("ERR", "vector is not base64 of little-endian float32");
    }
    const argument: VectorArgument = { kind: "f32", bytes: floats };
    return { argument, dim: floats.length / 4, format: "f32", value: floats };
  }
  const dim = countNumbers(bytes);
  if (dim === undefined)
    throw new ReplyError("ERR", "vector is not an array of numbers, nor base64 of float32");
  return { argument: { kind: "text", bytes }, dim, format: "json", value: recordFromText(bytes) };
}
