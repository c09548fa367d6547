/**
 * Brokers that will not tell a topic's policy. That a real one tells it is test/contract's to check.
 */
import kafkajs, { type Admin } from "kafkajs";
import { describe, expect, it } from "vitest";
import type { Logger } from "../../process/logger.ts";
import { isCompacted } from "./compacted.ts";

function asked(answer: () => unknown) {
  const warnings: string[] = [];
  const logger = { warn: (_: object, message: string) => warnings.push(message) } as unknown as Logger;
  const describeConfigs = async () => answer();
  return { warnings, answer: isCompacted({ describeConfigs } as unknown as Admin, "t", logger) };
}

const thrown = (error: Error) => () => {
  throw error;
};
const policy = (configValue: string) => () => ({
  resources: [{ configEntries: [{ configName: "cleanup.policy", configValue }] }],
});

describe("cleanup policy", () => {
  it("should_find_compact_among_the_words_of_the_policy", async () => {
    for (const words of ["compact", "compact,delete", "delete, compact"]) {
      expect(await asked(policy(words)).answer, words).toBe(true);
    }
    for (const words of ["delete", "", "compacted"]) expect(await asked(policy(words)).answer).toBe(false);
    expect(await asked(() => ({ resources: [{ configEntries: [] }] })).answer).toBe(false);
  });

  it("should_say_in_the_log_that_it_may_not_know_and_assume_not_compacted", async () => {
    const denied = Object.assign(new Error("denied"), { type: "TOPIC_AUTHORIZATION_FAILED" });
    const unknown = new kafkajs.KafkaJSServerDoesNotSupportApiKey("no such request", {
      apiKey: 32,
      apiName: "DescribeConfigs",
    });
    for (const error of [denied, unknown]) {
      const { answer, warnings } = asked(thrown(error));
      expect(await answer).toBe(false);
      expect(warnings).toEqual([expect.stringContaining("may not be read")]);
    }
  });

  it("should_fail_when_the_broker_cannot_be_asked", async () => {
    const { answer, warnings } = asked(thrown(new kafkajs.KafkaJSConnectionError("away")));
    await expect(answer).rejects.toThrow("away");
    expect(warnings).toEqual([]);
  });
});
