/**
 * What only the local log promises: one process, durability over SIGKILL, a torn tail cut, damage named.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  appendFile,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { frameBytes, readFrame, writeFrame } from "../../services/common/log/local/frame.ts";
import { GROUP_BYTES_MAX } from "../../services/common/log/local/recover.ts";
import { LocalSource } from "../../services/common/log/local/source.ts";
import { EXIT } from "../../services/common/process/exit.ts";
import { silentLogger } from "../../services/common/process/logger.ts";
import { numbered, Recorder, text } from "./log.support.ts";

const TOPIC = "vexlake.0.t";
const CHILD = fileURLToPath(new URL("./log.child.ts", import.meta.url));

describe("the local log", () => {
  const directories: string[] = [];
  const open_: LocalSource[] = [];
  const children: ChildProcess[] = [];

  afterEach(async () => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    for (const source of open_.splice(0)) await source.close();
    for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
  });

  async function fresh(): Promise<string> {
    const directory = await mkdtemp(join(tmpdir(), "vexlake-local-"));
    directories.push(directory);
    return directory;
  }
  async function started(directory: string, now?: () => number): Promise<LocalSource> {
    const source = new LocalSource({
      directory,
      logger: silentLogger(),
      segmentBytesMax: 4_096,
      ...(now ? { now } : {}),
    });
    await source.start();
    open_.push(source);
    return source;
  }
  async function stopped(source: LocalSource): Promise<void> {
    open_.splice(open_.indexOf(source), 1);
    await source.close();
  }
  async function values(source: LocalSource): Promise<string[]> {
    const [range] = (await source.ranges(TOPIC)) ?? [];
    const found: string[] = [];
    await source.read(TOPIC, 0, range?.low as bigint, range?.high as bigint, ({ records }) => {
      for (const { value } of records) found.push(String(value));
    });
    return found;
  }
  async function newest(directory: string): Promise<string> {
    const names = (await readdir(join(directory, TOPIC, "0"))).filter((name) => name.endsWith(".log")).sort();
    return join(directory, TOPIC, "0", names.at(-1) as string);
  }
  function child(mode: string, directory: string): ChildProcess {
    const process_ = spawn(process.execPath, [CHILD, mode, directory], { stdio: ["ignore", "pipe", "pipe"] });
    children.push(process_);
    return process_;
  }
  const exitOf = (process_: ChildProcess) =>
    new Promise<number | null>((resolve) => process_.once("exit", (code) => resolve(code)));

  it("should_leave_its_directory_alone_once_it_is_closed", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    const recorder = await new Recorder().consume(source, TOPIC, { kind: "all", group: "g" });
    const report = (offset: bigint) => recorder.consumer.report(new Map([[0, offset]]));
    const reporting = [report(1n), report(2n)];
    await stopped(source);
    const path = join(directory, "@reports", "g.json");
    expect(JSON.parse(await readFile(path, "utf8"))).toEqual({ topic: TOPIC, next: { 0: "2" } });
    await rm(directory, { recursive: true });
    await Promise.all([...reporting, report(3n)]);
    await expect(stat(directory)).rejects.toThrow("ENOENT");
  });

  it("should_hold_every_acknowledged_record_after_sigkill", async () => {
    const directory = await fresh();
    const writer = child("write", directory);
    const ended = exitOf(writer);
    const acknowledged: { offset: bigint; value: string }[] = [];
    for await (const line of createInterface({ input: writer.stdout as NodeJS.ReadableStream })) {
      const [offset, value] = line.split(" ") as [string, string];
      acknowledged.push({ offset: BigInt(offset), value });
      if (acknowledged.length === 300) writer.kill("SIGKILL");
    }
    expect(acknowledged.length).toBeGreaterThanOrEqual(300);
    await ended;
    const source = await started(directory);
    const found = await values(source);
    for (const { offset, value } of acknowledged) expect(found[Number(offset)]).toBe(value);
  });

  it("should_let_a_second_process_exit_4_and_a_stale_lock_be_taken", async () => {
    const directory = await fresh();
    const source = await started(directory);
    const second = child("open", directory);
    let shown = "";
    second.stderr?.on("data", (chunk) => {
      shown += String(chunk);
    });
    expect(await exitOf(second)).toBe(EXIT.inUse);
    expect(shown).toContain(`in use by process ${process.pid}`);
    await expect(started(directory)).rejects.toMatchObject({ code: "IN_USE" });
    await stopped(source);
    const writer = child("write", directory);
    await new Promise((resolve) => writer.stdout?.once("data", resolve));
    writer.kill("SIGKILL");
    await exitOf(writer);
    const next = await started(directory);
    expect((await values(next)).length).toBeGreaterThan(0);
  });

  it("should_cut_a_torn_tail_and_go_on_behind_the_last_whole_record", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    await source.produce(TOPIC, numbered(0, 10));
    await stopped(source);
    const path = await newest(directory);
    const { size } = await stat(path);
    for (const tear of [
      () => truncate(path, size - 3),
      () => appendFile(path, Buffer.alloc(100)),
      () => appendFile(path, Buffer.from([60, 0, 0, 0, 1, 2])),
    ]) {
      await tear();
      const again = await started(directory);
      const before = await values(again);
      expect(before.length).toBeGreaterThanOrEqual(9);
      await again.produce(TOPIC, [{ partition: 0, key: null, value: text("next") }]);
      expect(await values(again)).toEqual([...before, "next"]);
      await stopped(again);
    }
  });

  it("should_never_bring_back_a_record_from_behind_a_cut", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    await source.produce(TOPIC, numbered(0, 3));
    await stopped(source);
    const path = await newest(directory);
    // Three frames of one size: the second is torn, the third is whole and behind it.
    const frame = ((await stat(path)).size - 16) / 3;
    const handle = await open(path, "r+");
    await handle.write(Buffer.from([0xff]), 0, 1, 16 + frame + 20);
    await handle.close();
    const again = await started(directory);
    expect(await values(again)).toEqual(["v0"]);
    await again.produce(TOPIC, [{ partition: 0, key: text("k1"), value: text("n1") }]);
    await stopped(again);
    expect(await values(await started(directory))).toEqual(["v0", "n1"]);
  });

  it("should_cut_nothing_where_a_later_group_proves_that_the_damaged_one_was_acknowledged", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    const sizes: number[] = [];
    for (const prefix of ["a", "b", "c"]) {
      await source.produce(TOPIC, numbered(0, 3, prefix));
      sizes.push((await stat(await newest(directory))).size);
    }
    await stopped(source);
    const path = await newest(directory);
    const flip = async (at: number) => {
      const handle = await open(path, "r+");
      const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, at);
      await handle.write(Buffer.from([(buffer[0] as number) ^ 1]), 0, 1, at);
      await handle.close();
    };
    const [first, second] = sizes as [number, number, number];
    // Every field of a frame, first and last of its group: length, checksum, group, body.
    for (const at of [16, 20, 24, 40, first - 1, first, first + 9, second - 1]) {
      await flip(at);
      await expect(started(directory)).rejects.toMatchObject({ code: "CORRUPT" });
      expect((await stat(path)).size).toBe(sizes[2]);
      await flip(at);
    }
    // The last group cannot be told from a write that was cut off: put aside, not thrown away.
    await flip(second + 20);
    const again = await started(directory);
    expect(await values(again)).toEqual(["a0", "a1", "a2", "b0", "b1", "b2"]);
    const torn = (await readdir(join(directory, TOPIC, "0"))).filter((name) => name.endsWith(".torn"));
    expect(torn).toEqual([`${"0".repeat(20)}.log.${second}.torn`]);
    const kept = await stat(join(directory, TOPIC, "0", torn[0] as string));
    expect(kept.size).toBe((sizes[2] as number) - second);
  });

  it("should_not_take_a_torn_record_for_damage_because_it_carries_frames_of_another_log", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    await source.produce(TOPIC, numbered(0, 3));
    // A record whose value is a frame as it would lie in this very place, of an offset long passed.
    const size = (await stat(await newest(directory))).size;
    const inner = Buffer.alloc(200);
    const end = writeFrame(
      inner,
      0,
      { key: null, value: text("x") },
      { offset: 1n, timestamp: 1, group: size + 1 },
    );
    await source.produce(TOPIC, [{ partition: 0, key: null, value: inner.subarray(0, end) }]);
    await stopped(source);
    await truncate(await newest(directory), (await stat(await newest(directory))).size - 1);
    expect(await values(await started(directory))).toEqual(["v0", "v1", "v2"]);
  });

  it("should_name_the_format_of_a_log_that_another_version_wrote", async () => {
    const directory = await fresh();
    await stopped(await started(directory));
    await writeFile(join(directory, "log.json"), '{"format":1,"cluster":"local-x"}');
    await expect(started(directory)).rejects.toMatchObject({
      code: "MISMATCH",
      message: expect.stringContaining("has format 1, this version reads 2"),
    });
  });

  it("should_doubt_a_call_that_is_written_in_part", async () => {
    const directory = await fresh();
    // The clock is asked once for the topic and once a group; the second group fails.
    let asked = 0;
    const source = await started(directory, () => {
      asked += 1;
      if (asked === 3) throw new Error("no space left");
      return 1_000;
    });
    await source.ensureTopic(TOPIC, 1);
    const part = { partition: 0, key: null, value: Buffer.alloc(5_000_000) };
    await expect(source.produce(TOPIC, [part, part])).rejects.toMatchObject({
      code: "UNAVAILABLE",
      doubt: true,
      retriable: false,
    });
    expect((await source.ranges(TOPIC))?.[0]?.high).toBe(1n);
  });

  it("should_name_damage_to_acknowledged_records_and_cut_nothing", async () => {
    const directory = await fresh();
    const source = new LocalSource({ directory, logger: silentLogger() });
    await source.start();
    await source.ensureTopic(TOPIC, 1);
    const large = { partition: 0, key: null, value: Buffer.alloc(1_000_000) };
    for (let i = 0; i < 10; i++) await source.produce(TOPIC, [large]);
    await source.close();
    const path = await newest(directory);
    const { size } = await stat(path);
    expect(size).toBeGreaterThan(GROUP_BYTES_MAX);
    const handle = await open(path, "r+");
    await handle.write(Buffer.from([1]), 0, 1, 500);
    await handle.close();
    const damaged = new LocalSource({ directory, logger: silentLogger() });
    await expect(damaged.start()).rejects.toMatchObject({ code: "CORRUPT" });
    expect((await stat(path)).size).toBe(size);
  });

  it("should_stop_a_consumer_at_a_damaged_record_of_an_older_segment", async () => {
    const directory = await fresh();
    const source = await started(directory);
    await source.ensureTopic(TOPIC, 1);
    for (let i = 0; i < 50; i++) await source.produce(TOPIC, numbered(0, 10));
    const [oldest] = (await readdir(join(directory, TOPIC, "0"))).sort();
    const handle = await open(join(directory, TOPIC, "0", oldest as string), "r+");
    await handle.write(Buffer.from([0xff]), 0, 1, 60);
    await handle.close();
    const recorder = await new Recorder().consume(source, TOPIC);
    while (recorder.stopped.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(recorder.stopped[0]).toMatchObject({ partition: 0, reason: "failed" });
    expect(recorder.stopped[0]?.message).toContain("CORRUPT");
  });

  it("should_never_let_timestamps_run_backwards_even_over_a_restart", async () => {
    const directory = await fresh();
    let clock = 1_000;
    const source = await started(directory, () => clock);
    await source.ensureTopic(TOPIC, 1);
    await source.produce(TOPIC, numbered(0, 1));
    clock = 500;
    await source.produce(TOPIC, numbered(0, 1));
    await stopped(source);
    const again = await started(directory, () => clock);
    await again.produce(TOPIC, numbered(0, 1));
    clock = 2_000;
    await again.produce(TOPIC, numbered(0, 1));
    const times: number[] = [];
    await again.read(TOPIC, 0, 0n, 4n, ({ records }) => {
      for (const { timestamp } of records) times.push(timestamp);
    });
    expect(times).toEqual([1_000, 1_000, 1_000, 2_000]);
  });

  it("should_find_an_offset_by_time_in_any_of_its_segments", async () => {
    const directory = await fresh();
    let clock = 0;
    const source = await started(directory, () => clock);
    await source.ensureTopic(TOPIC, 1);
    for (let i = 0; i < 40; i++) {
      // Four groups a time, so that one time spans two segments.
      clock = 10 * Math.floor(i / 4);
      await source.produce(TOPIC, numbered(0, 10));
    }
    expect((await readdir(join(directory, TOPIC, "0"))).length).toBeGreaterThan(3);
    for (let time = 0; time <= 90; time++) {
      const [found] = await source.offsetsAt(TOPIC, time);
      expect(found?.offset).toBe(BigInt(40 * Math.ceil(time / 10)));
    }
    expect((await source.offsetsAt(TOPIC, 91))[0]?.offset).toBe(400n);
  });

  it("should_refuse_names_and_records_that_it_cannot_hold", async () => {
    const source = await started(await fresh());
    for (const name of ["..", "a/b", "", "@reports"]) {
      await expect(source.ensureTopic(name, 1)).rejects.toMatchObject({ code: "INVALID" });
    }
    await source.ensureTopic(TOPIC, 1);
    const tooLarge = { partition: 0, key: null, value: Buffer.alloc(9 * 1024 * 1024) };
    await expect(source.produce(TOPIC, [tooLarge])).rejects.toMatchObject({ code: "INVALID" });
    expect((await source.ranges(TOPIC))?.[0]?.high).toBe(0n);
  });

  it("should_read_back_any_record_from_its_frame_as_views_of_the_buffer", () => {
    const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
    fc.assert(
      fc.property(
        fc.record({
          partition: fc.constant(0),
          key: fc.option(bytes),
          value: fc.option(bytes),
          headers: fc.dictionary(fc.string({ maxLength: 8 }), bytes, { noNullPrototype: true }),
        }),
        fc.bigInt({ min: 0n, max: 2n ** 62n }),
        fc.nat(),
        fc.nat(60),
        (message, offset, timestamp, cut) => {
          const size = frameBytes(message);
          const buffer = Buffer.alloc(size + 5);
          expect(writeFrame(buffer, 5, message, { offset, timestamp, group: 16 })).toBe(size + 5);
          const frame = readFrame(buffer, 5, () => "here");
          expect(frame?.end).toBe(size + 5);
          expect(frame?.record).toMatchObject({ offset, timestamp });
          expect(frame?.record.key ?? null).toEqual(message.key);
          expect(frame?.record.value ?? null).toEqual(message.value);
          if (frame?.record.value) expect(frame.record.value.buffer).toBe(buffer.buffer);
          expect({ ...frame?.record.headers }).toEqual(message.headers);
          const short = buffer.subarray(0, 5 + Math.min(cut, size - 1));
          expect(readFrame(short, 5, () => "here")).toBeNull();
          buffer[5 + 8 + (cut % (size - 8))]! ^= 1;
          expect(() => readFrame(buffer, 5, () => "here")).toThrow(/checksum/);
        },
      ),
    );
  });
});
