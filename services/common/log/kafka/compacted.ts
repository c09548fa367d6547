/**
 * Whether a topic is compacted, by its cleanup.policy: `compact`, or `compact,delete`.
 *
 * Reading it takes the right to describe the topic's configuration, which not everyone who may read the
 * topic has, and a broker that knows the request. Without, the answer is no, and the log says that it is a guess.
 */
import kafkajs, { type Admin } from "kafkajs";
import type { Logger } from "../../process/logger.ts";
import { protocolType } from "./errors.ts";

export async function isCompacted(
  admin: Pick<Admin, "describeConfigs">,
  topic: string,
  logger: Logger,
): Promise<boolean> {
  const resources = [
    { type: kafkajs.ConfigResourceTypes.TOPIC, name: topic, configNames: ["cleanup.policy"] },
  ];
  try {
    const described = await admin.describeConfigs({ includeSynonyms: false, resources });
    const entries = described.resources.flatMap(({ configEntries }) => configEntries);
    const policy = entries.find(({ configName }) => configName === "cleanup.policy")?.configValue ?? "";
    return policy.split(",").some((word) => word.trim() === "compact");
  } catch (error) {
    if (!isUntold(error)) throw error;
    logger.warn(
      { topic, err: error },
      "the cleanup policy may not be read: patches are taken, as if the topic were not compacted",
    );
    return false;
  }
}

/** The broker is there and will not tell. */
function isUntold(error: unknown): boolean {
  if (protocolType(error)?.endsWith("_AUTHORIZATION_FAILED")) return true;
  return error instanceof kafkajs.KafkaJSServerDoesNotSupportApiKey;
}
