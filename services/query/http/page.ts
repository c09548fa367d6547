/**
 * `/`: what this node serves, on one page without a script. It reloads itself; what it shows is what the
 * server rendered from views that are in memory anyway, plus the newest commits of at most COMMITTED_MAX
 * collections. Everything that comes from a user (names, topics, summaries) is escaped.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { requestUrl } from "../../common/process/http.ts";
import type { CommandContext } from "../commands/command.ts";
import { lagOf } from "../commands/server-info.ts";
import { type CommitRow, readCommits } from "../commits.ts";
import type { CollectionView } from "../core.ts";
import { STYLE } from "./page-style.ts";

/** Slow enough to read, quick enough to see a flush go by. */
const RELOAD_SECONDS = 5;
/** Commits shown of each collection, and collections whose commits are read for one page. */
const COMMITS_SHOWN = 5;
const COMMITTED_MAX = 8;
/** A page asks the store for commits at most this often, however many people watch it. */
const COMMITS_AGE_MS = 2_000;

interface CollectionCommits {
  view: CollectionView;
  commits: CommitRow[];
  error: string | null;
}

/**
 * Something that another part of this process serves, for example the job board; linked where it has a title.
 */
export interface PageLink {
  path: string;
  title?: string;
}

export interface PageOptions {
  context: CommandContext;
  links: readonly PageLink[];
}

export function pageHandler({
  context,
  links,
}: PageOptions): (request: IncomingMessage, response: ServerResponse) => Promise<void> {
  let commits: CollectionCommits[] = [];
  let readMs = Number.NEGATIVE_INFINITY;
  return async (request, response) => {
    if (requestUrl(request).pathname !== "/")
      return sendHtml(response, 404, layout("<h1>404</h1><p>nothing here</p>"));
    if (context.clock() - readMs >= COMMITS_AGE_MS) {
      readMs = context.clock();
      commits = await Promise.all(
        context.collections
          .all()
          .slice(0, COMMITTED_MAX)
          .map((view) => commitsOf(context, view)),
      );
    }
    sendHtml(response, 200, layout(render(context, commits, links)));
  };
}

async function commitsOf(context: CommandContext, view: CollectionView): Promise<CollectionCommits> {
  try {
    return { view, commits: await readCommits(context.core, view.incarnation, COMMITS_SHOWN), error: null };
  } catch (error) {
    return { view, commits: [], error: error instanceof Error ? error.message : String(error) };
  }
}

function render(context: CommandContext, commits: CollectionCommits[], links: readonly PageLink[]): string {
  const views = context.collections.all();
  const now = context.clock();
  const seconds = Math.floor((now - context.startedMs) / 1000);
  const facts: [title: string, value: string][] = [
    ["records", number(views.reduce((sum, view) => sum + view.records, 0))],
    ["collections", number(views.length)],
    ["segments", number(views.reduce((sum, view) => sum + view.segments, 0))],
    ["lag, records", number(lagOf(context))],
    ["clients", number(context.sessions.size)],
    ["commands", number(context.metrics.commands)],
  ];
  const anchors = links
    .flatMap(({ path, title }) =>
      title === undefined || title === "" ? [] : `<a href="${escapeHtml(path)}">${escapeHtml(title)}</a>`,
    )
    .join(" ");
  return `<header><h1>VexLake</h1><p>up ${duration(seconds)} · version ${escapeHtml(context.version)}
${context.collections.opened ? "" : " · <strong>opening the lake</strong>"}</p><nav>${anchors}</nav></header>
<section class="facts">${facts.map(([title, value]) => `<div><b>${value}</b><small>${title}</small></div>`).join("")}</section>
<h2>Collections</h2>${collectionsTable(context, views, now)}
<h2>Commits</h2>${commits.map((one) => commitsTable(one, now)).join("") || "<p>no collection yet</p>"}
<h2>Commands</h2>${commandsTable(context)}`;
}

