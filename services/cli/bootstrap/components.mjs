/*
 * The engines beside `vexlake up`: our own Kafka and Redis. A start first looks for what an
 * earlier run left behind: a leftover that still answers by its protocol is adopted, one that
 * does not is stopped. Ports used before are preferred, so that addresses people noted stay true.
 */
import { join } from "node:path";
import { choosePort, HOST } from "./ports.mjs";
import { probeKafka, probeRedis } from "./probes.mjs";
import { leftover, pidFileIn, readJson, writeJson } from "./processes.mjs";
import { startKafka, startRedis } from "./provision.mjs";

const DEFAULT_PORT = { kafka: 9092, redis: 6379 };
/** Where the search for a free port begins when the default is taken. */
const SEARCH_FROM = { kafka: 9093, redis: 16_379 };
const LOG_FILE = { kafka: "broker.log", redis: "redis.log" };
const START = { kafka: startKafka, redis: startRedis };
const PROBE = { kafka: probeKafka, redis: probeRedis };

/** Pure choice of which port to try first. */
export function preferredPort(name, remembered) {
  return remembered?.[name] ?? DEFAULT_PORT[name];
}

/**
 * Adopts or starts `name` ("kafka" or "redis") of a data directory; answers
 * {address: "host:port", port, supervised}. `say(text)` announces a moved port or an adoption.
 */
export async function bringUp(name, layout, say) {
  const adopted = await adopt(name, layout);
  if (adopted) {
    say(`${name}: adopted process ${adopted.supervised.pid} of an earlier run on port ${adopted.port}`);
    return adopted;
  }
  const remembered = readJson(layout.ports) ?? {};
  const preferred = preferredPort(name, remembered);
  const { port, moved } = await choosePort({ name, preferred, from: SEARCH_FROM[name] });
  if (moved) say(`${name}: port ${preferred} is taken, using ${port}`);
  const started = await START[name]({ dir: layout[name], pids: layout.pids, port });
  writeJson(layout.ports, { ...remembered, [name]: port });
  return { address: `${HOST}:${port}`, port, supervised: started.supervised };
}

async function adopt(name, layout) {
  const found = leftover(name, pidFileIn(layout.pids, name), join(layout[name], LOG_FILE[name]));
  if (!found) return undefined;
  const { port } = found.record;
  try {
    await PROBE[name]({ host: HOST, port });
    return { address: `${HOST}:${port}`, port, supervised: found };
  } catch {
    await found.stop();
    return undefined;
  }
}

/** Stops a leftover `vexlake up` (or tour): it may hold ports and run another version's code. */
export async function reap(name, layout, say) {
  const found = leftover(name, pidFileIn(layout.pids, name), join(layout.run, `${name}.log`));
  if (!found) return;
  say(`${name}: stopping process ${found.pid} of an earlier run`);
  await found.stop();
}
