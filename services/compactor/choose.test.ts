import { describe, expect, it } from "vitest";
import { compaction, ulid } from "../../test/contract/jobs-fixtures.ts";
import type { JobView } from "../common/jobs/runner.ts";
import { busyOf, chooseSpec, FAILED_PAUSE_MS } from "./choose.ts";

const NOW_MS = 1_000_000_000;

function view(spec: number, state: JobView["state"], endedMs = NOW_MS): JobView {
  const base = {
    id: `compaction-${spec}`,
    title: "",
    reason: "",
    dedupId: null,
    attempts: 1,
    attemptsMax: 3,
  };
  const times = { enqueuedMs: endedMs - 20, startedMs: endedMs - 10, tookMs: 10 };
  return {
    ...base,
    ...times,
    kind: "compaction",
    state,
    payload: compaction(1, spec),
    progress: null,
    result: null,
    error: null,
  };
}

describe("chooseSpec", () => {
  const specs = [compaction(1, 1).spec, compaction(1, 2).spec];
  const none = { inputs: new Set<string>(), failed: new Set<string>() };

  it("should_take_the_first_spec_because_the_core_orders_them_by_worth", () => {
    expect(chooseSpec(specs, none)?.id).toBe("spec-1-1");
    expect(chooseSpec([], none)).toBeNull();
  });

  it("should_pass_over_a_spec_that_shares_one_input_with_a_pending_job", () => {
    expect(chooseSpec(specs, { ...none, inputs: new Set([ulid(2_001)]) })?.id).toBe("spec-1-2");
    expect(chooseSpec(specs, busyOf([view(1, "active"), view(2, "waiting")], [], NOW_MS))).toBeNull();
  });

  it("should_pass_over_inputs_that_failed_a_short_while_ago_whatever_the_spec_id", () => {
    const renamed = { ...specs[0]!, id: "minted-anew", inputs: specs[0]!.inputs.toReversed() };

    const early = busyOf([], [view(1, "failed")], NOW_MS + FAILED_PAUSE_MS - 1);
    const late = busyOf([], [view(1, "failed")], NOW_MS + FAILED_PAUSE_MS);

    expect(chooseSpec([renamed], early)).toBeNull();
    expect(chooseSpec([renamed], late)?.id).toBe("minted-anew");
  });

  it("should_ignore_jobs_whose_payload_cannot_be_read", () => {
    expect(busyOf([{ ...view(1, "active"), payload: { edited: "by hand" } }], [], NOW_MS)).toEqual(none);
  });
});
