import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { EXIT } from "../common/process/exit.ts";
import { OPTIONS, parseArguments } from "./args.ts";
import { COMMANDS, COMMON, checkArguments, type Entry } from "./registry.ts";

const MAIN = fileURLToPath(new URL("./main.ts", import.meta.url));

function entryOf(word: string): Entry {
  return COMMANDS.find((each) => each.word === word) as Entry;
}

function check(...words: string[]): void {
  checkArguments(entryOf(words[0] as string), parseArguments(words.slice(1)));
}

/** The whole command in a process of its own: exit code and standard error. */
function vexlake(...args: string[]): Promise<{ code: number; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, _stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stderr });
    });
  });
}

function takenBy({ takes }: Entry): string[] {
  return Array.isArray(takes) ? [...takes] : Object.values(takes as Record<string, string[]>).flat();
}

describe("options of subcommands", () => {
  it("should be refused by a subcommand that does not take them", () => {
    expect(() => check("gc", "--dim", "4")).toThrow("gc does not take --dim");
    expect(() => check("ingest", "--http-port", "8081")).toThrow("ingest does not take --http-port");
  });

  it("should be judged by the action where a subcommand has several", () => {
    expect(() => check("collection", "create", "docs", "--dim", "4")).not.toThrow();
    expect(() => check("collection", "list", "--dim", "4")).toThrow("collection list does not take --dim");
  });

  it("should include where the lake lies and how to answer, for every subcommand", () => {
    for (const { word, takes } of COMMANDS) {
      const actions = Array.isArray(takes) ? [[]] : Object.keys(takes).map((action) => [action]);
      for (const action of actions) {
        expect(() =>
          check(word, ...action, "--config", "x", "--data-dir", "y", "--s3", "z", "--json"),
        ).not.toThrow();
      }
    }
  });

  it("should leave no word unread: what a subcommand does not take is refused", () => {
    const search = () => check("search", "docs", "how", "to", "flush");
    expect(search).toThrow('search takes 2 words, "to" is too many (text goes in quotes)');
    expect(() => check("flush", "a", "b")).toThrow("flush takes one word");
    expect(() => check("up", "docs")).toThrow("up takes no words");
    expect(() => check("collection", "drop", "a", "b")).toThrow('collection drop takes one word, "b"');
    expect(() => check("search", "docs", "--http-port", "1")).toThrow("search does not take --http-port");
    expect(() => check("verify", "a", "b", "c")).not.toThrow();
    expect(() => check("replay", "retire", "docs", "01J")).not.toThrow();
  });

  it("should all exist, and each be taken by some subcommand", () => {
    const known = OPTIONS.map(({ flag }) => flag);
    const taken = new Set([...COMMON, ...COMMANDS.flatMap(takenBy)]);
    expect([...taken].sort()).toEqual([...known].sort());
  });
});

describe("the vexlake command", () => {
  it("should exit 2 and name the option that is not taken, before anything is opened", async () => {
    const { code, stderr } = await vexlake("promote", "docs", "--grace-ms", "1");
    expect(code).toBe(EXIT.usage);
    expect(stderr).toContain("promote does not take --grace-ms");
  });

  it("should exit 2 for an option or a subcommand that does not exist", async () => {
    expect((await vexlake("files", "docs", "--fromat", "json")).code).toBe(EXIT.usage);
    expect((await vexlake("file", "docs")).code).toBe(EXIT.usage);
  });
});