function collectionsTable(context: CommandContext, views: CollectionView[], now: number): string {
  const rows = views.map((view) => {
    const refusal = context.visibility.refusal(view.incarnation);
    const state = refusal === undefined ? "" : `<br><span class="error">${escapeHtml(refusal)}</span>`;
    return `<tr><td>${view.db}</td><td><strong>${escapeHtml(view.name)}</strong>${state}</td><td>${view.dim} · ${escapeHtml(view.metric)}</td>
<td class="n">${number(view.records)}</td><td class="n">${number(view.segments)}</td><td class="n">${size(view.bytes)}</td>
<td class="n">${size(view.tailBytes)}</td><td class="n">${number(lag(context, view))}</td>
<td class="n">${view.version} <small>${ago(now - view.versionWhenMs)}</small></td>
<td><code>${escapeHtml(view.source.topic)}</code> <small>× ${view.partitions}</small></td></tr>`;
  });
  return `<table><thead><tr><th>db</th><th>name</th><th>vectors</th><th>records</th><th>segments</th><th>on disk</th>
<th>tail</th><th>lag</th><th>version</th><th>topic</th></tr></thead><tbody>
${rows.join("") || '<tr><td colspan="10">none yet: the first write makes one</td></tr>'}</tbody></table>`;
}

function lag(context: CommandContext, { incarnation }: CollectionView): number {
  const applied = context.visibility.applied(incarnation);
  let behind = 0;
  for (const [partition, end] of context.visibility.ends(incarnation)) {
    behind += Math.max(0, Number(end - (applied.get(partition) ?? 0n)));
  }
  return behind;
}

function commitsTable({ view, commits, error }: CollectionCommits, now: number): string {
  const rows = commits.map(
    (commit) => `<tr><td class="n">${escapeHtml(commit.version)}</td><td>${ago(now - commit.whenMs)}</td>
<td>${escapeHtml(commit.kind)}</td><td>${escapeHtml(commit.summary)}</td><td>${escapeHtml(commit.role)} <small>${escapeHtml(commit.instance)}</small></td></tr>`,
  );
  const failure = error === null ? "" : `<p class="error">${escapeHtml(error)}</p>`;
  return `<details open><summary>${escapeHtml(view.name)} <code>${escapeHtml(view.incarnation)}</code></summary>${failure}
<table><tbody>${rows.join("")}</tbody></table></details>`;
}

function commandsTable({ metrics }: CommandContext): string {
  const rows = metrics
    .tallies()
    .sort(([, a], [, b]) => b.calls - a.calls)
    .map(([command, { calls, failed, seconds }]) => {
      const each = calls === 0 ? 0 : (seconds / calls) * 1e6;
      return `<tr><td><code>${escapeHtml(command)}</code></td><td class="n">${number(calls)}</td>
<td class="n">${number(failed)}</td><td class="n">${number(Math.round(each))} µs</td></tr>`;
    });
  return `<table><thead><tr><th>command</th><th>calls</th><th>failed</th><th>mean</th></tr></thead><tbody>
${rows.join("") || '<tr><td colspan="4">none yet</td></tr>'}</tbody></table>`;
}

function layout(body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>VexLake</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="${RELOAD_SECONDS}"><style>${STYLE}</style></head><body>
${body}
</body></html>
`;
}

function sendHtml(response: ServerResponse, status: number, html: string): void {
  response.writeHead(status, {
    "content-type": "text/html; charset=utf-8",
    "content-length": Buffer.byteLength(html),
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
  });
  response.end(html);
}

function number(value: number): string {
  return value.toLocaleString("en-US");
}

function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 ** 2) return `${(bytes / 1024).toFixed(1)} KiB`;
  return bytes < 1024 ** 3
    ? `${(bytes / 1024 ** 2).toFixed(1)} MiB`
    : `${(bytes / 1024 ** 3).toFixed(2)} GiB`;
}

function duration(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

function ago(ms: number): string {
  return `${duration(Math.max(0, Math.round(ms / 1000)))} ago`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
