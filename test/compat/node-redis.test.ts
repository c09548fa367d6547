import { createClient } from "redis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type QueryNode, startQueryNode } from "./node.ts";

let node: QueryNode;

beforeAll(async () => {
  node = await startQueryNode();
});

afterAll(async () => {
  await node?.close();
});

for (const RESP of [2, 3] as const) {
  describe(`node-redis over RESP${RESP}`, () => {
    it("should understand every vector-set reply with its own parsers", async () => {
      const key = `docs${RESP}`;
      const client = createClient({ RESP, socket: { host: node.host, port: node.port } });
      await client.connect();
      try {
        expect(await client.vAdd(key, [1, 0], "east", { SETATTR: { side: "e" } })).toBe(true);
        expect(await client.vAdd(key, [0, 1], "north", { QUANT: "NOQUANT", EF: 100, CAS: true })).toBe(true);
        expect(await client.vAdd(key, [0, 1], "north")).toBe(false);
        expect(await client.vCard(key)).toBe(2);
        expect(await client.vDim(key)).toBe(2);
        expect(await client.vEmb(key, "east")).toEqual([1, 0]);
        // Sent as it is: over RESP2 node-redis's own parser of VEMB does not expect the nil that Redis
        // answers.
        expect(await client.sendCommand(["VEMB", key, "nobody"])).toBeNull();
        expect(await client.vEmbRaw(key, "east")).toMatchObject({ quantization: "f32", l2Norm: 1 });
        expect(await client.vSim(key, [1, 0])).toEqual(["east", "north"]);
        expect(await client.vSim(key, "north", { COUNT: 1, EF: 500, TRUTH: true, NOTHREAD: true })).toEqual([
          "north",
        ]);
        expect(await client.vSimWithScores(key, [1, 0])).toEqual({ east: 1, north: 0.5 });
        expect(await client.vGetAttr(key, "east")).toEqual({ side: "e" });
        expect(await client.vGetAttr(key, "north")).toBeNull();
        expect(await client.vSetAttr(key, "north", { side: "n" })).toBe(true);
        expect(await client.vSetAttr(key, "nobody", { side: "n" })).toBe(false);
        expect(await client.vGetAttr(key, "north")).toEqual({ side: "n" });
        expect(await client.vInfo(key)).toMatchObject({ "quant-type": "f32", "vector-dim": 2, size: 2 });
        expect(await client.vRem(key, "east")).toBe(true);
        expect(await client.vRem(key, "east")).toBe(false);
        await expect(client.vAdd(key, [0, 1], "x", { QUANT: "Q8" })).rejects.toThrow("Q8 is refused");
        expect(await client.vSim(key, [1, 0], { FILTER: ".side == 'n'" })).toEqual(["north"]);
      } finally {
        client.destroy();
      }
    });
  });
}

describe("node-redis with a password", () => {
  it("should be let in with it and by nothing else", async () => {
    const closed = await startQueryNode({ password: "secret" });
    try {
      const socket = { host: closed.host, port: closed.port, reconnectStrategy: false } as const;
      const client = createClient({ socket, password: "secret" });
      await client.connect();
      expect(await client.dbSize()).toBe(0);
      client.destroy();
      const stranger = createClient({ socket, password: "wrong" });
      stranger.on("error", () => undefined);
      await expect(stranger.connect()).rejects.toThrow("WRONGPASS");
      stranger.destroy();
    } finally {
      await closed.close();
    }
  });
});
