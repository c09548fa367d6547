/**
 * The handler behind /jobs, one for the compactor's own HTTP server and for `up`'s.
 *
 * | request                                    | answer                                              |
 * |--------------------------------------------|-----------------------------------------------------|
 * | GET  /jobs                                 | bull-board (BullMQ) or our page (in-process)        |
 * | GET  /jobs/list.json?limit=…               | runner, plan, queue stats and jobs, for either      |
 * | POST /jobs/plan                            | plans now; answers the plan's summary               |
 * | POST /jobs/gc?dryRun=1&incarnation=…       | enqueues a sweep of one incarnation, or of all      |
 * | POST /jobs/gc?orphans=1&dryRun=1           | the same of all, and of incarnations without a name |
 * | POST /jobs/{pause,resume}?kind=…           | one queue, or both without a kind                   |
 * | POST /jobs/cancel?id=…                     | aborts what runs here, removes what waits           |
 *
 * `limit` counts the jobs of one kind in one state. Forms are answered with a redirect.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type GcPayload, JOB_KINDS, type JobKind } from "../../schemas/jobs.ts";
import { JOB_STATES, type JobRunner } from "../common/jobs/runner.ts";
import { VexError } from "../common/process/error.ts";
import { type Handler, requestUrl, sendJson } from "../common/process/http.ts";
import { JOBS_PATH, renderPage } from "./page.ts";
import type { Planner, PlanSummary } from "./planner.ts";

/** Rows of the page: what a person reads; `list.json?limit=` goes up to what is kept. */
const PAGE_JOBS_MAX = 50;

export interface JobsHttpDeps {
  runner: JobRunner;
  planner: Planner;
  /** null: our own page. */
  board: Handler | null;
  gcPayload(options: { incarnation: string | null; dryRun: boolean; orphans: boolean }): GcPayload;
}

export function createJobsHandler(deps: JobsHttpDeps): Handler {
  return async (request, response) => {
    const url = requestUrl(request);
    const action = url.pathname.slice(JOBS_PATH.length).replace(/^\/|\/$/g, "");
    const reading = request.method === "GET" || request.method === "HEAD";
    if (reading && action === "list.json") {
      return sendJson(response, 200, await listing(deps, limitOf(url.searchParams)));
    }
    if (request.method === "POST" && Object.hasOwn(ACTIONS, action)) {
      const answer = await ACTIONS[action as keyof typeof ACTIONS](deps, url.searchParams);
      return answerAction(request, response, answer);
    }
    if (deps.board !== null) return deps.board(request, response);
    if (reading && action === "") return sendPage(deps, response);
    throw new VexError("NOT_FOUND", `nothing at ${request.method} ${url.pathname}`);
  };
}

const ACTIONS = {
  plan: async ({ planner }: JobsHttpDeps): Promise<{ plan: PlanSummary | null }> => {
    await planner.request();
    return { plan: planner.last };
  },
  gc: async ({ runner, gcPayload }: JobsHttpDeps, query: URLSearchParams) => {
    const incarnation = query.get("incarnation");
    const [dryRun, orphans] = [isSet(query, "dryRun"), isSet(query, "orphans")];
    if (incarnation !== null && orphans) {
      throw new VexError("INVALID", "orphans are looked for in the whole lake, not in one incarnation");
    }
    const dedup = `gc-${incarnation ?? (orphans ? "orphans" : "all")}`;
    return runner.enqueue("gc", gcPayload({ incarnation, dryRun, orphans }), dedup);
  },
  pause: async ({ runner }: JobsHttpDeps, query: URLSearchParams) => {
    const kinds = kindsOf(query);
    for (const kind of kinds) await runner.pause(kind);
    return { paused: kinds };
  },
  resume: async ({ runner }: JobsHttpDeps, query: URLSearchParams) => {
    const kinds = kindsOf(query);
    for (const kind of kinds) await runner.resume(kind);
    return { resumed: kinds };
  },
  cancel: async ({ runner }: JobsHttpDeps, query: URLSearchParams) => {
    const id = query.get("id") ?? "";
    if (!(await runner.cancel(id))) throw new VexError("NOT_FOUND", `no job "${id}" runs here or waits`);
    return { cancelled: id };
  },
};

async function listing({ runner, planner }: JobsHttpDeps, limit: number | undefined): Promise<object> {
  const [stats, jobs] = await Promise.all([runner.stats(), runner.list(JOB_STATES, limit)]);
  return { runner: runner.kind, connected: runner.connected, plan: planner.last, queues: stats.queues, jobs };
}

async function sendPage({ runner, planner }: JobsHttpDeps, response: ServerResponse): Promise<void> {
  const [stats, jobs] = await Promise.all([runner.stats(), runner.list(JOB_STATES, PAGE_JOBS_MAX)]);
  const text = renderPage({ stats, jobs, plan: planner.last, nowMs: Date.now() });
  response.writeHead(200, {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy":
      "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "cache-control": "no-store",
  });
  response.end(text);
}

function answerAction(request: IncomingMessage, response: ServerResponse, answer: object): void {
  if (request.headers.accept?.includes("text/html")) response.writeHead(303, { location: JOBS_PATH }).end();
  else sendJson(response, 200, answer);
}

/** undefined: all that are kept. */
function limitOf(query: URLSearchParams): number | undefined {
  const limit = query.get("limit");
  if (limit === null) return undefined;
  if (/^[1-9]\d{0,6}$/.test(limit)) return Number(limit);
  throw new VexError("INVALID", `limit is ${JSON.stringify(limit)}, expected a whole number from 1`);
}

function isSet(query: URLSearchParams, name: string): boolean {
  return query.get(name) === "1" || query.get(name) === "true";
}

function kindsOf(query: URLSearchParams): JobKind[] {
  const kind = query.get("kind");
  if (kind === null) return JOB_KINDS;
  if (JOB_KINDS.includes(kind as JobKind)) return [kind as JobKind];
  throw new VexError("INVALID", `kind "${kind}" is none of ${JOB_KINDS.join(", ")}`);
}
