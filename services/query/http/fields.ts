/**
 * Typed fields of an HTTP request, from its body's sections or its query string. Every error names the field
 * and what it was; a field that no route knows is refused, because a misspelt option that silently stays at
 * its default is found in production.
 */
import { ReplyError } from "../errors.ts";
import { parse, type Sections } from "./sections.ts";

export class Fields {
  readonly #values: ReadonlyMap<string, unknown>;
  readonly #raw: Sections;

  constructor(values: ReadonlyMap<string, unknown>, raw: Sections) {
    this.#values = values;
    this.#raw = raw;
  }

  /** `raw` fields stay bytes; all others are parsed. */
  static ofBody(sections: Sections, known: readonly string[], raw: readonly string[] = []): Fields {
    const values = new Map<string, unknown>();
    for (const [name, bytes] of sections) {
      check(name, [...known, ...raw]);
      if (!raw.includes(name)) values.set(name, parse(bytes));
    }
    return new Fields(values, sections);
  }

  static ofQuery(query: URLSearchParams, known: readonly string[]): Fields {
    const values = new Map<string, unknown>();
    for (const name of query.keys()) {
      check(name, known);
      const all = query.getAll(name);
      values.set(name, all.length === 1 ? all[0] : all);
    }
    return new Fields(values, new Map());
  }

  /** The bytes of a raw field; undefined when it is absent or null. */
  raw(name: string): Buffer | undefined {
    const bytes = this.#raw.get(name);
    return bytes === undefined || bytes.equals(NULL) ? undefined : bytes;
  }

  has(name: string): boolean {
    return this.#raw.has(name) || this.#values.has(name);
  }

  text(name: string): string {
    const value = this.optionalText(name);
    if (value === undefined) throw new ReplyError("ERR", `${name} is missing`);
    return value;
  }

  optionalText(name: string): string | undefined {
    const value = this.#values.get(name);
    if (value === undefined || value === null) return undefined;
    if (typeof value !== "string") throw wrong(name, value, "a string");
    return value;
  }

  texts(name: string): string[] {
    const value = this.#values.get(name);
    if (value === undefined) throw new ReplyError("ERR", `${name} is missing`);
    const list = Array.isArray(value) ? value : [value];
    for (const item of list) if (typeof item !== "string") throw wrong(name, item, "a string");
    return list;
  }

  /** A whole number; query strings carry it as digits. */
  integer(name: string, otherwise: number, min: number, max: number): number {
    const value = this.#values.get(name);
    if (value === undefined || value === null) return otherwise;
    const number = typeof value === "string" && /^[0-9]{1,15}$/.test(value) ? Number(value) : value;
    if (typeof number !== "number" || !Number.isInteger(number) || number < min || number > max) {
      throw wrong(name, value, `a whole number from ${min} to ${max}`);
    }
    return number;
  }

  number(name: string): number | undefined {
    const value = this.#values.get(name);
    if (value === undefined || value === null) return undefined;
    if (typeof value !== "number") throw wrong(name, value, "a number");
    return value;
  }

  flag(name: string): boolean {
    const value = this.#values.get(name) ?? false;
    if (typeof value !== "boolean") throw wrong(name, value, "true or false");
    return value;
  }

  choice<const T extends string>(name: string, choices: readonly T[], otherwise: NoInfer<T>): T {
    const value = this.optionalText(name) ?? otherwise;
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw wrong(name, value, choices.join(", "));
    return found;
  }
}

const NULL = Buffer.from("null");

function check(name: string, known: readonly string[]): void {
  if (known.includes(name)) return;
  throw new ReplyError("ERR", `field ${name} is unknown, known are ${known.join(", ")}`);
}

function wrong(name: string, value: unknown, expected: string): ReplyError {
  return new ReplyError("ERR", `${name} is ${JSON.stringify(value)}, expected ${expected}`);
}
