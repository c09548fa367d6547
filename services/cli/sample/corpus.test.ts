import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cutCorpus, findRoots } from "./corpus.mjs";
import { declarationBlocks, markdownBlocks, rustBlocks } from "./extract.mjs";

/** Twelve words of their own per number: long enough that three make a passage, never twice the same. */
function sentence(topic: string, n: number): string {
  const words = Array.from(
    { length: 12 },
    (_, i) => `${topic}${String.fromCharCode(97 + ((n + i) % 26))}${"x".repeat(n % 7)}`,
  );
  return `${words.join(" ")} ${"abcdefghij"[n % 10]}${"abcdefghij"[Math.floor(n / 10) % 10]} end.`;
}

let machine: string;

function write(path: string, text: string): void {
  const file = join(machine, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}

beforeAll(() => {
  machine = mkdtempSync(join(tmpdir(), "vexlake-corpus-"));
  const long = (topic: string, count: number) =>
    Array.from({ length: count }, (_, n) => sentence(topic, n)).join("\n\n");
  write("npm/alpha/README.md", `# Alpha\n\n${long("apple", 20)}`);
  write("npm/beta/README.md", `# Alpha, copied\n\n${long("apple", 20)}`);
  write("npm/beta/CHANGELOG.md", long("change", 20));
  write("npm/beta/README.zh-CN.md", long("translation", 20));
  write("npm/beta/node_modules/@scope/gamma/docs/guide.md", long("guide", 20));
  write(
    "npm/huge/README.md",
    Array.from({ length: 900 }, (_, n) => sentence(`huge${"pqrstuvw"[n % 8]}`, n)).join("\n\n"),
  );
  write("crates/delta-1.2.3/src/lib.rs", `//! ${long("crate", 20).replaceAll("\n\n", "\n//!\n//! ")}\n`);
  write("crates/delta-1.2.3/.cargo-ok", "ok");
  write(
    "crates/unpacking-1.0.0/src/lib.rs",
    `//! ${long("partial", 20).replaceAll("\n\n", "\n//!\n//! ")}\n`,
  );
});

afterAll(() => rmSync(machine, { recursive: true, force: true }));

function fixtureRoots() {
  return [
    { label: "npm", dir: join(machine, "npm") },
    { label: "crates", dir: join(machine, "crates") },
  ];
}

describe("the corpus", () => {
  it("should name passages by paths below their root, with package and title", () => {
    const passages = cutCorpus({ roots: fixtureRoots() });
    const paths = new Set(passages.map((passage) => passage.path));
    expect([...paths].sort()).toEqual([
      "crates/delta-1.2.3/src/lib.rs",
      "npm/alpha/README.md",
      "npm/beta/node_modules/@scope/gamma/docs/guide.md",
      "npm/huge/README.md",
    ]);
    const first = passages.find((passage) => passage.key === "npm/alpha/README.md#1");
    expect(first).toMatchObject({ package: "alpha", title: "Alpha" });
    expect(new Set(passages.map((passage) => passage.package))).toEqual(
      new Set(["alpha", "@scope/gamma", "delta", "huge"]),
    );
    expect(new Set(passages.map((passage) => passage.key)).size).toBe(passages.length);
    expect(JSON.stringify(passages)).not.toContain(machine);
  });

  it("should cut passages of 250 to 900 characters and keep at most 200 of a package", () => {
    const passages = cutCorpus({ roots: fixtureRoots() });
    for (const { text } of passages) {
      expect(text.length).toBeGreaterThanOrEqual(250);
      expect(text.length).toBeLessThanOrEqual(900);
    }
    const crowded = Array.from({ length: 2_000 }, (_, n) =>
      sentence(`w${n.toString(36).replace(/\d/g, "q")}y`, n),
    );
    write("npm/crowd/README.md", crowded.map((text) => `${text} ${text} ${text}`).join("\n\n"));
    const crowd = cutCorpus({ roots: fixtureRoots() }).filter((passage) => passage.package === "crowd");
    rmSync(join(machine, "npm", "crowd"), { recursive: true });
    expect(crowd.length).toBe(200);
  });

  it("should be the same for the same seed, ordered otherwise for another, and its prefix for a smaller count", () => {
    const all = cutCorpus({ roots: fixtureRoots(), seed: 1 });
    expect(cutCorpus({ roots: fixtureRoots(), seed: 1 })).toEqual(all);
    expect(cutCorpus({ roots: fixtureRoots(), seed: 2 })).not.toEqual(all);
    expect(cutCorpus({ roots: fixtureRoots(), seed: 1, count: 7 })).toEqual(all.slice(0, 7));
  });

  it("should write JSONL from the command line and refuse what it cannot read", () => {
    const out = join(machine, "out", "passages.jsonl");
    const script = fileURLToPath(new URL("./corpus.mjs", import.meta.url));
    const run = (...args: string[]) =>
      execFileSync(process.execPath, [script, ...args], { stdio: "pipe" }).toString();
    expect(run("--out", out, "--root", `npm=${join(machine, "npm")}`, "--count", "5")).toMatch(
      /^5 passages of \d packages/,
    );
    const lines = readFileSync(out, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => Object.keys(JSON.parse(line)))).toEqual(
      Array.from({ length: 5 }, () => ["key", "package", "path", "title", "text"]),
    );
    expect(() => run("--out", out, "--count", "none")).toThrow(/--count is none/);
    expect(() => run()).toThrow(/needs --out/);
    expect(() => run("--out", out, "--root", `npm=${join(machine, "nowhere")}`)).toThrow(
      /no documentation found/,
    );
  });

  it("should find thousands of passages in the documentation of this machine, none keyed by where it lies", () => {
    const roots = findRoots();
    const passages = cutCorpus({ roots });
    expect(passages.length).toBeGreaterThan(1_000);
    const keys = passages.map(({ key }) => key);
    expect(keys.filter((key) => !/^(npm|crates|node)\/[^/]/.test(key))).toEqual([]);
    const folders = roots.map(({ dir }) => `${dir}/`);
    expect(keys.filter((key) => folders.some((folder) => key.includes(folder)))).toEqual([]);
  });
});

