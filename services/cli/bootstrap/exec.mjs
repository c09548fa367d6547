/*
 * Running other programs to their end, and finding them on PATH. Output is collected up to a
 * limit, so that a program gone wild cannot fill the launcher's memory.
 */
import { spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";

/** The last part of each stream that is kept: enough for any compiler error we print. */
const OUTPUT_CHARS_MAX = 256 * 1024;

const running = new Set();
// A launcher that ends early (Ctrl-C, a failed sibling) must not leave a compiler at work.
process.on("exit", () => {
  for (const child of running) child.kill("SIGTERM");
});

/** The path of an executable on PATH, or undefined. */
export function onPath(name, env = process.env) {
  for (const folder of (env.PATH ?? "").split(delimiter)) {
    if (!folder) continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * Runs a program; answers {code, signal, stdout, stderr}; never rejects for an exit code.
 * Code 127 means that it could not be started. `onLine(line)` sees every line of standard output
 * as it comes, `onErrorLine` of standard error; `inherit` shows both to the user instead.
 */
export function execute(command, args, options = {}) {
  const {
    cwd,
    env = process.env,
    onLine,
    onErrorLine,
    inherit = false,
    outputMax = OUTPUT_CHARS_MAX,
  } = options;
  return new Promise((resolve) => {
    const stdio = inherit ? ["ignore", "inherit", "inherit"] : ["ignore", "pipe", "pipe"];
    const child = spawn(command, args, { cwd, env, stdio });
    running.add(child);
    const out = collect(child.stdout, onLine, outputMax);
    const err = collect(child.stderr, onErrorLine, outputMax);
    child.on("error", (error) => {
      running.delete(child);
      resolve({ code: 127, signal: null, stdout: "", stderr: error.message });
    });
    child.on("close", (code, killedBy) => {
      running.delete(child);
      resolve({ code: code ?? 1, signal: killedBy, stdout: out(), stderr: err() });
    });
  });
}

function collect(stream, onLine, outputMax) {
  if (!stream) return () => "";
  let text = "";
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk) => {
    text += chunk;
    if (text.length > outputMax) text = text.slice(-outputMax / 2);
    if (!onLine) return;
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) onLine(line);
  });
  stream.on("end", () => {
    if (onLine && rest) onLine(rest);
  });
  return () => text;
}
