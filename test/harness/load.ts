/*
 * A paced load of unique keys: what a producer sends while processes die. It lasts as long as the test needs
 * it and has at least `keysMin` keys; each vector follows from its number, so a sample can be searched for.
 */
import type { Producer } from "kafkajs";
import { encode, randomVector, seeded } from "./records.ts";

/** One send: a twentieth of a second at the usual pace. */
const BATCH_KEYS = 50;
const AHEAD_MS = 50;

export interface LoadOptions {
  producer: Producer;
  topic: string;
  dim: number;
  keysMin: number;
  /** While it is needed. */
  keysPerSecond: number;
}

export class Load {
  /** Acknowledged by the broker. */
  produced = 0;
  #needed = true;
  readonly #options: LoadOptions;

  constructor(options: LoadOptions) {
    this.#options = options;
  }

  /** From here on as fast as possible, and only until there are `keysMin`. */
  finish(): void {
    this.#needed = false;
  }

  /** Resolves with the number of records when all are acknowledged. */
  async run(): Promise<number> {
    const { producer, topic, dim, keysMin, keysPerSecond } = this.#options;
    const started = performance.now();
    while (this.#needed || this.produced < keysMin) {
      const due = ((performance.now() - started + AHEAD_MS) / 1_000) * keysPerSecond;
      if (this.#needed && this.produced >= due) {
        await new Promise((resolve) => setTimeout(resolve, AHEAD_MS));
        continue;
      }
      const count = this.#needed ? BATCH_KEYS : 20 * BATCH_KEYS;
      const numbers = Array.from({ length: count }, (_, i) => this.produced + i);
      const messages = numbers.map((n) => encode("f32", { id: keyOf(n), vector: vectorOf(n, dim) }));
      await producer.send({ topic, messages });
      this.produced += count;
    }
    return this.produced;
  }
}

export function keyOf(number: number): string {
  return `key-${number}`;
}

export function vectorOf(number: number, dim: number): Float32Array {
  return randomVector(dim, seeded(number + 1));
}
