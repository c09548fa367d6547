/*
 * Progress on standard error. Several phases may run at once (the addon builds while jars are
 * fetched), so each phase is an object with its own state.
 *
 * With a TTY one line at the bottom is rewritten; without one a phase prints a line when it
 * starts, at most one every 15 s while it moves, and one when it ends. Standard output stays
 * untouched: it belongs to the `ready` line.
 */
const PLAIN_INTERVAL_MS = 15_000;
const TTY_INTERVAL_MS = 200;

/** `3 min 05 s`, `12 s`: rounded, never negative. */
export function formatSeconds(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/**
 * Seconds still to go, or undefined while nothing can be said. Before a tenth is done the prior
 * (`expectedSeconds`) decides; afterwards the pace so far does.
 */
export function estimateSeconds(done, total, elapsedSeconds, expectedSeconds) {
  if (total <= 0 || done >= total) return done >= total && total > 0 ? 0 : undefined;
  if (done / total < 0.1) {
    return expectedSeconds === undefined ? undefined : Math.max(0, expectedSeconds - elapsedSeconds);
  }
  return (elapsedSeconds * (total - done)) / done;
}

export class Progress {
  #stream;
  #now;
  #active = new Set();
  #shown = "";
  #lastDraw = 0;

  constructor(stream = process.stderr, now = () => Date.now()) {
    this.#stream = stream;
    this.#now = now;
  }

  /** A line that stays. */
  line(text) {
    this.#clear();
    this.#stream.write(`${text}\n`);
    this.#draw();
  }

  /** Starts a phase; answers `{update(text), done(text), fail(text)}`. */
  phase(name) {
    const startedAt = this.#now();
    const phase = { name, text: "", lastLine: startedAt };
    this.#active.add(phase);
    if (!this.#stream.isTTY) this.line(`${name} …`);
    const end = (text) => {
      if (!this.#active.delete(phase)) return;
      const seconds = (this.#now() - startedAt) / 1000;
      this.line(`${name}: ${text} (${formatSeconds(seconds)})`);
    };
    return {
      update: (text) => {
        phase.text = text;
        const now = this.#now();
        if (this.#stream.isTTY) {
          if (now - this.#lastDraw >= TTY_INTERVAL_MS) {
            this.#clear();
            this.#draw();
          }
        } else if (now - phase.lastLine >= PLAIN_INTERVAL_MS) {
          phase.lastLine = now;
          this.#stream.write(`${name}: ${text}\n`);
        }
      },
      done: (text = "done") => end(text),
      fail: (text = "failed") => end(text),
    };
  }

  #clear() {
    if (this.#shown && this.#stream.isTTY) this.#stream.write("\r\x1b[2K");
    this.#shown = "";
  }

  #draw() {
    if (!this.#stream.isTTY || this.#active.size === 0) return;
    const width = (this.#stream.columns ?? 80) - 1;
    const text = [...this.#active].map((p) => (p.text ? `${p.name}: ${p.text}` : `${p.name} …`)).join(" · ");
    this.#shown = text.slice(0, width);
    this.#lastDraw = this.#now();
    this.#stream.write(this.#shown);
  }
}
