/**
 * Counters of the query service: a Prometheus histogram and counter per command, gauges of connections and
 * queues, and the plain tallies that INFO and STATS show. Labels are bounded: commands come from the command
 * table ("unknown" for the rest), codes from the error table.
 */
import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { SearchReply } from "./core.ts";
import { FLIP_OUTCOMES, type Flip } from "./flips.ts";

/** 50 µs to 10 s: a scan of a small collection takes 100 µs, a cold query over S3 some hundred ms. */
const SECONDS_BUCKETS = [
  0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];

export interface CommandTally {
  calls: number;
  failed: number;
  seconds: number;
}

interface Children {
  tally: CommandTally;
  latency: { observe(seconds: number): void };
  outcomes: Map<string, { inc(): void }>;
}

export class QueryMetrics {
  readonly #latency: Histogram<"command">;
  readonly #outcome: Counter<"command" | "code">;
  readonly #rejected: Counter<"reason">;
  readonly #flips: Counter<"outcome">;
  readonly #children = new Map<string, Children>();
  readonly #rejections = new Map<string, number>();
  commands = 0;
  connectionsTotal = 0;
  bytesIn = 0;
  bytesOut = 0;
  rowsScanned = 0;
  rowsReranked = 0;
  listsProbed = 0;

  constructor(
    registry: Registry,
    gauges: { connections: () => number; queuedBytes: () => number; flipping: () => number },
  ) {
    const registers = [registry];
    this.#latency = new Histogram({
      name: "vexlake_command_seconds",
      help: "time from a parsed request to its reply; requests that were gathered share the time of their group",
      labelNames: ["command"],
      buckets: SECONDS_BUCKETS,
      registers,
    });
    this.#outcome = new Counter({
      name: "vexlake_commands_total",
      help: "commands by outcome; code is OK or the first word of the error",
      labelNames: ["command", "code"],
      registers,
    });
    this.#rejected = new Counter({
      name: "vexlake_connections_closed_total",
      help: "connections that this server closed, by reason",
      labelNames: ["reason"],
      registers,
    });
    this.#flips = new Counter({
      name: "vexlake_promotions_followed_total",
      help: "promotions and rollbacks that this node followed: caught-up lost no sight of a record; late ran into the deadline; gone had no predecessor left",
      labelNames: ["outcome"],
      registers,
    });
    for (const outcome of FLIP_OUTCOMES) this.#flips.inc({ outcome }, 0);
    const waiting = "names that answer from a predecessor until the promoted incarnation shows as much";
    gauge(registry, "vexlake_promotions_waiting", waiting, gauges.flipping);
    gauge(registry, "vexlake_connections", "open RESP connections", gauges.connections);
    gauge(registry, "vexlake_write_queue_bytes", "records waiting for the log", gauges.queuedBytes);
    counter(
      registry,
      "vexlake_resp_received_bytes_total",
      "bytes read from RESP clients",
      () => this.bytesIn,
    );
    counter(registry, "vexlake_resp_sent_bytes_total", "bytes written to RESP clients", () => this.bytesOut);
    const accepted = "RESP connections since the start";
    counter(registry, "vexlake_connections_accepted_total", accepted, () => this.connectionsTotal);
    const scanned = "rows that searches compared, by code or exactly";
    counter(registry, "vexlake_query_rows_scanned_total", scanned, () => this.rowsScanned);
    const reranked = "rows that searches found by code and then compared exactly";
    counter(registry, "vexlake_query_rows_reranked_total", reranked, () => this.rowsReranked);
    const probed = "lists of codes that searches looked at, those of all segments counted";
    counter(registry, "vexlake_query_lists_probed_total", probed, () => this.listsProbed);
  }

  /** One command has been answered; `code` is OK or the first word of its error. */
  command(name: string, seconds: number, code: string): void {
    const children = this.#of(name);
    this.commands += 1;
    children.tally.calls += 1;
    children.tally.seconds += seconds;
    if (code !== "OK") children.tally.failed += 1;
    children.latency.observe(seconds);
    let outcome = children.outcomes.get(code);
    if (outcome === undefined) {
      outcome = this.#outcome.labels(name, code);
      children.outcomes.set(code, outcome);
    }
    outcome.inc();
  }

  /** A search has been answered. */
  searched(cost: NonNullable<SearchReply["cost"]>): void {
    this.rowsScanned += cost.rowsScanned;
    this.rowsReranked += cost.rowsReranked;
    this.listsProbed += cost.lists;
  }

  /** A name answers from what was promoted. */
  flipped({ outcome }: Flip): void {
    this.#flips.inc({ outcome });
  }

  /** This server ended a connection. */
  closed(reason: string): void {
    this.#rejected.labels(reason).inc();
    this.#rejections.set(reason, (this.#rejections.get(reason) ?? 0) + 1);
  }

  tallies(): [command: string, tally: CommandTally][] {
    return [...this.#children].map(([command, children]) => [command, children.tally]);
  }

  closedBy(reason: string): number {
    return this.#rejections.get(reason) ?? 0;
  }

  #of(name: string): Children {
    let children = this.#children.get(name);
    if (children === undefined) {
      children = {
        tally: { calls: 0, failed: 0, seconds: 0 },
        latency: this.#latency.labels(name),
        outcomes: new Map(),
      };
      this.#children.set(name, children);
    }
    return children;
  }
}

function gauge(registry: Registry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

/** A total that is counted in a plain field and shown when it is asked for. */
function counter(registry: Registry, name: string, help: string, read: () => number): void {
  new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      this.reset();
      this.inc(read());
    },
  });
}
