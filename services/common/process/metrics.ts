/**
 * The prom-client registry of a process: names `vexlake_*`, base units, default label `role`.
 *
 * Counters of the core (a JSON snapshot of one level, name → number) are read at scrape time and shown
 * beside ours: the core owns them, so they are set, never counted here.
 */
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";

export const METRIC_PREFIX = "vexlake_";
/** Names that a snapshot of the core may add; one gauge costs ~1 KiB. */
export const CORE_METRICS_MAX = 512;

export function createRegistry(role: string, labels: Record<string, string> = {}): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ role, ...labels });
  collectDefaultMetrics({ register: registry, prefix: METRIC_PREFIX });
  return registry;
}

/** Shows `snapshot()` as gauges, refreshed by every scrape; values that are not numbers are left out. */
export function exposeSnapshot(registry: Registry, snapshot: () => string): void {
  const gauges = new Map<string, Gauge>();
  new Gauge({
    name: `${METRIC_PREFIX}core_metrics`,
    help: "metrics in the core's last snapshot",
    registers: [registry],
    collect() {
      const values = JSON.parse(snapshot()) as Record<string, unknown>;
      let count = 0;
      for (const [key, value] of Object.entries(values)) {
        if (typeof value !== "number" || !Number.isFinite(value) || count >= CORE_METRICS_MAX) continue;
        count += 1;
        gaugeFor(registry, gauges, key).set(value);
      }
      this.set(count);
    },
  });
}

function gaugeFor(registry: Registry, gauges: Map<string, Gauge>, key: string): Gauge {
  const known = gauges.get(key);
  if (known) return known;
  const suffix = key.replace(/[^A-Za-z0-9_]/g, "_");
  const name = suffix.startsWith(METRIC_PREFIX) ? suffix : `${METRIC_PREFIX}${suffix}`;
  const gauge = new Gauge({ name, help: `the core's ${key}`, registers: [registry] });
  gauges.set(key, gauge);
  return gauge;
}
