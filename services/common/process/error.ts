/**
 * The one error class of the TypeScript services.
 *
 * The first seven codes are the core's (DESIGN §9) and cross the napi border under the same names; the
 * others are found before the core is asked. A code decides three things and the message none of them:
 * whether a retry can help, which RESP reply or HTTP status a client sees, and the exit code of a start
 * that fails. `doubt` in the fields says that a write may or may not have happened.
 */
import { EXIT, type ExitCode } from "./exit.ts";

export const CORE_CODES = [
  "INVALID",
  "NOT_FOUND",
  "CONFLICT",
  "FENCED",
  "UNAVAILABLE",
  "CORRUPT",
  "INTERNAL",
] as const;
export type CoreCode = (typeof CORE_CODES)[number];
export type ErrorCode =
  | CoreCode
  | "CONFIG"
  | "PREREQUISITE"
  | "IN_USE"
  | "MISMATCH"
  | "UNREACHABLE"
  | "REFUSED"
  | "UNAUTHENTICATED"
  | "NOT_SUPPORTED";

const EXIT_OF: Record<ErrorCode, ExitCode> = {
  INVALID: EXIT.usage,
  NOT_FOUND: EXIT.checkFailed,
  CONFLICT: EXIT.checkFailed,
  FENCED: EXIT.inUse,
  UNAVAILABLE: EXIT.unreachable,
  CORRUPT: EXIT.storeRefused,
  INTERNAL: EXIT.internal,
  CONFIG: EXIT.usage,
  PREREQUISITE: EXIT.prerequisite,
  IN_USE: EXIT.inUse,
  MISMATCH: EXIT.inUse,
  UNREACHABLE: EXIT.unreachable,
  REFUSED: EXIT.storeRefused,
  // The password is configuration, like an address: VEXLAKE_PASSWORD.
  UNAUTHENTICATED: EXIT.usage,
  NOT_SUPPORTED: EXIT.usage,
};

/** Whether a word from outside (another process's answer) is one of the codes. */
export function isErrorCode(word: unknown): word is ErrorCode {
  return typeof word === "string" && Object.hasOwn(EXIT_OF, word);
}

const RETRIABLE: ReadonlySet<ErrorCode> = new Set(["CONFLICT", "UNAVAILABLE", "UNREACHABLE"]);

export interface VexErrorOptions {
  /** Default: what the code says. */
  retriable?: boolean;
  cause?: unknown;
  /** Ids and values for logs and replies; never a secret. */
  fields?: Record<string, unknown>;
}

export class VexError extends Error {
  readonly code: ErrorCode;
  readonly retriable: boolean;
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: VexErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "VexError";
    this.code = code;
    this.retriable = options.retriable ?? RETRIABLE.has(code);
    this.fields = options.fields ?? {};
  }

  get exitCode(): ExitCode {
    return EXIT_OF[this.code];
  }

  /** True when a write may have happened all the same; it must not be sent again by us. */
  get doubt(): boolean {
    return this.fields.doubt === true;
  }
}

/** A configuration that cannot be used: exit 2, and the message names the key. */
export class ConfigError extends VexError {
  constructor(message: string, options: VexErrorOptions = {}) {
    super("CONFIG", message, options);
    this.name = "ConfigError";
  }
}

/**
 * Any thrown value as a VexError. Errors of the core are plain Errors with `code` and `fields`; what
 * carries no known code is a defect and becomes INTERNAL.
 */
export function vexErrorFrom(thrown: unknown): VexError {
  if (thrown instanceof VexError) return thrown;
  if (!(thrown instanceof Error)) return new VexError("INTERNAL", String(thrown));
  const { code, fields } = thrown as { code?: unknown; fields?: unknown };
  if (typeof code === "string" && (CORE_CODES as readonly string[]).includes(code)) {
    const known = typeof fields === "object" && fields !== null ? (fields as Record<string, unknown>) : {};
    // The core's INVALID for a store that says no: nothing the caller sent is wrong.
    const shown = known.refused === true ? "REFUSED" : (code as CoreCode);
    return new VexError(shown, thrown.message, { cause: thrown, fields: known });
  }
  return new VexError("INTERNAL", thrown.message, { cause: thrown });
}
