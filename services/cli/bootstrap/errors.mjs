/*
 * How a launcher ends. Every expected failure is a `LauncherError` with one of the fixed exit
 * codes; `main` prints its message without a stack. Anything else is a defect and ends with 70.
 */
export const EXIT = {
  ok: 0,
  checkFailed: 1,
  usage: 2,
  prerequisite: 3,
  inUse: 4,
  unreachable: 5,
  store: 6,
  internal: 70,
};

export class LauncherError extends Error {
  /** `exitCode` is one of EXIT; `message` says what, why and what next. */
  constructor(exitCode, message, options) {
    super(message, options);
    this.name = "LauncherError";
    this.exitCode = exitCode;
  }
}

/** Runs a launcher's main function and turns its outcome into the exit code. */
export async function main(run) {
  try {
    process.exitCode = await run();
  } catch (error) {
    if (error instanceof LauncherError) {
      process.stderr.write(`vexlake: ${error.message}\n`);
      process.exitCode = error.exitCode;
    } else {
      process.stderr.write(`vexlake: internal error\n${error?.stack ?? error}\n`);
      process.exitCode = EXIT.internal;
    }
  }
  // Keep-alive sockets of fetched downloads must not hold the process for seconds.
  process.exit();
}
