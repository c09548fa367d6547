/**
 * Who a process is: its pid and when it started.
 *
 * A pid alone proves nothing, because the kernel gives it to another process after a crash or a reboot; in a
 * container it is 1 each time. Whoever writes a pid down (locks, spools, announcements) writes both down, and
 * whoever reads it asks here.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** A start time that the platform does not tell: the pid alone decides. */
const UNKNOWN = "unknown";

export interface ProcessIdentity {
  readonly pid: number;
  /** In the platform's own words. */
  readonly started: string;
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, started: startTimeOf(process.pid) ?? UNKNOWN };
}

/** Whether that very process runs. */
export function isRunning({ pid, started }: ProcessIdentity): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  const now = startTimeOf(pid);
  return now !== null && (now === started || now === UNKNOWN || started === UNKNOWN);
}

/** Start time of a process in the platform's own words, null when no such process runs. */
export function startTimeOf(pid: number): string | null {
  if (process.platform === "linux") {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      // The command name may hold spaces and parentheses; fields count from after its last one.
      // Field 3 (state) is then index 0, so field 22 (start time in clock ticks) is index 19.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return fields[0] === "Z" ? null : (fields[19] ?? null);
    } catch {
      // Hidden from us (hidepid) is not gone.
      return answersSignals(pid) ? UNKNOWN : null;
    }
  }
  if (process.platform === "win32") return answersSignals(pid) ? UNKNOWN : null;
  try {
    const shown = execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).trim();
    return shown === "" ? null : shown.replaceAll(" ", "_");
  } catch {
    return null;
  }
}

function answersSignals(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
