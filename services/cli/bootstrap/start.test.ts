import { describe, expect, it } from "vitest";
import { parseStartArgs, startHelp } from "./args.mjs";
import { chooseJobs, chooseLog, parseReady, rememberedForm, upArguments } from "./choice.mjs";
import { isRetriable, mayRestart } from "./supervise.mjs";

const KAFKA_HERE = { usable: true, why: "Java 17 is present and Maven is present" };
const NO_JAVA = { usable: false, why: "Java >= 17 was not found" };

describe("options of npm start", () => {
  it("should default to a directory, the sample and staying", () => {
    expect(parseStartArgs([])).toEqual({ dataDir: ".vexlake", sample: true, exit: false, help: false });
  });

  it("should read values after a space or an equals sign", () => {
    const options = parseStartArgs([
      "--port",
      "6390",
      "--s3=s3://b/p?x=1",
      "--no-sample",
      "--exit",
      "--log",
      "local",
    ]);
    expect(options).toMatchObject({
      port: 6390,
      s3: "s3://b/p?x=1",
      sample: false,
      exit: true,
      log: "local",
    });
  });

  it.each([
    [["--nope"], /unknown option --nope/],
    [["extra"], /unknown option extra/],
    [["--port"], /--port needs a value/],
    [["--log", "--exit"], /--log needs a value/],
    [["--port", "0"], /1 to 65535/],
    [["--port", "65536"], /1 to 65535/],
    [["--port", "6e3"], /1 to 65535/],
    [["--log", "redpanda"], /one of kafka, local/],
    [["--exit=yes"], /takes no value/],
    [["--kafka", "a:1", "--log", "local"], /contradict/],
  ])("should refuse %j with exit code 2", (argv, message) => {
    const call = () => parseStartArgs(argv as string[]);
    expect(call).toThrow(message as RegExp);
    expect(call).toThrow(expect.objectContaining({ exitCode: 2 }));
  });

  it("should name every option in its help", () => {
    for (const option of [
      "--log",
      "--kafka",
      "--s3",
      "--redis",
      "--data-dir",
      "--port",
      "--http-port",
      "--no-sample",
      "--exit",
    ]) {
      expect(startHelp()).toContain(option);
    }
  });
});

describe("choice of the log", () => {
  const none = parseStartArgs([]);

  it("should take Kafka where Java and Maven are present, else the local log, and say why", () => {
    expect(chooseLog(none, undefined, KAFKA_HERE)).toEqual({ kind: "own-kafka", why: KAFKA_HERE.why });
    expect(chooseLog(none, undefined, NO_JAVA)).toEqual({ kind: "local", why: NO_JAVA.why });
  });

  it("should never flip a remembered choice when Java comes", () => {
    expect(chooseLog(none, { kind: "local" }, KAFKA_HERE).kind).toBe("local");
  });

  it("should end with exit code 3 rather than flip when Java goes", () => {
    const call = () => chooseLog(none, { kind: "own-kafka" }, NO_JAVA);
    expect(call).toThrow(expect.objectContaining({ exitCode: 3 }));
  });

  it("should end with exit code 4 when a flag contradicts the remembered choice", () => {
    const call = () => chooseLog(parseStartArgs(["--log", "local"]), { kind: "own-kafka" }, KAFKA_HERE);
    expect(call).toThrow(expect.objectContaining({ exitCode: 4 }));
  });

  it("should end with exit code 3 when --log kafka is asked of a machine without Java", () => {
    const call = () => chooseLog(parseStartArgs(["--log", "kafka"]), undefined, NO_JAVA);
    expect(call).toThrow(expect.objectContaining({ exitCode: 3 }));
  });

  it("should remember given brokers and accept another list of the same kind", () => {
    const first = chooseLog(parseStartArgs(["--kafka", "a:9092"]), undefined, NO_JAVA);
    expect(rememberedForm(first)).toEqual({ kind: "kafka", brokers: "a:9092" });
    expect(chooseLog(none, rememberedForm(first), KAFKA_HERE)).toMatchObject({
      kind: "kafka",
      brokers: "a:9092",
    });
    expect(chooseLog(parseStartArgs(["--kafka", "b:9092"]), rememberedForm(first), NO_JAVA).brokers).toBe(
      "b:9092",
    );
  });
});

describe("choice of the job queue", () => {
  it("should use the given Redis, else the one on PATH, else the process itself", () => {
    const given = parseStartArgs(["--redis", "redis://h:1/0"]);
    expect(chooseJobs(given, { usable: true, why: "" })).toMatchObject({
      kind: "given",
      url: "redis://h:1/0",
    });
    expect(chooseJobs(parseStartArgs([]), { usable: true, why: "on PATH" }).kind).toBe("own");
    expect(chooseJobs(parseStartArgs([]), { usable: false, why: "not found" }).kind).toBe("in-process");
  });
});

describe("vexlake up", () => {
  it("should be given only what was chosen or asked for", () => {
    const options = parseStartArgs(["--s3", "s3://lake/p", "--port", "7000"]);
    const args = upArguments({
      options,
      dataDir: "/d",
      log: { kind: "own-kafka" },
      brokers: "127.0.0.1:9092",
      redis: undefined,
    });
    expect(args).toEqual([
      "up",
      "--data-dir",
      "/d",
      "--kafka",
      "127.0.0.1:9092",
      "--s3",
      "s3://lake/p",
      "--port",
      "7000",
    ]);
    const local = upArguments({
      options: parseStartArgs([]),
      dataDir: "/d",
      log: { kind: "local" },
      brokers: undefined,
      redis: "redis://h",
    });
    expect(local).toEqual(["up", "--data-dir", "/d", "--log", "local", "--redis", "redis://h"]);
  });

  it("should be understood by its ready line", () => {
    const line =
      "ready resp=127.0.0.1:6380 http=127.0.0.1:8080 log=kafka:127.0.0.1:9092 store=s3://b/p?a=b version=0";
    expect(parseReady(line)).toEqual({
      resp: "127.0.0.1:6380",
      http: "127.0.0.1:8080",
      log: "kafka:127.0.0.1:9092",
      store: "s3://b/p?a=b",
      version: "0",
    });
    expect(parseReady("already there")).toBeUndefined();
  });

  it("should be started again after a kill but not after a usage error", () => {
    expect(isRetriable({ code: null, signal: "SIGKILL" })).toBe(true);
    expect(isRetriable({ code: 70, signal: null })).toBe(true);
    for (const code of [0, 1, 2, 3, 4, 6]) expect(isRetriable({ code, signal: null })).toBe(false);
  });

  it("should be given up after more than three deaths within a minute", () => {
    expect(mayRestart([1_000, 2_000, 3_000], 4_000)).toBe(true);
    expect(mayRestart([1_000, 2_000, 3_000, 4_000], 4_000)).toBe(false);
    expect(mayRestart([1_000, 2_000, 3_000, 70_000], 70_000)).toBe(true);
  });
});
