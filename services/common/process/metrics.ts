/**
 * The prom-client registry of a process: names `vexlake_*`, base units, default label `role`.
 *
 * Counters of the core (a JSON snapshot of numbers, in groups) are read at scrape time and shown beside
 * ours, the groups' names joined by "_": the core owns them, so they are set, never counted here. Its
 * invariants are counters with a label instead: an alert on violations is one rule for all of them.
 */
import { Counter, collectDefaultMetrics, Gauge, Registry } from "prom-client";

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
  const refresh = (): number => {
    const values = flatten(JSON.parse(snapshot()), "").slice(0, CORE_METRICS_MAX);
    for (const [key, value] of values) gaugeFor(registry, gauges, key).set(value);
    return values.length;
  };
  // A scrape collects in the order of registration: this gauge first, then those that it sets.
  new Gauge({
    name: `${METRIC_PREFIX}core_metrics`,
    help: "metrics in the core's last snapshot",
    registers: [registry],
    collect() {
      this.set(refresh());
    },
  });
  // Gauges that a scrape makes would be missing from that scrape.
  refresh();
}

/** By id of the invariant, what the core counted. */
export type InvariantCounts = Record<string, { checks: number; violations: number }>;

/** Shows how often each invariant was checked and found broken, as of each scrape. */
export function exposeInvariants(registry: Registry, read: () => InvariantCounts): void {
  const expose = (what: "checks" | "violations", help: string): void => {
    new Counter({
      name: `${METRIC_PREFIX}invariant_${what}_total`,
      help,
      labelNames: ["invariant"],
      registers: [registry],
      collect() {
        this.reset();
        for (const [invariant, counts] of Object.entries(read())) this.inc({ invariant }, counts[what]);
      },
    });
  };
  expose("checks", "checks of an invariant, before commits and after loads");
  expose("violations", "invariants found broken, each refused: damage or a defect");
}

function flatten(value: unknown, name: string): [string, number][] {
  if (typeof value === "number") return Number.isFinite(value) ? [[name, value]] : [];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    flatten(inner, name === "" ? key : `${name}_${key}`),
  );
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
