/*
 * The running set: own Kafka, own Redis, `vexlake up`; in this order up, in reverse down.
 *
 * A child that dies unasked is started again, at most RESTARTS_MAX times a minute, then everything
 * is stopped. `vexlake up` is only restarted after a signal or an internal error: a usage error,
 * a missing prerequisite or a refused store would only happen again, so its exit code is ours.
 *
 * Invariant: once a stop was asked for nothing is started, and `stop` ends whatever was being started then.
 */
import { EXIT, LauncherError } from "./errors.mjs";

const RESTARTS_MAX = 3;
const RESTART_WINDOW_MS = 60_000;

/** Pure: may a child that died at the given times (ms, oldest first) be started again now? */
export function mayRestart(deaths, now) {
  return deaths.filter((at) => now - at < RESTART_WINDOW_MS).length <= RESTARTS_MAX;
}

/** Pure: is this end of `vexlake up` worth another start? */
export function isRetriable({ code, signal }) {
  return signal !== null || code === EXIT.internal || code === EXIT.unreachable;
}

export class LakeProcesses {
  #up;
  #engines = [];
  #say;
  #listeners = [];
  #stopping = false;
  #armed = false;
  #end;
  /** Resolves with an exit code when the set cannot go on. */
  ended;

  /** @param {(text: string) => void} say */
  constructor(say) {
    this.#say = say;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** Adds a running engine; `again()` starts it anew and answers its `supervised`. */
  addEngine(name, supervised, again) {
    const engine = { name, supervised, starting: undefined };
    this.#engines.push(engine);
    this.#watch(
      name,
      () => engine.supervised.exited(),
      async () => {
        engine.starting = again();
        engine.supervised = await engine.starting;
      },
    );
  }

  /** Starts `up` for the first time; answers its parsed `ready` line. */
  async addUp(up) {
    this.#up = up;
    return await this.#startUp();
  }

  async #startUp(crashAt) {
    this.#armed = crashAt !== undefined;
    const ready = await this.#spawnUp(crashAt === undefined ? {} : { VEXLAKE_CRASH_AT: crashAt });
    this.#watchUp();
    return ready;
  }

  /** The only way to a child: the look at `stopping` and the spawn are one turn. */
  async #spawnUp(extraEnv) {
    if (this.#stopping) throw new LauncherError(EXIT.ok, "vexlake up is not started: stopping");
    return await this.#up.start(extraEnv);
  }

  onExit(listener) {
    this.#listeners.push(listener);
  }

  /** For the tour: a fresh `up`, armed to crash or not. */
  async restart(crashAt) {
    await this.#up.stop();
    try {
      return await this.#startUp(crashAt);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #watchUp() {
    const deaths = [];
    const follow = async () => {
      const exit = await this.#up.exited();
      for (const listener of this.#listeners) listener(exit);
      if (this.#stopping || exit.asked || this.#armed) return;
      const how = exit.signal ? `was ended by ${exit.signal}` : `ended with exit code ${exit.code}`;
      deaths.push(Date.now());
      if (!isRetriable(exit) || !mayRestart(deaths, Date.now())) {
        this.#say(`vexlake up ${how}`);
        this.#end(exit.code ?? EXIT.internal);
        return;
      }
      this.#say(`vexlake up ${how}: starting it again`);
      await this.#spawnUp();
      await follow();
    };
    follow().catch((error) => this.#fail(error));
  }

  #watch(name, exited, again) {
    const deaths = [];
    const follow = async () => {
      await exited();
      if (this.#stopping) return;
      deaths.push(Date.now());
      if (!mayRestart(deaths, Date.now())) {
        this.#say(`${name} keeps dying: stopping`);
        this.#end(EXIT.unreachable);
        return;
      }
      this.#say(`${name} died: starting it again`);
      await again();
      await follow();
    };
    follow().catch((error) => this.#fail(error));
  }

  #fail(error) {
    if (this.#stopping) return;
    this.#say(error.message);
    this.#end(error.exitCode ?? EXIT.internal);
  }

  /** From now on an end is expected: nothing is started again. */
  stopping() {
    this.#stopping = true;
  }

  /** `vexlake up` first, because it flushes into the log; engines in reverse, the broker last. */
  async stop() {
    this.stopping();
    await this.#up?.stop();
    for (const engine of this.#engines.reverse()) {
      // One that was being started again when the stop came; that it failed is no matter now.
      const started = await engine.starting?.catch(() => undefined);
      await (started ?? engine.supervised).stop();
    }
  }
}
