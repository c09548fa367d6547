/**
 * Names of topics (DESIGN §11): `vexlake.<db>.<name>`, every other byte than [A-Za-z0-9_-] as `.xx` in
 * lower-case hex. The dot is escaped too, so the mapping is one to one: a name's parts hold no bare dot
 * that is not followed by two hex digits, and "a.b" cannot meet "a", "b".
 */
import { VexError } from "../process/error.ts";

/** Kafka's own limit on a topic name, less the suffix of the dead-letter topic. */
export const TOPIC_CHARACTERS_MAX = 249 - ".dlq".length;

export const DEAD_LETTER_SUFFIX = ".dlq";

/** INVALID when the name gets too long for Kafka, which the collection's name then is as well. */
export function topicFor(db: number, name: string): string {
  const topic = `vexlake.${db}.${escapeName(name)}`;
  if (topic.length > TOPIC_CHARACTERS_MAX) {
    throw new VexError(
      "INVALID",
      `collection name needs a topic of ${topic.length} characters, at most ${TOPIC_CHARACTERS_MAX} fit`,
      { fields: { db, name } },
    );
  }
  return topic;
}

export function deadLetterTopicFor(topic: string): string {
  return `${topic}${DEAD_LETTER_SUFFIX}`;
}

function escapeName(name: string): string {
  let escaped = "";
  for (const byte of Buffer.from(name, "utf8")) {
    const character = String.fromCharCode(byte);
    escaped += /[A-Za-z0-9_-]/.test(character) ? character : `.${byte.toString(16).padStart(2, "0")}`;
  }
  return escaped;
}
