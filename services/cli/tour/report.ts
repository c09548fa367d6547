/** Lines of progress while the tour runs, and the table of facts at its end. */
interface Fact {
  what: string;
  value: string;
  /** undefined: a fact, no check. */
  ok?: boolean;
}

export class Report {
  readonly #facts: Fact[] = [];
  readonly #live: boolean;
  #open = false;
  #shownMs = 0;

  constructor(live: boolean) {
    this.#live = live;
  }

  /** Whether every check passed. */
  get ok(): boolean {
    return this.#facts.every(({ ok }) => ok !== false);
  }

  say(line: string): void {
    this.#end();
    process.stdout.write(`${line}\n`);
  }

  /** Progress: one changing line on a terminal, else a line per 15 seconds. */
  progress(line: string): void {
    if (this.#live) {
      process.stdout.write(`\r\x1b[2K${line}`);
      this.#open = true;
    } else if (Date.now() - this.#shownMs > 15_000) {
      this.#shownMs = Date.now();
      process.stdout.write(`${line}\n`);
    }
  }

  fact(what: string, value: string): void {
    this.#add({ what, value });
  }

  check(what: string, value: string, ok: boolean): void {
    this.#add({ what, value, ok });
  }

  print(): void {
    const width = Math.max(...this.#facts.map(({ what }) => what.length));
    this.say("");
    this.say("report, all numbers from this run");
    for (const { what, value, ok } of this.#facts) {
      this.say(`  ${ok === undefined ? " " : ok ? "✓" : "✗"} ${what.padEnd(width)}  ${value}`);
    }
    this.say(this.ok ? "every check passed" : "a check FAILED");
  }

  #add(fact: Fact): void {
    this.#facts.push(fact);
    this.say(`${fact.what}: ${fact.value}${fact.ok === false ? "  ✗ FAILED" : ""}`);
  }

  #end(): void {
    if (this.#open) process.stdout.write("\r\x1b[2K");
    this.#open = false;
  }
}
