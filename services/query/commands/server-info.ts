/**
 * What INFO and STATS say, from the same counters as /metrics. Field names are Redis's where it has one, so
 * that tools which read INFO find them; `redis_version` is the version whose vector-set replies are kept.
 */
import type { CommandContext } from "./command.ts";

/** The Redis whose commands and reply shapes this server keeps. */
export const REDIS_VERSION = "8.0.0";

type Field = [name: string, value: string | number];

/** INFO's text; without names, or with one of Redis's words for all of it, every section. */
export function describeServer(context: CommandContext, wanted: ReadonlySet<string>): string {
  const all = wanted.size === 0 || ["all", "default", "everything"].some((word) => wanted.has(word));
  const parts: string[] = [];
  for (const [title, fields] of sections(context)) {
    if (!all && !wanted.has(title.toLowerCase())) continue;
    parts.push(`# ${title}\r\n${fields.map(([name, value]) => `${name}:${value}\r\n`).join("")}`);
  }
  return parts.join("\r\n");
}

/** STATS: whole numbers only. */
export function tallies(context: CommandContext): [name: string, value: number][] {
  const views = context.collections.all();
  return [
    ["uptime_seconds", uptime(context)],
    ["connections", context.sessions.size],
    ["commands", context.metrics.commands],
    ["collections", views.length],
    ["records", views.reduce((sum, view) => sum + view.records, 0)],
    ["write_queue_bytes", context.writer.queuedBytes],
    ["lag_records", lagOf(context)],
  ];
}

/** Log records that this node has not applied yet, over all collections. */
export function lagOf(context: CommandContext): number {
  let lag = 0n;
  for (const { incarnation } of context.collections.all()) {
    const applied = context.visibility.applied(incarnation);
    for (const [partition, end] of context.visibility.ends(incarnation)) {
      const next = applied.get(partition) ?? 0n;
      if (end > next) lag += end - next;
    }
  }
  return Number(lag);
}

function sections(context: CommandContext): [title: string, fields: Field[]][] {
  const memory = process.memoryUsage();
  const { metrics, collections } = context;
  return [
    [
      "Server",
      [
        ["redis_version", REDIS_VERSION],
        ["vexlake_version", context.version],
        ["redis_mode", "standalone"],
        ["os", `${process.platform} ${process.arch}`],
        ["process_id", process.pid],
        ["tcp_port", context.settings.get("port") ?? ""],
        ["uptime_in_seconds", uptime(context)],
      ],
    ],
    [
      "Clients",
      [
        ["connected_clients", context.sessions.size],
        ["maxclients", context.settings.get("maxclients") ?? ""],
      ],
    ],
    [
      "Memory",
      [
        ["used_memory", memory.rss],
        ["used_memory_heap", memory.heapUsed],
        ["used_memory_buffers", memory.arrayBuffers],
      ],
    ],
    [
      "Stats",
      [
        ["total_connections_received", metrics.connectionsTotal],
        ["total_commands_processed", metrics.commands],
        ["total_net_input_bytes", metrics.bytesIn],
        ["total_net_output_bytes", metrics.bytesOut],
        ["rejected_connections", metrics.closedBy("max-clients")],
      ],
    ],
    [
      "Lake",
      [
        ["collections", collections.all().length],
        ["catalog_age_ms", collections.opened ? context.clock() - collections.listedMs : -1],
        ["write_queue_bytes", context.writer.queuedBytes],
        ["lag_records", lagOf(context)],
      ],
    ],
    ["Commandstats", commandStats(context)],
    ["Keyspace", keyspace(context)],
  ];
}

function commandStats({ metrics }: CommandContext): Field[] {
  return metrics.tallies().map(([command, { calls, failed, seconds }]) => {
    const microseconds = Math.round(seconds * 1e6);
    const each = calls === 0 ? 0 : microseconds / calls;
    return [
      `cmdstat_${command}`,
      `calls=${calls},usec=${microseconds},usec_per_call=${each.toFixed(2)},rejected_calls=0,failed_calls=${failed}`,
    ];
  });
}

function keyspace({ collections }: CommandContext): Field[] {
  const counts = new Map<number, number>();
  for (const { db } of collections.all()) counts.set(db, (counts.get(db) ?? 0) + 1);
  return [...counts]
    .sort(([a], [b]) => a - b)
    .map(([db, keys]) => [`db${db}`, `keys=${keys},expires=0,avg_ttl=0`]);
}

function uptime(context: CommandContext): number {
  return Math.floor((context.clock() - context.startedMs) / 1000);
}
