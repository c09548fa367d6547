/**
 * Compression codecs for kafkajs, which has gzip only; an unknown codec would end a consumer for good.
 *
 * lz4 is the frame format, zstd is node:zlib's. Java frames snappy in xerial's chunks, other clients
 * write one raw block; both are read, raw is written. kafkajs keeps codecs in a global table, so this
 * registers them once per process.
 */
import { promisify } from "node:util";
import { zstdCompress, zstdDecompress } from "node:zlib";
import kafkajs from "kafkajs";
import { compressFrame, decompressFrame } from "lz4-napi";
import { compress as snappyCompress, uncompress as snappyUncompress } from "snappy";
import { VexError } from "../../process/error.ts";

const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
/** Magic, then version and lowest compatible version, 4 bytes each. */
const XERIAL_HEADER_BYTES = 16;

interface Codec {
  compress(encoder: { buffer: Buffer }): Promise<Buffer>;
  decompress(buffer: Buffer): Promise<Buffer>;
}

let registered = false;

export function registerCodecs(): void {
  if (registered) return;
  registered = true;
  const { CompressionTypes, CompressionCodecs } = kafkajs;
  CompressionCodecs[CompressionTypes.LZ4] = (): Codec => ({
    compress: ({ buffer }) => compressFrame(buffer),
    decompress: (buffer) => decompressFrame(buffer),
  });
  CompressionCodecs[CompressionTypes.ZSTD] = (): Codec => ({
    compress: ({ buffer }) => promisify(zstdCompress)(buffer),
    decompress: (buffer) => promisify(zstdDecompress)(buffer),
  });
  CompressionCodecs[CompressionTypes.Snappy] = (): Codec => ({
    compress: ({ buffer }) => snappyCompress(buffer),
    decompress: decompressSnappy,
  });
}

export async function decompressSnappy(buffer: Buffer): Promise<Buffer> {
  const framed = buffer.length >= XERIAL_HEADER_BYTES && buffer.subarray(0, 8).equals(XERIAL_MAGIC);
  if (!framed) return (await snappyUncompress(buffer, { asBuffer: true })) as Buffer;
  const chunks: Promise<string | Buffer>[] = [];
  let at = XERIAL_HEADER_BYTES;
  while (at < buffer.length) {
    const length = at + 4 <= buffer.length ? buffer.readUInt32BE(at) : Number.POSITIVE_INFINITY;
    at += 4;
    if (at + length > buffer.length) throw new VexError("CORRUPT", "snappy chunk ends beyond its batch");
    chunks.push(snappyUncompress(buffer.subarray(at, at + length), { asBuffer: true }));
    at += length;
  }
  return Buffer.concat((await Promise.all(chunks)) as Buffer[]);
}
