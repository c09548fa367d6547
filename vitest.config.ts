/*
 * One vitest project for all TypeScript tests. `test/harness/global.ts` offers the real
 * services; a suite that asks for none starts none.
 */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["services/**/*.test.ts", "test/**/*.test.ts", "bench/**/*.test.ts", "crates/node/**/*.test.ts"],
    globalSetup: ["test/harness/global.ts"],
    pool: "forks",
    // Two cores here and in CI: a third worker only adds contention to tests with deadlines.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // kafkajs computes a negative timer when the event loop was late; harmless, but noisy.
    execArgv: ["--disable-warning=TimeoutNegativeWarning"],
  },
});
