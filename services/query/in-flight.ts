/**
 * What this node's own writes, which it does not show yet, will make of their keys.
 *
 * A write that depends on whether its key is there (writer.ts) asks the engine, whose view ends at what has
 * been applied. Writes of this node may be on the way between the two; here is what they will have done.
 *
 * Invariants
 * - A key is known here from the moment its record has its place in a batch until this node has applied it, or
 *   it is certain that it will never come.
 * - It is a guess about other writers and may be wrong: the verdict on the record decides.
 */

/** One write that is on its way; ends by `land` or, where its client no longer waits, by `drift`. */
export interface Flight {
  readonly key: string;
}

export interface FlyingKey {
  /** where its records go until they are all applied */
  partition: number;
  /** whether there will be a record; undefined: as the engine says */
  present: boolean | undefined;
}

export class InFlight {
  readonly #keys = new Map<string, FlyingKey & { flights: number }>();
  /** Written, but not shown in time: they end when the offset has been applied. */
  #drifting: { flight: Flight; partition: number; offset: bigint }[] = [];

  get size(): number {
    return this.#keys.size;
  }

  find(key: Buffer): FlyingKey | undefined {
    return this.#keys.get(key.toString());
  }

  start(key: Buffer, partition: number, present: boolean | undefined): Flight {
    const text = key.toString();
    const known = this.#keys.get(text);
    if (known === undefined) this.#keys.set(text, { partition, present, flights: 1 });
    else {
      known.flights += 1;
      known.present = present ?? known.present;
    }
    return { key: text };
  }

  land({ key }: Flight): void {
    const known = this.#keys.get(key);
    if (known === undefined) return;
    known.flights -= 1;
    if (known.flights === 0) this.#keys.delete(key);
  }

  drift(flight: Flight, partition: number, offset: bigint): void {
    this.#drifting.push({ flight, partition, offset });
  }

  /** Lets drifting writes land that have been applied; `next` offset to be applied, by partition. */
  sweep(next: ReadonlyMap<number, bigint>): void {
    this.#drifting = this.#drifting.filter(({ flight, partition, offset }) => {
      if ((next.get(partition) ?? 0n) <= offset) return true;
      this.land(flight);
      return false;
    });
  }
}
