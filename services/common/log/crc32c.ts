/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) by slicing-by-8: eight table look-ups for eight
 * bytes (Kounavis & Berry, 2005). Node's zlib.crc32 is another polynomial.
 *
 * Used for fingerprints (one record per claim) and for the frames of the local log, which sees each
 * byte once on its way in and once on its way out. The floats inside stay bytes to it.
 */
const POLYNOMIAL = 0x82f63b78;
const SLICES = 8;

/** TABLES[256·s + b]: the CRC of byte b followed by s zero bytes. */
const TABLES = buildTables();

/** CRC-32C of `bytes`; `previous` continues an earlier part's result. */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  const t = TABLES;
  let crc = ~previous;
  let i = 0;
  const sliced = bytes.length - (bytes.length % SLICES);
  for (; i < sliced; i += SLICES) {
    const low =
      crc ^
      ((bytes[i] as number) |
        ((bytes[i + 1] as number) << 8) |
        ((bytes[i + 2] as number) << 16) |
        ((bytes[i + 3] as number) << 24));
    crc =
      (t[1792 + (low & 0xff)] as number) ^
      (t[1536 + ((low >>> 8) & 0xff)] as number) ^
      (t[1280 + ((low >>> 16) & 0xff)] as number) ^
      (t[1024 + (low >>> 24)] as number) ^
      (t[768 + (bytes[i + 4] as number)] as number) ^
      (t[512 + (bytes[i + 5] as number)] as number) ^
      (t[256 + (bytes[i + 6] as number)] as number) ^
      (t[bytes[i + 7] as number] as number);
  }
  for (; i < bytes.length; i++) crc = (t[(crc ^ (bytes[i] as number)) & 0xff] as number) ^ (crc >>> 8);
  return ~crc >>> 0;
}

function buildTables(): Int32Array {
  const tables = new Int32Array(256 * SLICES);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i++) {
    const before = tables[i - 256] as number;
    tables[i] = (tables[before & 0xff] as number) ^ (before >>> 8);
  }
  return tables;
}
