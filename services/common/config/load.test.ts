import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError } from "../process/error.ts";
import { EXIT } from "../process/exit.ts";
import { loadConfig, storeOptions } from "./load.ts";

describe("configuration", () => {
  let directory = "";
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "vexlake-config-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  async function file(text: string): Promise<string> {
    const path = join(directory, `${Math.random()}.yaml`);
    await writeFile(path, text);
    return path;
  }

  async function failure(work: Promise<unknown>): Promise<ConfigError> {
    const error = await work.then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(ConfigError);
    return error as ConfigError;
  }

  it("should_start_from_defaults_when_nothing_is_given", async () => {
    const { config, given } = await loadConfig({ env: {} });
    expect(config.query.resp).toBe("127.0.0.1:6380");
    expect(config.ingest).toMatchObject({ seal_bytes: 67108864, seal_age_ms: 10000, bad_record: "dlq" });
    expect(config.log).toEqual({ kind: "local", group: "vexlake", session_timeout_ms: 6000 });
    expect(given("query.resp")).toBe(false);
  });

  it("should_read_the_example_of_the_design", async () => {
    const path = await file(`
store: {url: "s3://lake/prod", endpoint: "http://127.0.0.1:8333", path_style: true}
log: {kind: kafka, brokers: ["127.0.0.1:9092"], group: vexlake, session_timeout_ms: 6000}
jobs: {redis: "redis://127.0.0.1:6379/0", prefix: vexlake}
query: {resp: "127.0.0.1:6380", http: "127.0.0.1:8080"}
ingest: {http: "127.0.0.1:8081", memory_bytes_max: 1073741824, seal_bytes: 67108864, seal_age_ms: 10000, bad_record: dlq}
compactor: {http: "127.0.0.1:8082", memory_bytes_max: 536870912, bytes_per_second_max: 104857600, delete_retention_ms: 604800000}
collections: {docs: {dim: 256, metric: cosine, partitions: 4, format: f32}}
`);
    const { config } = await loadConfig({ file: path, env: {} });
    expect(config.store.url).toBe("s3://lake/prod");
    expect(config.collections.docs).toEqual({ dim: 256, metric: "cosine", partitions: 4, format: "f32" });
  });

  it("should_prefer_flag_to_environment_to_file_to_default", async () => {
    const path = await file("ingest: {seal_age_ms: 1000, seal_bytes: 2097152, memory_bytes_max: 33554432}\n");
    const { config, origins } = await loadConfig({
      file: path,
      env: { VEXLAKE_INGEST_SEAL_AGE_MS: "2000", VEXLAKE_INGEST_SEAL_BYTES: "3145728" },
      flags: { "ingest.seal_age_ms": "3000" },
    });
    expect(config.ingest).toMatchObject({
      seal_age_ms: 3000,
      seal_bytes: 3145728,
      memory_bytes_max: 33554432,
    });
    expect(config.ingest.bad_record).toBe("dlq");
    expect([...origins]).toEqual([
      ["ingest.seal_age_ms", "flag"],
      ["ingest.seal_bytes", "environment"],
      ["ingest.memory_bytes_max", "file"],
    ]);
  });

  it("should_turn_environment_text_into_the_type_of_the_key", async () => {
    const { config } = await loadConfig({
      env: { VEXLAKE_LOG_KIND: "kafka", VEXLAKE_LOG_BROKERS: "a:1, b:2", VEXLAKE_STORE_PATH_STYLE: "no" },
    });
    expect(config.log.brokers).toEqual(["a:1", "b:2"]);
    expect(config.store.path_style).toBe(false);
  });

  it("should_exit_2_and_name_an_unknown_key_wherever_it_stands", async () => {
    const inFile = await failure(loadConfig({ file: await file("ingest: {seal_byte: 5}"), env: {} }));
    expect(inFile.message).toContain("unknown key ingest.seal_byte");
    expect(inFile.exitCode).toBe(EXIT.usage);
    const section = await failure(loadConfig({ file: await file("ingst: {}"), env: {} }));
    expect(section.message).toContain("unknown key ingst");
    const variable = await failure(loadConfig({ env: { VEXLAKE_INGEST_SEAL_BYTE: "5" } }));
    expect(variable.message).toContain("VEXLAKE_INGEST_SEAL_BYTE");
    const flag = await failure(loadConfig({ env: {}, flags: { "query.rsp": "x:1" } }));
    expect(flag.message).toContain("query.rsp");
  });

  it("should_ignore_variables_of_no_section", async () => {
    const { origins } = await loadConfig({
      env: { VEXLAKE_CRASH_AT: "commit:1", VEXLAKE_TEST_KAFKA: "a:1" },
    });
    expect(origins.size).toBe(0);
  });

  it("should_name_the_key_and_the_origin_of_a_bad_value", async () => {
    const error = await failure(loadConfig({ env: { VEXLAKE_LOG_SESSION_TIMEOUT_MS: "soon" } }));
    expect(error.message).toMatch(/log\.session_timeout_ms: .*\(from environment\)/);
    const kafka = await failure(loadConfig({ env: { VEXLAKE_LOG_KIND: "kafka" } }));
    expect(kafka.message).toContain("log.brokers: kind kafka needs brokers");
    const seal = await failure(loadConfig({ env: { VEXLAKE_INGEST_SEAL_BYTES: "1073741824" } }));
    expect(seal.message).toContain("ingest.seal_bytes");
  });

  it("should_take_a_share_of_searches_between_none_and_all", async () => {
    expect((await loadConfig({ env: {} })).config.query.recall_sample_ratio).toBe(0.001);
    for (const ratio of [0, 0.5, 1]) {
      const { config } = await loadConfig({ env: { VEXLAKE_QUERY_RECALL_SAMPLE_RATIO: String(ratio) } });
      expect(config.query.recall_sample_ratio).toBe(ratio);
    }
    for (const ratio of ["-0.1", "1.1", "NaN"]) {
      const error = await failure(loadConfig({ env: { VEXLAKE_QUERY_RECALL_SAMPLE_RATIO: ratio } }));
      expect(error.message).toContain("query.recall_sample_ratio");
    }
  });

  it("should_refuse_a_missing_or_broken_file", async () => {
    expect((await failure(loadConfig({ file: join(directory, "none"), env: {} }))).message).toContain(
      "cannot read",
    );
    expect((await failure(loadConfig({ file: await file("a: [1"), env: {} }))).message).toContain("not YAML");
    expect((await failure(loadConfig({ file: await file("log: 5"), env: {} }))).message).toContain("log:");
  });

  it("should_take_secrets_from_the_environment_only", async () => {
    const env = { AWS_ACCESS_KEY_ID: "k", AWS_SECRET_ACCESS_KEY: "s", AWS_REGION: "eu" };
    const { config } = await loadConfig({ env });
    expect(JSON.stringify(config)).not.toContain('"s"');
    expect(storeOptions(config, env, "/lake")).toEqual({
      url: "/lake",
      region: "eu",
      pathStyle: true,
      accessKey: "k",
      secretKey: "s",
    });
    await failure(loadConfig({ file: await file("store: {secret_key: s}"), env: {} }));
  });
});
