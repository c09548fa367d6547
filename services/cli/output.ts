/** Printing: aligned columns for people, JSON for scripts, to stdout; never both. */

/** Rows as aligned columns under their titles; numbers to the right. */
export function columns(titles: string[], rows: (string | number | bigint)[][]): string {
  const cells = rows.map((row) => row.map(String));
  const widths = titles.map((title, i) =>
    Math.max(title.length, ...cells.map((row) => (row[i] ?? "").length)),
  );
  const right = titles.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] !== "string"));
  const line = (row: string[]): string =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join("  ")
      .trimEnd();
  return [line(titles), ...cells.map(line)].join("\n");
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, (_, item) => (typeof item === "bigint" ? item.toString() : item), 2));
}

/** 1234567 → "1.2 MB". */
export function byteText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** Milliseconds since 1970 as an ISO time. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString();
}
