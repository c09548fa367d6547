import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { Redis } from "ioredis";
import { Kafka, logLevel } from "kafkajs";
import { afterEach, describe, expect, it, vi } from "vitest";
import { startTimeOf, writeJson } from "../../services/cli/bootstrap/processes.mjs";
import { parseImages } from "./containers.ts";
import { Resolver, requiredServices, sweepRuns } from "./resolve.ts";
import { parseS3, runPython, type S3Service, suite, temporaryFolder, unique } from "./services.ts";
import { onFirstSignal } from "./stop.ts";
import { formatTable } from "./table.ts";
import { addTotals, readCargoResult, readVitestReport, totalsLine } from "./totals.ts";

describe("a stop of the run", () => {
  it("should begin once, and leave no signal to its default action", () => {
    const handlers: [string | symbol, () => void][] = [];
    const on = vi.spyOn(process, "on").mockImplementation((name, handler) => {
      handlers.push([name, handler as () => void]);
      return process;
    });
    let stops = 0;
    onFirstSignal(async () => {
      stops += 1;
    });
    on.mockRestore();
    expect(handlers.map(([name]) => name)).toEqual(["SIGINT", "SIGTERM"]);
    for (const [, handler] of [...handlers, ...handlers]) handler();
    expect(stops).toBe(1);
  });
});

describe("resolving services", () => {
  it("should read the required services and refuse an unknown name", () => {
    expect(requiredServices("kafka, s3,")).toEqual(new Set(["kafka", "s3"]));
    expect(requiredServices(undefined).size).toBe(0);
    expect(() => requiredServices("kafak")).toThrow(/"kafak"; known: kafka/);
  });

  it("should prefer an address from the environment and say where it came from", async () => {
    const resolver = new Resolver({ VEXLAKE_TEST_REDIS: "redis://h:1/0" });
    expect(await resolver.resolve("redis")).toEqual({
      name: "redis",
      address: "redis://h:1/0",
      how: "environment, VEXLAKE_TEST_REDIS",
    });
    const provided = {
      VEXLAKE_TEST_REDIS: "redis://h:1/0",
      VEXLAKE_TEST_PROVIDED: '{"redis":"local process"}',
    };
    expect((await new Resolver(provided).resolve("redis")).how).toBe("local process");
  });

  it("should read an S3 address with escaped secrets", () => {
    expect(parseS3("http://key:a%2Fb@127.0.0.1:8333/lake")).toEqual({
      endpoint: "http://127.0.0.1:8333",
      region: "us-east-1",
      bucket: "lake",
      accessKey: "key",
      secretKey: "a/b",
    });
  });

  it("should read the image list", () => {
    expect(parseImages("# c\nA_IMAGE=x/y:1\n\nbad line\n")).toEqual(new Map([["A_IMAGE", "x/y:1"]]));
  });
});

describe("leftovers of killed runs", () => {
  const temporary = temporaryFolder();
  afterEach(() => temporary.remove());

  it("should remove the folder of a dead run and keep that of a living one", () => {
    const dead = join(temporary.path, "dead");
    const living = join(temporary.path, "living");
    mkdirSync(join(dead, "pids"), { recursive: true });
    mkdirSync(living, { recursive: true });
    writeJson(join(dead, "owner.json"), { pid: process.pid, startTime: "1" });
    writeJson(join(living, "owner.json"), { pid: process.pid, startTime: startTimeOf(process.pid) });
    sweepRuns(temporary.path);
    expect(() => mkdirSync(dead)).not.toThrow();
    expect(() => mkdirSync(living)).toThrow(/EEXIST/);
  });
});

