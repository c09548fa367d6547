import { expect, it } from "vitest";
import { createRegistry } from "../common/process/metrics.ts";
import { exposeRecall } from "./recall.ts";
import { FakeCore } from "./testing/fake-core.ts";

it("should show what the core compared as a histogram of which an average can be computed", async () => {
  const core = new FakeCore();
  const registry = createRegistry("query");
  exposeRecall(registry, core);
  const lines = async (): Promise<string[]> =>
    (await registry.metrics()).split("\n").filter((line) => line.includes("vexlake_query_recall"));
  expect(await lines()).toContain('vexlake_query_recall_ratio_count{role="query"} 0');
  core.recall = { compared: 7, dropped: 3, failed: 2, sum: 6.5, bounds: [0.5, 0.9, 1], byBound: [0, 2, 5] };
  const shown = await lines();
  expect(shown.filter((line) => !line.startsWith("# HELP"))).toEqual([
    "# TYPE vexlake_query_recall_ratio histogram",
    'vexlake_query_recall_ratio_bucket{le="0.5",role="query"} 0',
    'vexlake_query_recall_ratio_bucket{le="0.9",role="query"} 2',
    'vexlake_query_recall_ratio_bucket{le="1",role="query"} 7',
    'vexlake_query_recall_ratio_bucket{le="+Inf",role="query"} 7',
    'vexlake_query_recall_ratio_sum{role="query"} 6.5',
    'vexlake_query_recall_ratio_count{role="query"} 7',
    "# TYPE vexlake_query_recall_samples_total counter",
    'vexlake_query_recall_samples_total{outcome="compared",role="query"} 7',
    'vexlake_query_recall_samples_total{outcome="dropped",role="query"} 3',
    'vexlake_query_recall_samples_total{outcome="failed",role="query"} 2',
  ]);
});
