import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { runEmbedder } from "../embedder.ts";
import { cutCorpus, findRoots } from "./corpus.mjs";

/** Cutting takes seconds, training in the dev profile too; on a busy machine ten times that. */
const TIMEOUT_MS = 300_000;
const DIM = 256;

const folder = mkdtempSync(join(tmpdir(), "vexlake-embedding-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it(
  "should find the passage a sentence was cut from among the nearest ten, in 4 of 5 cases, on this machine's documentation",
  async () => {
    const passages = cutCorpus({ roots: findRoots() });
    const corpus = join(folder, "passages.jsonl");
    const model = join(folder, "model.bin");
    const vectors = join(folder, "vectors.f32");
    writeFileSync(corpus, passages.map((passage) => `${JSON.stringify(passage)}\n`).join(""));

    await runEmbedder(["train", "--in", corpus, "--model", model, "--out", vectors, "--dim", String(DIM)]);
    expect(statSync(vectors).size).toBe(passages.length * DIM * 4);

    // It exits with 1, and runEmbedder throws, below the bar.
    const said = await runEmbedder([
      "evaluate",
      "--in",
      corpus,
      "--model",
      model,
      "--queries",
      "200",
      "--bar",
      "80",
    ]);
    expect(said.toString()).toMatch(/^\d+ of 200 queries among the nearest 10: \d+\.\d %/);
  },
  TIMEOUT_MS,
);
