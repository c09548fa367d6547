/**
 * The vector of a VADD or VSIM: `FP32 blob` or `VALUES n x1 … xn`, as bytes and spans; numbers are left to
 * the engine.
 */
import { DIMENSION_MAX } from "../collections.ts";
import type { VectorArgument } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Arguments } from "./arguments.ts";

export interface ReadVector {
  input: { kind: "f32"; bytes: Uint8Array } | Extract<VectorArgument, { kind: "values" }>;
  dim: number;
  /** index of the argument after the vector */
  next: number;
}

/** Reads the vector that starts at argument `at`. */
export function readVector(args: Arguments, at: number): ReadVector {
  const format = args.word(at);
  if (format === "FP32" && at + 1 < args.count) {
    const bytes = args.bytes(at + 1);
    if (bytes.length < 4 || bytes.length % 4 !== 0) throw invalid();
    return { input: { kind: "f32", bytes }, dim: bytes.length / 4, next: at + 2 };
  }
  if (format !== "VALUES") throw invalid();
  const dim = args.integer(at + 1);
  if (dim === undefined || dim < 1 || at + 2 + dim > args.count) throw invalid();
  if (dim > DIMENSION_MAX) {
    throw new ReplyError("ERR", `vector has ${dim} dimensions, at most ${DIMENSION_MAX} are possible`);
  }
  const { frame, spans } = args.request;
  const pairs = Uint32Array.from(spans.slice(2 * (at + 2), 2 * (at + 2 + dim)));
  return { input: { kind: "values", frame, spans: pairs }, dim, next: at + 2 + dim };
}

export function invalid(): ReplyError {
  return new ReplyError("ERR", "invalid vector specification");
}

/** Redis's text, with both values. */
export function checkDimensions(got: number, expected: number): void {
  if (got === expected) return;
  throw new ReplyError("ERR", `Vector dimension mismatch - got ${got} but set has ${expected}`);
}
