import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { brokersInMetadata, exchange, metadataRequest, probeS3 } from "../probes.mjs";
import { cached } from "./cache.mjs";
import { clusterId, jarLocation, KAFKA_VERSION, pomOf, serverProperties } from "./kafka.mjs";

let folder: string;
const cacheHome = process.env.XDG_CACHE_HOME;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vexlake-provision-"));
  process.env.XDG_CACHE_HOME = folder;
});
afterEach(() => {
  if (cacheHome === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = cacheHome;
  rmSync(folder, { recursive: true, force: true });
});

describe("cache of downloads", () => {
  it("should fill an entry once, also when two ask at the same time", async () => {
    let fills = 0;
    const fill = async (into: string) => {
      fills += 1;
      writeFileSync(join(into, "f"), "x");
    };
    const [first, second] = await Promise.all([cached("k-1", fill), cached("k-1", fill)]);
    expect(first).toBe(second);
    expect(await cached("k-1", fill)).toBe(first);
    expect(fills).toBe(1);
  });

  it("should leave nothing behind when filling fails, so that the next start tries again", async () => {
    const failing = cached("k-2", async (into) => {
      writeFileSync(join(into, "half"), "x");
      throw new Error("disk full");
    });
    await expect(failing).rejects.toThrow("disk full");
    expect(existsSync(join(folder, "vexlake", "k-2"))).toBe(false);
  });
});

describe("kafka", () => {
  it("should place a jar where every Maven repository keeps it", () => {
    expect(jarLocation("org.apache.kafka:kafka_2.13:4.3.1")).toEqual({
      file: "kafka_2.13-4.3.1.jar",
      path: "org/apache/kafka/kafka_2.13/4.3.1/kafka_2.13-4.3.1.jar",
    });
    expect(KAFKA_VERSION).toBe("4.3.1");
  });

  it("should ask Maven for exactly the listed jars", () => {
    const pom = pomOf(["a.b:c:1"]);
    expect(pom).toContain("<groupId>a.b</groupId><artifactId>c</artifactId><version>1</version>");
    expect(pom).toContain("<exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion>");
  });

  it("should make cluster ids of 22 characters without a leading dash", () => {
    const id = clusterId(Buffer.alloc(16, 0xff).fill(0xf8, 0, 1));
    expect(clusterId(Buffer.from([0xfb, ...Array(15).fill(0xef)]))).not.toMatch(/^-/);
    expect(id).toHaveLength(22);
  });

  it("should listen on the loopback interface only", () => {
    const text = serverProperties({ port: 9092, controllerPort: 9093, dataFolder: "/d" });
    expect(text).toContain("listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093");
    expect(text).not.toMatch(/0\.0\.0\.0/);
  });
});

describe("probes", () => {
  it("should frame a Metadata request that asks for no topic", () => {
    const bytes = metadataRequest();
    expect(bytes.readInt32BE(0)).toBe(bytes.length - 4);
    expect([bytes.readInt16BE(4), bytes.readInt16BE(6)]).toEqual([3, 1]);
    expect(bytes.readInt32BE(bytes.length - 4)).toBe(0);
  });

  it("should refuse a reply to another request", () => {
    const reply = Buffer.alloc(12);
    expect(() => brokersInMetadata(reply)).toThrow(/somebody else/);
    reply.writeInt32BE(metadataRequest().readInt32BE(8), 4);
    reply.writeInt32BE(1, 8);
    expect(brokersInMetadata(reply)).toBe(1);
  });

  it("should tell an S3 endpoint from another HTTP server and from nothing", async () => {
    let body = "<html>hello</html>";
    const server = createServer((_, response) => response.end(body));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const at = { host: "127.0.0.1", port: (server.address() as { port: number }).port };
    await expect(probeS3(at)).rejects.toThrow(/without an S3 answer/);
    body = "<Error><Code>AccessDenied</Code></Error>";
    await probeS3(at);
    await new Promise((resolve) => server.close(resolve));
    await expect(probeS3(at)).rejects.toThrow();
    await expect(exchange({ ...at, send: "x", enough: () => true })).rejects.toThrow(/ECONNREFUSED/);
  });
});
