/**
 * The logger factory: pino, JSON lines on stderr. stdout belongs to the one `ready …` line (DESIGN §11).
 *
 * Loggers are arguments, never imports of a singleton. Secrets are censored by key name here, once,
 * because a configuration or an error's fields may end up in any line.
 */
import pino from "pino";

export type Logger = pino.Logger;
export const LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LEVELS)[number];

export interface LoggerOptions {
  level?: LogLevel;
  role: string;
  instance?: string;
  /** Where lines go; tests pass their own. */
  destination?: pino.DestinationStream;
}

const SECRET_KEYS = ["accessKey", "secretKey", "sessionToken", "secret_key", "session_token", "password"];

export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      level: options.level ?? "info",
      base: {
        role: options.role,
        ...(options.instance === undefined ? {} : { instance: options.instance }),
      },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err },
      redact: { paths: SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`]), censor: "***" },
    },
    options.destination ?? pino.destination({ dest: 2, sync: true }),
  );
}

/** For tests and tools that want no lines. */
export function silentLogger(): Logger {
  return pino({ level: "silent" });
}