describe("the extractors", () => {
  it("should read prose out of markdown without markup, code, tables and link targets", () => {
    const markdown = [
      "# The `Title`",
      "",
      "[![badge](https://a/b.svg)](https://a) Some *emphasised* text with a [link](https://c) to",
      "snake_case &amp; <b>bold</b> things.",
      "",
      "```js",
      "const code = 1;",
      "```",
      "| a | b |",
      "- first item",
      "  goes on",
      "- second item",
      "",
      "[ref]: https://d",
    ].join("\n");
    expect(markdownBlocks(markdown, "file")).toEqual([
      { title: "The Title", text: "Some emphasised text with a link to snake_case & bold things." },
      { title: "The Title", text: "first item goes on" },
      { title: "The Title", text: "second item" },
    ]);
  });

  it("should name a Rust doc comment after the item below it", () => {
    const source = [
      "//! About the module.",
      "",
      "/// Pushes a value.",
      "///",
      "/// # Panics",
      "///",
      "/// Never.",
      "#[inline]",
      "pub fn push(&mut self) {}",
      "    /// A field.",
      "    pub size: usize,",
      "//// no doc comment",
      "// neither",
    ].join("\n");
    expect(rustBlocks(source, "module")).toEqual([
      { title: "module", text: "module: About the module." },
      { title: "push", text: "push: Pushes a value." },
      { title: "push", text: "Never." },
      { title: "size", text: "size: A field." },
    ]);
  });

  it("should name a declaration's comment after it, keep its tags as prose and drop its examples", () => {
    const source = `
      /** @license MIT */
      /**
       * Opens a {@link File | file}.
       * @param {string} path - where it lies
       * @example
       * open("a");
       * @returns a handle
       */
      export declare function open(path: string): File;`;
    expect(declarationBlocks(source, "index.d.ts")).toEqual([
      { title: "open", text: "open: Opens a File." },
      { title: "open", text: "path where it lies" },
      { title: "open", text: "a handle" },
    ]);
  });
});
