/**
 * Shutdown: closes what was started, in reverse order, once.
 *
 * 1. Every part registers its `close` right after it has started.
 * 2. The first SIGTERM or SIGINT (or a call of `run`) closes them last-started first, so that a part
 *    never loses what it stands on. One that throws is logged and does not keep the others open.
 * 3. Each part has a deadline; past it the next is closed all the same. A second signal exits at once, but
 *    not one that comes with the first: a terminal's Ctrl-C reaches every process of the group, and npm and
 *    our own launcher each pass on what they got.
 *
 * Exit is 0 after a signal when every part closed, also when work was pending: the log and the store
 * hold what was acknowledged (DESIGN §11).
 */

import { EXIT, type ExitCode } from "./exit.ts";
import type { Logger } from "./logger.ts";

/**
 * Of each part: one flush of a full memtable to a slow store fits. Parts close one after another, so a
 * process of several (`up`) may need more than the 30 s after which orchestrators send SIGKILL by default.
 */
export const CLOSE_DEADLINE_MS = 20_000;

/** Copies of one keystroke arrive within milliseconds, on a full machine later; a person's second one does not. */
export const SAME_STOP_MS = 1_000;

interface Part {
  name: string;
  close: () => Promise<void> | void;
}

export class Shutdown {
  #parts: Part[] = [];
  #running: Promise<ExitCode> | null = null;
  readonly #logger: Logger;
  readonly #deadlineMs: number;
  readonly #clock: () => number;

  constructor(logger: Logger, options: { deadlineMs?: number; clock?: () => number } = {}) {
    this.#logger = logger;
    this.#deadlineMs = options.deadlineMs ?? CLOSE_DEADLINE_MS;
    this.#clock = options.clock ?? (() => performance.now());
  }

  /** Registers a started part; parts close in the reverse of this order. */
  add(name: string, close: () => Promise<void> | void): void {
    this.#parts.push({ name, close });
  }

  get closing(): boolean {
    return this.#running !== null;
  }

  /** Closes everything once; later calls get the same promise. */
  run(reason: string): Promise<ExitCode> {
    this.#running ??= this.#closeAll(reason);
    return this.#running;
  }

  /** Closes on SIGTERM and SIGINT, then calls `exit`. Returns the function that takes the handlers off. */
  onSignals(exit: (code: ExitCode | number) => void = (code) => process.exit(code)): () => void {
    let firstMs: number | undefined;
    const handle = (signal: NodeJS.Signals) => {
      const now = this.#clock();
      if (firstMs !== undefined && now - firstMs < SAME_STOP_MS) return;
      // 128 + signal number is what a shell reports for a process that the signal ended.
      if (firstMs !== undefined) return exit(signal === "SIGINT" ? 130 : 143);
      firstMs = now;
      void this.run(signal).then(exit);
    };
    process.on("SIGTERM", handle);
    process.on("SIGINT", handle);
    return () => {
      process.off("SIGTERM", handle);
      process.off("SIGINT", handle);
    };
  }

  async #closeAll(reason: string): Promise<ExitCode> {
    this.#logger.info({ reason, parts: this.#parts.length }, "closing");
    let code: ExitCode = EXIT.ok;
    for (const part of this.#parts.reverse()) {
      try {
        await withDeadline(Promise.resolve(part.close()), this.#deadlineMs, part.name);
      } catch (error) {
        code = EXIT.internal;
        this.#logger.error({ part: part.name, err: error }, "part did not close");
      }
    }
    this.#parts = [];
    return code;
  }
}

async function withDeadline(work: Promise<void>, deadlineMs: number, name: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} did not close within ${deadlineMs} ms`)), deadlineMs);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
