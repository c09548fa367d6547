/**
 * Our own page at /jobs, for the in-process runner: one table, the board's columns, no script.
 *
 * It reloads itself, so what it shows is what the server rendered; the few buttons are plain forms.
 * Everything that comes from a payload, a result or an error is escaped: names are user input.
 */
import { JOB_KINDS, type JobKind } from "../../schemas/jobs.ts";
import type { JobProgress, JobResult, JobStats, JobView } from "../common/jobs/runner.ts";
import type { PlanSummary } from "./planner.ts";

export const JOBS_PATH = "/jobs";
/** Jobs come and go in seconds; faster only flickers. */
const RELOAD_SECONDS = 2;
const MIB = 1_048_576;

export const QUEUE_DESCRIPTIONS: Record<JobKind, string> = {
  compaction: "Merges of segments, proposed by the planner; the commit decides",
  gc: "Sweeps of what no readable version reaches any more",
};

const STYLE = `
:root { color-scheme: light dark; --line: light-dark(#d8dee6, #333c48); --dim: light-dark(#5a6675, #93a1b3); }
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } p { color: var(--dim); margin: .2rem 0 1rem; }
section { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem; }
section > div { border: 1px solid var(--line); border-radius: 8px; padding: .7rem 1rem; min-width: 18rem; flex: 1; }
section h2 { font-size: 1rem; margin: 0; } form { display: inline; } button { font: inherit; padding: .1rem .7rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--dim); font-weight: 500; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; } code { font-size: .85em; }
progress { width: 6rem; } .error, .failed { color: light-dark(#b3261e, #ff8a80); }
.active { color: light-dark(#0b57d0, #8ab4f8); } .done { color: light-dark(#146c2e, #81c995); }
`;

export interface PageContent {
  stats: JobStats;
  jobs: JobView[];
  plan: PlanSummary | null;
  nowMs: number;
}

export function renderPage(content: PageContent): string {
  const rows = content.jobs.map((job) => renderRow(job)).join("\n");
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>VexLake jobs</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="${RELOAD_SECONDS}"><style>${STYLE}</style></head>
<body><h1>VexLake jobs</h1><p>${renderPlan(content.plan, content.nowMs)}</p>
<section>${JOB_KINDS.map((kind) => renderQueue(kind, content.stats)).join("")}</section>
<table><thead><tr><th>id</th><th>kind</th><th>reason</th><th>state</th><th>progress</th><th>started</th>
<th>took</th><th>result</th></tr></thead><tbody>
${rows || '<tr><td colspan="8">no jobs yet: nothing was worth merging</td></tr>'}
</tbody></table></body></html>
`;
}

function renderPlan(plan: PlanSummary | null, nowMs: number): string {
  if (plan === null) return "runs in this process; the first plan is being made";
  const ago = Math.max(0, Math.round((nowMs - plan.endedMs) / 1_000));
  const error = plan.error === null ? "" : `; <span class="error">${escapeHtml(plan.error)}</span>`;
  return `runs in this process; planned ${ago} s ago over ${plan.collections} collections${error}`;
}

function renderQueue(kind: JobKind, stats: JobStats): string {
  const queue = stats.queues[kind];
  const { active, waiting, delayed } = queue.counts;
  const action = queue.paused ? "resume" : "pause";
  const state = queue.paused ? "paused" : "running";
  return `<div><h2>${kind} <small>${state}</small></h2><p>${QUEUE_DESCRIPTIONS[kind]}</p>
${active} active · ${waiting} waiting · ${delayed} delayed · ${queue.doneTotal} done · ${queue.failedTotal} failed
${renderButton(`${action}?kind=${kind}`, action)}</div>`;
}

function renderRow(job: JobView): string {
  const started =
    job.startedMs === null ? "" : new Date(job.startedMs).toISOString().slice(0, 19).replace("T", " ");
  const cancellable = job.state === "active" || job.state === "waiting";
  const attempts = job.attempts > 1 ? ` <small>attempt ${job.attempts} of ${job.attemptsMax}</small>` : "";
  return `<tr><td><code>${escapeHtml(job.id)}</code></td><td>${job.kind}<br><small>${escapeHtml(job.title)}</small></td>
<td>${escapeHtml(job.reason)}</td><td><span class="${job.state}">${job.state}</span>${attempts}
${cancellable ? renderButton(`cancel?id=${encodeURIComponent(job.id)}`, "cancel") : ""}</td>
<td class="number">${renderProgress(job.progress)}</td><td class="number">${started}</td>
<td class="number">${job.tookMs === null ? "" : formatSeconds(job.tookMs)}</td><td>${renderResult(job)}</td></tr>`;
}

function renderProgress(progress: JobProgress | null): string {
  if (progress === null) return "";
  const { rowsDone, rowsTotal, bytesRead, phase } = progress;
  const bar =
    rowsDone !== undefined && rowsTotal !== undefined && rowsTotal > 0
      ? `<progress max="${rowsTotal}" value="${rowsDone}"></progress> ${rowsDone} of ${rowsTotal} rows<br>`
      : "";
  const parts = [phase, bytesRead === undefined ? undefined : `${(bytesRead / MIB).toFixed(1)} MiB read`];
  return `${bar}<small>${parts
    .filter((part) => part !== undefined)
    .map(escapeHtml)
    .join(" · ")}</small>`;
}

function renderResult(job: JobView): string {
  if (job.error !== null && job.state !== "done")
    return `<span class="error">${escapeHtml(job.error)}</span>`;
  return job.result === null ? "" : renderFields(job.result);
}

function renderFields(result: JobResult): string {
  const { status, ...fields } = result;
  const text = Object.entries(fields)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name} ${Array.isArray(value) ? value.length : String(value)}`)
    .join(" · ");
  return `<strong>${escapeHtml(status)}</strong> <small>${escapeHtml(text)}</small>`;
}

function renderButton(action: string, label: string): string {
  return `<form method="post" action="${JOBS_PATH}/${escapeHtml(action)}"><button>${label}</button></form>`;
}

function formatSeconds(ms: number): string {
  return ms < 10_000 ? `${(ms / 1_000).toFixed(2)} s` : `${(ms / 1_000).toFixed(0)} s`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
