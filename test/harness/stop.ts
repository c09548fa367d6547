/*
 * A stop of the test run. The services it started are in process groups of their own, so they live on unless
 * they are stopped here; and one Ctrl-C arrives several times (terminal, npm, launcher), so a copy must not
 * end the process by default while that is under way.
 */

/** Runs `stop` at the first SIGINT or SIGTERM; later ones change nothing. */
export function onFirstSignal(stop: () => Promise<void>): void {
  let stopping = false;
  const handle = (): void => {
    if (!stopping) void stop();
    stopping = true;
  };
  process.on("SIGINT", handle);
  process.on("SIGTERM", handle);
}
