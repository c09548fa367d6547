/*
 * The one `vexlake up` child: start, wait for its `ready` line, hand its end to the owner.
 * Its standard output is read here and passed on; its progress goes straight to our standard error.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseReady } from "./choice.mjs";
import { EXIT, LauncherError } from "./errors.mjs";
import { pidFileIn, Supervised, startTimeOf, writeJson } from "./processes.mjs";

/** A stop may flush a full memtable (64 MiB) to a slow store. */
const STOP_DEADLINE_MS = 60_000;

export class Up {
  #node;
  #script;
  #args;
  #env;
  #layout;
  #out;
  #onReady;
  #supervised;
  /** What the last `ready` line said. */
  ready;

  /**
   * `out` gets what the child says on standard output; `onReady` is called whenever a child is ready.
   * @param {{node: string, script: string, args: string[], env: NodeJS.ProcessEnv, layout: {pids: string, run: string}, out?: {write(text: string): unknown}, onReady?: () => void}} options
   */
  constructor({ node, script, args, env, layout, out = process.stdout, onReady = () => {} }) {
    this.#node = node;
    this.#script = script;
    this.#args = args;
    this.#env = env;
    this.#layout = layout;
    this.#out = out;
    this.#onReady = onReady;
  }

  /** Starts and resolves with the parsed `ready` line; rejects with the child's own exit code. */
  async start(extraEnv = {}) {
    const args = ["--disable-warning=TimeoutNegativeWarning", this.#script, ...this.#args];
    const child = spawn(this.#node, args, {
      env: { ...this.#env, ...extraEnv },
      stdio: ["ignore", "pipe", "inherit"],
      // Its own group: Ctrl-C reaches only the launcher, which stops things in order.
      detached: true,
    });
    // In the turn of the spawn: a stop that comes while it starts finds it.
    if (child.pid !== undefined) this.#remember(child);
    const ready = this.#untilReady(child);
    await new Promise((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    this.ready = await ready;
    this.#onReady();
    return this.ready;
  }

  #remember(child) {
    const record = { pid: child.pid, startTime: startTimeOf(child.pid) };
    const pidFile = pidFileIn(this.#layout.pids, "up");
    writeJson(pidFile, record);
    const logFile = join(this.#layout.run, "up.log");
    this.#supervised = new Supervised({ name: "vexlake up", record, pidFile, logFile, child });
  }

  #untilReady(child) {
    return new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        this.#out.write(`${line}\n`);
        const ready = parseReady(line);
        if (ready) resolve(ready);
      });
      child.once("exit", (code, signal) => {
        const how = signal ? `was ended by ${signal}` : `ended with exit code ${code}`;
        reject(new LauncherError(code || EXIT.internal, `vexlake up ${how} before it was ready`));
      });
    });
  }

  /** Resolves when the present child ends: {code, signal, asked}, asked = by our `stop()`. */
  async exited() {
    const supervised = this.#supervised;
    const exit = await supervised.exited();
    return { ...exit, asked: supervised.stopping };
  }

  async stop() {
    if (this.#supervised) await this.#supervised.stop(STOP_DEADLINE_MS);
  }
}
