/** What every route of the API takes and answers. */
import type { CommandContext } from "../commands/command.ts";

export interface ApiRequest {
  context: CommandContext;
  /** the part of the path after the route, decoded; "" without one */
  name: string;
  query: URLSearchParams;
  body: Buffer;
}

export interface Answer {
  status: number;
  /** JSON text */
  body: string;
}

/** JSON of a value of ours; offsets and versions beyond a double become text. */
export function json(status: number, value: unknown): Answer {
  const body = JSON.stringify(value, (_, field) => (typeof field === "bigint" ? field.toString() : field));
  return { status, body };
}

/** Bytes of the core that are UTF-8 by contract. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
}
