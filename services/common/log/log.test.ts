import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { crc32c } from "./crc32c.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { murmur2, partitionFor } from "./murmur2.ts";
import { type LogBatch, type LogRecord, NO_HEADERS } from "./source.ts";
import { packBatch, RECORD_ENTRY_BYTES } from "./table.ts";
import { deadLetterTopicFor, topicFor } from "./topic.ts";

const require = createRequire(import.meta.url);
const peer = require("kafkajs/src/producer/partitioners/default/murmur2.js") as (key: Buffer) => number;

describe("topic names", () => {
  it("should_escape_every_byte_outside_the_safe_set", () => {
    expect(topicFor(0, "docs")).toBe("vexlake.0.docs");
    expect(topicFor(3, "a b.ü_-")).toBe("vexlake.3.a.20b.2e.c3.bc_-");
    expect(deadLetterTopicFor("vexlake.0.docs")).toBe("vexlake.0.docs.dlq");
  });

  it("should_give_different_names_different_topics", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 20 }), fc.string({ maxLength: 20 }), (a, b) => {
        // Lone surrogates all become U+FFFD in UTF-8: one name by definition.
        fc.pre(Buffer.from(a).compare(Buffer.from(b)) !== 0);
        expect(topicFor(0, a)).not.toBe(topicFor(0, b));
      }),
    );
  });

  it("should_refuse_a_name_that_no_topic_can_hold", () => {
    expect(() => topicFor(0, "ü".repeat(100))).toThrow(/at most 245/);
  });
});

describe("murmur2", () => {
  it("should_agree_with_the_java_client_on_its_own_test_values", () => {
    // org.apache.kafka.common.utils.UtilsTest#testMurmur2
    const cases: [string, number][] = [
      ["21", -973932308],
      ["foobar", -790332482],
      ["a-little-bit-long-string", -985981536],
      ["a-little-bit-longer-string", -1486304829],
      ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
      ["abc", 479470107],
    ];
    for (const [text, hash] of cases) expect(murmur2(Buffer.from(text))).toBe(hash);
  });

  it("should_agree_with_kafkajs_on_any_key", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.integer({ min: 1, max: 64 }), (key, partitions) => {
        expect(murmur2(key)).toBe(peer(Buffer.from(key)) | 0);
        expect(partitionFor(key, partitions)).toBeLessThan(partitions);
      }),
    );
  });
});

describe("crc32c", () => {
  const slow = (bytes: Uint8Array) => {
    let crc = 0xffffffff;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    }
    return ~crc >>> 0;
  };

  it("should_give_the_check_value_of_the_standard", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(0))).toBe(0);
  });

  it("should_agree_with_the_bitwise_definition_and_continue_across_parts", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), (bytes, cut) => {
        expect(crc32c(bytes)).toBe(slow(bytes));
        expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(slow(bytes));
      }),
    );
  });

  it("should_agree_with_the_golden_fingerprints", () => {
    const path = new URL("../../../schemas/fixtures/records-v1/fingerprints.json", import.meta.url);
    type Part = { text: string } | { base64: string } | { repeat: [string, number] } | null;
    const golden = JSON.parse(readFileSync(path, "utf8")) as {
      cases: { key: Part; value: Part; crc32c: string }[];
    };
    const bytes = (part: Part) => {
      if (part === null) return null;
      if ("repeat" in part) return Buffer.from(part.repeat[0].repeat(part.repeat[1]));
      return "text" in part ? Buffer.from(part.text) : Buffer.from(part.base64, "base64");
    };
    expect(golden.cases.length).toBeGreaterThan(0);
    for (const { key, value, crc32c: expected } of golden.cases) {
      const record = { key: bytes(key), value: bytes(value), headers: {}, timestamp: 1, offset: 0n };
      expect(fingerprintOf(record).crc32c.toString(16).padStart(8, "0")).toBe(expected);
    }
  });
});

describe("batch table", () => {
  const shared = Buffer.from("keyAvalueAf32keyBvalueB");
  const record = (over: Partial<LogRecord>): LogRecord => ({
    key: null,
    value: null,
    headers: NO_HEADERS,
    timestamp: 0,
    offset: 0n,
    ...over,
  });
  const entry = (table: Uint8Array, index: number) => {
    const view = new DataView(
      table.buffer,
      table.byteOffset + index * RECORD_ENTRY_BYTES,
      RECORD_ENTRY_BYTES,
    );
    const spans = [16, 28, 40, 52, 64, 76, 88].map((at) =>
      [0, 4, 8].map((o) => view.getUint32(at + o, true)),
    );
    return { offset: view.getBigInt64(0, true), timestamp: view.getBigInt64(8, true), spans };
  };
  const text = (buffers: Uint8Array[], span: number[] | undefined) => {
    const [index, start, length] = span as [number, number, number];
    return index === 0xffffffff
      ? null
      : Buffer.from(buffers[index] as Uint8Array)
          .subarray(start, start + length)
          .toString();
  };

  it("should_point_every_span_into_a_deduplicated_buffer_list", () => {
    const other = Buffer.from(new ArrayBuffer(4));
    other.write("1234");
    const batch: LogBatch = {
      partition: 0,
      from: 5n,
      to: 2n ** 40n + 1n,
      records: [
        record({
          key: shared.subarray(0, 4),
          value: shared.subarray(4, 10),
          offset: 5n,
          timestamp: 1_767_225_600_123,
          headers: { "vexlake-format": shared.subarray(10, 13), "vexlake-write": other, unknown: other },
        }),
        record({ key: shared.subarray(13, 17), offset: 2n ** 40n, timestamp: -1 }),
        record({ key: shared.subarray(0, 0), value: other.subarray(1, 3), offset: 2n ** 40n }),
      ],
    };
    const { buffers, table } = packBatch(batch);
    expect(buffers).toHaveLength(2);
    expect(buffers[0]?.buffer).toBe(shared.buffer);
    expect(table).toHaveLength(300);
    const first = entry(table, 0);
    expect([first.offset, first.timestamp]).toEqual([5n, 1_767_225_600_123n]);
    expect(first.spans.map((span) => text(buffers, span))).toEqual([
      "keyA",
      "valueA",
      "f32",
      null,
      null,
      null,
      "1234",
    ]);
    const second = entry(table, 1);
    expect([second.offset, second.timestamp]).toEqual([2n ** 40n, -1n]);
    expect(second.spans.map((span) => text(buffers, span))).toEqual([
      "keyB",
      null,
      null,
      null,
      null,
      null,
      null,
    ]);
    expect(
      entry(table, 2)
        .spans.map((span) => text(buffers, span))
        .slice(0, 2),
    ).toEqual(["", "23"]);
  });

  it("should_be_empty_for_a_batch_that_only_covers_gaps", () => {
    const { buffers, table } = packBatch({ partition: 0, from: 1n, to: 9n, records: [] });
    expect([buffers.length, table.length]).toEqual([0, 0]);
  });
});
