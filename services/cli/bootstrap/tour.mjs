/*
 * Runs the tour (services/cli/tour/main.ts), an outside client of the running lake, as a child.
 *
 * It gets --resp, --http, --data-dir, --store, --log, --brokers (with Kafka) as arguments. Because
 * it also shows a crash, it may ask the launcher over the IPC channel:
 *   {op: "restart", crashAt?: "<point>:<n>"}   stop `vexlake up` if it runs, start it anew (with
 *                                              VEXLAKE_CRASH_AT) → {op: "restart", ready: {…}}
 *                                              or {op: "restart", error: "…"}
 * and is told {event: "exited", code, signal} whenever `vexlake up` ends. While the tour has
 * armed a crash, the launcher does not restart `up` by itself.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { pidFileIn, Supervised, startTimeOf, writeJson } from "./processes.mjs";

/** It only reads and prints: there is nothing to flush. */
const STOP_DEADLINE_MS = 5_000;

/** `lake` = {restart(crashAt), onExit(listener)}; answers {exited: Promise<exit code>, stop()}. */
export async function runTour({ node, script, args, env, lake, layout }) {
  const child = spawn(node, ["--disable-warning=TimeoutNegativeWarning", script, ...args], {
    env,
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    detached: true,
  });
  await new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", reject);
  });
  const record = { pid: child.pid, startTime: startTimeOf(child.pid) };
  const pidFile = pidFileIn(layout.pids, "tour");
  writeJson(pidFile, record);
  const supervised = new Supervised({
    name: "tour",
    record,
    pidFile,
    logFile: join(layout.run, "tour.log"),
    child,
  });
  const tell = (message) => {
    if (child.connected) child.send(message, () => {});
  };
  lake.onExit(({ code, signal }) => tell({ event: "exited", code, signal }));
  child.on("message", (message) => answer(message, lake).then(tell));
  const exited = supervised.exited().then(({ code, signal }) => code ?? (signal ? 1 : 0));
  return { exited, stop: () => supervised.stop(STOP_DEADLINE_MS) };
}

async function answer(message, lake) {
  const op = message?.op;
  if (op !== "restart") return { op, error: `the launcher knows no operation ${JSON.stringify(op)}` };
  try {
    return { op, ready: await lake.restart(message.crashAt) };
  } catch (error) {
    return { op, error: error.message };
  }
}