describe("closing lines", () => {
  it("should read cargo's result line and no other", () => {
    const line =
      "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s";
    expect(readCargoResult(line)).toEqual({ passed: 3, failed: 1, skipped: 2 });
    expect(readCargoResult("test a::b ... ok")).toBeUndefined();
  });

  it("should count a file that fails while it is collected as a failure", () => {
    const report = {
      numPassedTests: 2,
      numFailedTests: 0,
      numPendingTests: 1,
      testResults: [{ status: "failed", assertionResults: [] }],
    };
    expect(readVitestReport(JSON.stringify(report), 1)).toEqual({ passed: 2, failed: 1, skipped: 1 });
  });

  it("should never read as green when vitest itself failed", () => {
    const report = { numPassedTests: 2, numFailedTests: 0, numPendingTests: 0, testResults: [] };
    expect(readVitestReport(JSON.stringify(report), 1).failed).toBe(1);
  });

  it("should sum to the plain line that ends a run", () => {
    const sum = addTotals([
      { passed: 1, failed: 0, skipped: 0 },
      { passed: 2, failed: 1, skipped: 0 },
    ]);
    expect(totalsLine(sum)).toBe("3 passed, 1 failed");
    expect(totalsLine({ ...sum, skipped: 4 })).toBe("3 passed, 1 failed, 4 skipped");
  });

  it("should show each service, how it was provided and its suites", () => {
    const text = formatTable([
      { service: "kafka", how: "local process", run: 3, skipped: 0 },
      { service: "s3b", how: "SKIPPED: no go", run: 0, skipped: 2 },
    ]);
    expect(text.split("\n")).toEqual([
      "service  how it was provided  suites",
      "kafka    local process        3 run",
      "s3b      SKIPPED: no go       2 SKIPPED",
    ]);
  });
});

await suite(["kafka"], "the provided Kafka", ({ kafka }) => {
  it("should give back what was produced", async () => {
    const client = new Kafka({ clientId: "harness", brokers: [kafka.brokers], logLevel: logLevel.NOTHING });
    const topic = unique("harness");
    const admin = client.admin();
    const producer = client.producer({ idempotent: true });
    await admin.connect();
    await producer.connect();
    await admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true });
    await producer.send({ topic, acks: -1, messages: [{ key: "k", value: "v" }] });
    expect(await admin.fetchTopicOffsets(topic)).toMatchObject([{ partition: 0, low: "0", high: "1" }]);
    await producer.disconnect();
    await admin.disconnect();
  });
});

await suite(["redis"], "the provided Redis", ({ redis }) => {
  it("should never evict a job", async () => {
    const client = new Redis(redis.url);
    expect(await client.config("GET", "maxmemory-policy")).toEqual(["maxmemory-policy", "noeviction"]);
    await client.quit();
  });
});

/** The promise that the commit protocol rests on: of two creators of one key exactly one wins. */
async function createRace(s3: S3Service): Promise<number[]> {
  const credentials = { accessKeyId: s3.accessKey, secretAccessKey: s3.secretKey };
  const client = new S3Client({
    endpoint: s3.endpoint,
    region: s3.region,
    forcePathStyle: true,
    credentials,
  });
  const place = { Bucket: s3.bucket, Key: `${unique("harness")}/slot` };
  const attempts = ["a", "b"].map((Body) =>
    client.send(new PutObjectCommand({ ...place, Body, IfNoneMatch: "*" })),
  );
  const outcomes = await Promise.allSettled(attempts);
  const winner = outcomes.findIndex((outcome) => outcome.status === "fulfilled");
  const object = await client.send(new GetObjectCommand(place));
  expect(await object.Body?.transformToString()).toBe(["a", "b"][winner]);
  client.destroy();
  return outcomes.map((outcome) => (outcome.status === "fulfilled" ? 1 : 0)).sort();
}

await suite(["s3"], "the provided SeaweedFS", ({ s3 }) => {
  it("should let exactly one of two creators win", async () => expect(await createRace(s3)).toEqual([0, 1]));
});

await suite(["s3b"], "the provided versitygw", ({ s3b }) => {
  it("should let exactly one of two creators win", async () => expect(await createRace(s3b)).toEqual([0, 1]));
});

await suite(["duckdb", "pyarrow"], "the provided oracles", ({ duckdb, pyarrow }) => {
  it("should run both", async () => {
    expect(
      (await runPython(duckdb, "import duckdb; print(duckdb.sql('select 6 * 7').fetchall()[0][0])")).trim(),
    ).toBe("42");
    expect(
      (
        await runPython(pyarrow, "import sys, pyarrow as p; print(p.array([1, 2]).sum(), sys.argv[1])", ["x"])
      ).trim(),
    ).toBe("3 x");
  });
});
