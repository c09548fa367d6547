/*
 * Reading how many tests each runner ran, and the closing line. Pure.
 */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** cargo's `test result: ok. 12 passed; 0 failed; 1 ignored; …`, or undefined for another line. */
export function readCargoResult(line: string): Counts | undefined {
  const match = /^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
  if (!match) return undefined;
  return { passed: Number(match[1]), failed: Number(match[2]), skipped: Number(match[3]) };
}

interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests?: number;
  testResults: { status: string; assertionResults: { status: string }[] }[];
}

/**
 * vitest's JSON report. A file that fails while it is collected has no tests, and an error outside
 * any test none at all: both count as one failure, so that a red run never reads "0 failed".
 */
export function readVitestReport(text: string, exitCode: number): Counts {
  const report = JSON.parse(text) as VitestReport;
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  ).length;
  const failed = report.numFailedTests + broken;
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && exitCode !== 0 ? 1 : failed,
    skipped: report.numPendingTests + (report.numTodoTests ?? 0),
  };
}

export function addTotals(all: Counts[]): Counts {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const counts of all) {
    sum.passed += counts.passed;
    sum.failed += counts.failed;
    sum.skipped += counts.skipped;
  }
  return sum;
}

/** `12 passed, 0 failed`, with `, 1 skipped` only where there is something to say. */
export function totalsLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}
