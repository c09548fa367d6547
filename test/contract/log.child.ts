/**
 * Child process of log.local.test.ts: `open` starts the log and exits with the error's code; `write`
 * prints "offset value" of each acknowledged record until it is killed.
 */
import { LocalSource } from "../../services/common/log/local/source.ts";
import { vexErrorFrom } from "../../services/common/process/error.ts";
import { silentLogger } from "../../services/common/process/logger.ts";

const [, , mode, directory] = process.argv as [string, string, string, string];
const TOPIC = "vexlake.0.t";

const source = new LocalSource({ directory, logger: silentLogger(), segmentBytesMax: 4_096 });
try {
  await source.start();
} catch (error) {
  process.stderr.write(`${vexErrorFrom(error).message}\n`);
  process.exit(vexErrorFrom(error).exitCode);
}
if (mode === "write") {
  await source.ensureTopic(TOPIC, 1);
  for (let i = 0; ; i++) {
    const value = `value-${i}-${"x".repeat(i % 200)}`;
    const answers = await source.produce(TOPIC, [
      { partition: 0, key: null, value: Buffer.from(value) },
      { partition: 0, key: null, value: Buffer.from(`${value}-b`) },
    ]);
    process.stdout.write(`${answers[0]?.offset} ${value}\n${answers[1]?.offset} ${value}-b\n`);
  }
}
await source.close();
