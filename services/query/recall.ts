/**
 * `vexlake_query_recall_ratio`: of the results that an exact search names, the share that live searches
 * through lists found. The core chooses, compares and adds up (crates/lsm/src/search/recall.rs); its sums are
 * read at scrape time and shown as a histogram, which prom-client only fills value by value.
 */
import { Counter, Gauge, type MetricObjectWithValues, type MetricValue, type Registry } from "prom-client";
import type { QueryCore } from "./core.ts";

const RATIO = "vexlake_query_recall_ratio";

/** Of searches that were chosen, since the start. */
export interface RecallCounts {
  compared: number;
  /** chosen while another was compared or rested after, or of too many vectors */
  dropped: number;
  failed: number;
  /** of the recalls, each from 0 to 1 */
  sum: number;
  /** of the histogram, ascending, the last one 1 */
  bounds: number[];
  /** recalls up to each bound and above the bound before */
  byBound: number[];
}

export function exposeRecall(registry: Registry, core: Pick<QueryCore, "metrics">): void {
  const read = (): RecallCounts => (JSON.parse(core.metrics()) as { recall: RecallCounts }).recall;
  new RatioHistogram(registry, read);
  new Counter({
    name: "vexlake_query_recall_samples_total",
    help: "searches chosen for a comparison with an exact one, by outcome; dropped are those whose turn it was not",
    labelNames: ["outcome"],
    registers: [registry],
    collect() {
      const { compared, dropped, failed } = read();
      this.reset();
      for (const [outcome, count] of Object.entries({ compared, dropped, failed }))
        this.inc({ outcome }, count);
    },
  });
}

/** A metric whose values are computed when the registry asks for them. */
class RatioHistogram extends Gauge<"le"> {
  readonly #read: () => RecallCounts;

  constructor(registry: Registry, read: () => RecallCounts) {
    const help = "share of the exact results that sampled searches through lists found";
    super({ name: RATIO, help, registers: [registry] });
    this.#read = read;
  }

  override async get(): Promise<MetricObjectWithValues<MetricValue<"le">>> {
    const { compared, sum, bounds, byBound } = this.#read();
    let below = 0;
    const buckets = bounds.map((le, place) => {
      below += byBound[place] ?? 0;
      return { metricName: `${RATIO}_bucket`, labels: { le }, value: below };
    });
    const values = [
      ...buckets,
      { metricName: `${RATIO}_bucket`, labels: { le: "+Inf" }, value: compared },
      { metricName: `${RATIO}_sum`, labels: {}, value: sum },
      { metricName: `${RATIO}_count`, labels: {}, value: compared },
    ];
    // The package's types name an enum here that it does not export: a registry prints this word.
    const type = "histogram" as never;
    return { ...(await super.get()), type, values };
  }
}
