/**
 * The default partitioner of Kafka's Java client: 32-bit murmur2 of the key, made positive by masking
 * the sign bit, modulo the partitions. A key must reach the same partition whoever writes it, because
 * offset order inside a partition decides which record of a key is the newest (DESIGN §3).
 *
 * Follows org.apache.kafka.common.utils.Utils.murmur2; kafkajs has the same over 64-bit arithmetic in
 * JavaScript objects, which costs ~50 times as much. A test compares the two.
 */
const SEED = 0x9747b28c;
const M = 0x5bd1e995;
const R = 24;

export function murmur2(key: Uint8Array): number {
  const length = key.length;
  let h = SEED ^ length;
  const whole = length & ~3;
  for (let i = 0; i < whole; i += 4) {
    let k =
      (key[i] as number) |
      ((key[i + 1] as number) << 8) |
      ((key[i + 2] as number) << 16) |
      ((key[i + 3] as number) << 24);
    k = Math.imul(k, M);
    k ^= k >>> R;
    k = Math.imul(k, M);
    h = Math.imul(h, M) ^ k;
  }
  if (whole < length) {
    if (length - whole === 3) h ^= (key[whole + 2] as number) << 16;
    if (length - whole >= 2) h ^= (key[whole + 1] as number) << 8;
    h = Math.imul(h ^ (key[whole] as number), M);
  }
  h = Math.imul(h ^ (h >>> 13), M);
  return h ^ (h >>> 15);
}

export function partitionFor(key: Uint8Array, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}
