/**
 * Exit codes of every `vexlake` process (DESIGN §11). Scripts branch on them, so a number is never reused.
 */
export const EXIT = {
  ok: 0,
  checkFailed: 1,
  usage: 2,
  prerequisite: 3,
  inUse: 4,
  unreachable: 5,
  storeRefused: 6,
  internal: 70,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];
