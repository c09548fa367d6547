/**
 * A barrier: appends pass together, exclusive work waits for them and holds back new ones.
 *
 * Ingest needs it between appends and a seal: the dead letters of everything that a commit covers must
 * be acknowledged before that commit (DESIGN §5.2), so a seal must not fall between an append and its
 * dead letters. Exclusive work runs one at a time and is not starved: once it asks, nobody enters.
 */
export class Barrier {
  #inside = 0;
  #exclusive: Promise<void> = Promise.resolve();
  #closed = false;
  #emptied: (() => void) | null = null;

  /** Runs `work` beside others that passed. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    while (this.#closed) await this.#exclusive;
    this.#inside += 1;
    try {
      return await work();
    } finally {
      this.#inside -= 1;
      if (this.#inside === 0) this.#emptied?.();
    }
  }

  /** Runs `work` when nobody is inside; who comes meanwhile waits. */
  async exclusive<T>(work: () => Promise<T>): Promise<T> {
    while (this.#closed) await this.#exclusive;
    this.#closed = true;
    const { promise, resolve: open } = Promise.withResolvers<void>();
    this.#exclusive = promise;
    try {
      if (this.#inside > 0) {
        await new Promise<void>((resolve) => {
          this.#emptied = resolve;
        });
        this.#emptied = null;
      }
      return await work();
    } finally {
      this.#closed = false;
      open();
    }
  }
}
