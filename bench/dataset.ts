/**
 * Seeded vectors with structure, little-endian float32: a two-level tree of centroids, records around
 * their leaf, unit length. (Uniform noise has no neighbours and flatters or damns every index.)
 *
 * The latent space has 32 dimensions, lifted to D by a fixed random map, so that a leaf's records share
 * directions. Made in chunks: a million 128-d vectors never lie in memory at once.
 */
import { seeded } from "../services/common/seeded.ts";

const LATENT = 32;
const BRANCHES = 32;
const LEAVES = 32;
const SPREAD = 0.35;
const NOISE = 0.05;

export class Vectors {
  readonly dim: number;
  readonly #random: () => number;
  readonly #lift: Float32Array;
  readonly #leaves: Float32Array;

  constructor(dim: number, seed: number) {
    this.dim = dim;
    this.#random = seeded(seed);
    this.#lift = this.#gaussians(LATENT * dim, 1 / Math.sqrt(LATENT));
    const branches = this.#gaussians(BRANCHES * LATENT, 1);
    this.#leaves = this.#gaussians(BRANCHES * LEAVES * LATENT, 0.6);
    for (let i = 0; i < this.#leaves.length; i++) {
      const branch = Math.floor(i / (LEAVES * LATENT));
      this.#leaves[i] = (this.#leaves[i] as number) + (branches[branch * LATENT + (i % LATENT)] as number);
    }
  }

  /** The next `count` vectors, one after another. */
  next(count: number): Buffer {
    const { dim } = this;
    const out = new Float32Array(count * dim);
    const latent = new Float32Array(LATENT);
    for (let row = 0; row < count; row++) {
      const leaf = Math.floor(this.#random() * BRANCHES * LEAVES) * LATENT;
      for (let j = 0; j < LATENT; j++)
        latent[j] = (this.#leaves[leaf + j] as number) + SPREAD * this.#gaussian();
      this.#lifted(latent, out.subarray(row * dim, (row + 1) * dim));
    }
    return Buffer.from(out.buffer);
  }

  #lifted(latent: Float32Array, out: Float32Array): void {
    let square = 0;
    for (let i = 0; i < out.length; i++) {
      let sum = NOISE * (this.#random() - 0.5);
      for (let j = 0; j < LATENT; j++)
        sum += (latent[j] as number) * (this.#lift[j * out.length + i] as number);
      out[i] = sum;
      square += sum * sum;
    }
    const scale = 1 / Math.sqrt(square);
    for (let i = 0; i < out.length; i++) out[i] = (out[i] as number) * scale;
  }

  #gaussians(count: number, scale: number): Float32Array {
    return Float32Array.from({ length: count }, () => scale * this.#gaussian());
  }

  /** Box and Muller. */
  #gaussian(): number {
    return Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
  }
}
