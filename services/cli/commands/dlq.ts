/**
 * dlq list | replay: the dead letters of a collection's topic. `replay` produces them again to the topic,
 * as they came, after a person has mended what refused them (a schema, a limit).
 */
import { findCollection, liveSource } from "../../common/catalog.ts";
import type { LogRecord } from "../../common/log/source.ts";
import { deadLetterTopicFor } from "../../common/log/topic.ts";
import { ConfigError, VexError } from "../../common/process/error.ts";
import { EXIT } from "../../common/process/exit.ts";
import { type Arguments, positional, whole } from "../args.ts";
import { logIsHeld, openContext, openLake, openLog } from "../context.ts";
import { columns, print, printJson } from "../output.ts";

const LETTERS_SHOWN = 100;

export async function run(args: Arguments): Promise<number> {
  const action = positional(args, 0, "list|replay");
  if (action !== "list" && action !== "replay")
    throw new ConfigError(`dlq ${action} is not known: list, replay`);
  const name = positional(args, 1, "collection");
  const limit = whole(args, "limit", 1, 1_000_000) ?? (action === "list" ? LETTERS_SHOWN : 1_000_000);
  const context = await openContext(args, "cli");
  if (logIsHeld(context)) {
    throw new VexError("IN_USE", "a local log belongs to the running lake: stop it first, or use Kafka");
  }
  const [{ lake, close }, log] = await Promise.all([openLake(context, "cli"), openLog(context)]);
  try {
    const { live } = await findCollection(lake, whole(args, "db", 0, 15) ?? 0, name);
    const { topic } = liveSource(live);
    const letters: LogRecord[] = [];
    const deadLetters = deadLetterTopicFor(topic);
    for (const { partition, low, high } of (await log.ranges(deadLetters)) ?? []) {
      await log.read(deadLetters, partition, low, high, ({ records }) => {
        letters.push(...records.slice(0, Math.max(0, limit - letters.length)));
      });
    }
    if (action === "replay") {
      for (const { key, value, headers } of letters) {
        const own = Object.entries(headers).filter(
          ([header]) => !/^(__connect\.|vexlake-reason|vexlake-value)/.test(header),
        );
        const kept = Object.fromEntries(
          own.filter((pair): pair is [string, Buffer] => pair[1] !== undefined),
        );
        await log.produce(topic, [{ key, value, headers: kept }]);
      }
      if (context.json) printJson({ topic, produced: letters.length });
      else print(`${letters.length} records produced to ${topic} again`);
      return EXIT.ok;
    }
    const shown = letters.map(({ key, headers, timestamp }) => ({
      key: key?.toString() ?? null,
      partition: headers["__connect.errors.partition"]?.toString() ?? "",
      offset: headers["__connect.errors.offset"]?.toString() ?? "",
      reason: headers["vexlake-reason"]?.toString() ?? "",
      message: headers["__connect.errors.exception.message"]?.toString() ?? "",
      when: new Date(timestamp).toISOString(),
    }));
    if (context.json) printJson(shown);
    else {
      const rows = shown.map((letter) => [
        letter.when,
        letter.partition,
        letter.offset,
        letter.key ?? "(null)",
        letter.reason,
        letter.message,
      ]);
      print(columns(["when", "partition", "offset", "key", "reason", "message"], rows));
    }
    return EXIT.ok;
  } finally {
    await log.close();
    await close();
  }
}
