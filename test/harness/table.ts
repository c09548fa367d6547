/*
 * The closing table: which service, how it was provided, how many suites ran with it or were
 * skipped for want of it. Pure.
 */
export interface TableRow {
  service: string;
  how: string;
  run: number;
  skipped: number;
}

export function formatTable(rows: TableRow[]): string {
  const cells = [
    ["service", "how it was provided", "suites"],
    ...rows.map((row) => [row.service, row.how, suites(row)]),
  ];
  const widths = [0, 1].map((column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells
    .map((row) => `${row[0]?.padEnd(widths[0] ?? 0)}  ${row[1]?.padEnd(widths[1] ?? 0)}  ${row[2]}`.trimEnd())
    .join("\n");
}

function suites({ run, skipped }: TableRow): string {
  if (skipped > 0) return `${skipped} SKIPPED`;
  return run === 0 ? "none asked" : `${run} run`;
}
