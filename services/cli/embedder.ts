/**
 * Our text embedder as a child process: lines of JSON strings in, float32 little-endian vectors out.
 *
 * It is the same program that `npm start` embeds the sample with; a query must go through the same model.
 * The vectors stay bytes here.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { VexError } from "../common/process/error.ts";

/** The built program: VEXLAKE_EMBED, else what the last `npm start` built. */
export function embedderPath(env: NodeJS.ProcessEnv = process.env): string {
  if (env.VEXLAKE_EMBED) return env.VEXLAKE_EMBED;
  for (const profile of ["fast", "dev"]) {
    const stamp = fileURLToPath(new URL(`../../target/vexlake-${profile}.json`, import.meta.url));
    if (!existsSync(stamp)) continue;
    const { embed } = JSON.parse(readFileSync(stamp, "utf8")) as { embed?: string };
    if (embed !== undefined && existsSync(embed)) return embed;
  }
  throw new VexError("PREREQUISITE", "the embedder is not built: run `npm start` once");
}

/** Runs the embedder; `input` goes to its standard input. Answers its standard output. */
export async function runEmbedder(args: string[], input = ""): Promise<Buffer> {
  const path = embedderPath();
  const child = spawn(path, args, { stdio: ["pipe", "pipe", "pipe"] });
  const chunks: Buffer[] = [];
  let complaint = "";
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-2_000);
  });
  // A child that ends early closes its input; its exit code says more than the EPIPE would.
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code === 0) return Buffer.concat(chunks);
  throw new VexError("INTERNAL", `${path} ${args.join(" ")} ended with ${code}: ${complaint.trim()}`);
}

/** A query as VSIM takes it: `[0.1, …]` as numbers that stay text, anything else through the sample's model. */
export async function vectorWords(dataDir: string, query: string): Promise<(string | Buffer)[]> {
  if (query.trimStart().startsWith("[")) {
    const inner = query.trim().replace(/^\[|\]$/g, "");
    const components = inner.split(",").map((part) => part.trim());
    return ["VALUES", String(components.length), ...components];
  }
  const [vector] = await embedTexts(join(dataDir, "sample", "model.bin"), [query]);
  return ["FP32", vector as Buffer];
}

/** One vector per text. */
export async function embedTexts(model: string, texts: string[]): Promise<Buffer[]> {
  if (!existsSync(model)) {
    throw new VexError(
      "NOT_FOUND",
      `no text model at ${model}: the sample makes it (npm start), or pass a [vector]`,
    );
  }
  const input = texts.map((text) => `${JSON.stringify(text)}\n`).join("");
  const bytes = await runEmbedder(["embed", "--model", model], input);
  const size = bytes.length / texts.length;
  if (!Number.isInteger(size / 4) || size === 0) {
    throw new VexError("INTERNAL", `the embedder answered ${bytes.length} bytes for ${texts.length} texts`);
  }
  return texts.map((_, i) => bytes.subarray(i * size, (i + 1) * size));
}
