/**
 * Loads the configuration: flag > environment > file > default, each key on its own.
 *
 * 1. The file (YAML) is read whole; an unknown key is refused by the schema.
 * 2. VEXLAKE_<SECTION>_<KEY> overrides; a variable of a known section with an unknown key is refused
 *    as well. Text becomes the key's type: numbers, booleans, comma lists.
 * 3. Flags ("section.key" → text) override last.
 * 4. `origins` remembers where each key came from: a default port may move, a given one may not.
 *
 * Secrets are read from AWS_* and never enter the Config, so printing a Config leaks none. The
 * environment is an argument; each `main.ts` passes `process.env` here and reads it nowhere else.
 */
import { readFile } from "node:fs/promises";
import { parseDocument } from "yaml";
import { z } from "zod";
import { ConfigError } from "../process/error.ts";
import { type Config, configSchema, SECTIONS, type SectionName } from "./schema.ts";

/** A configuration is some kilobytes; a megabyte is a wrong file. */
export const FILE_BYTES_MAX = 1024 * 1024;

export type Origin = "flag" | "environment" | "file" | "default";
export type Environment = Readonly<Record<string, string | undefined>>;

export interface LoadOptions {
  /** Path given with --config; it must exist then. */
  file?: string;
  env: Environment;
  /** "section.key" → text, as the command line's flags map to keys. */
  flags?: Readonly<Record<string, string>>;
}

export interface LoadedConfig {
  config: Config;
  /** Of every key that was set somewhere: "section.key" → where. */
  origins: ReadonlyMap<string, Origin>;
  /** True when a person chose the key's value. */
  given(key: string): boolean;
}

type Tree = Record<string, Record<string, unknown>>;

export async function loadConfig(options: LoadOptions): Promise<LoadedConfig> {
  const origins = new Map<string, Origin>();
  const tree = options.file === undefined ? {} : await readTree(options.file);
  for (const [section, keys] of Object.entries(tree)) {
    if (isTree(keys)) for (const key of Object.keys(keys)) origins.set(`${section}.${key}`, "file");
  }
  for (const [name, text] of Object.entries(options.env)) {
    const key = text === undefined ? null : keyOfVariable(name);
    if (key) set(tree, origins, key, text as string, "environment", name);
  }
  for (const [key, text] of Object.entries(options.flags ?? {}))
    set(tree, origins, key, text, "flag", `--${key}`);
  const parsed = configSchema.safeParse(tree);
  if (!parsed.success) throw new ConfigError(explain(parsed.error, options.file, origins));
  return { config: parsed.data, origins, given: (key) => origins.has(key) };
}

export interface StoreCredentials {
  accessKey?: string;
  secretKey?: string;
  sessionToken?: string;
}

/** The core's StoreOptions of this configuration; secrets and region defaults come from AWS_*. */
export function storeOptions(
  config: Config,
  env: Environment,
  fallbackUrl: string,
): StoreCredentials & { url: string; endpoint?: string; region?: string; pathStyle: boolean } {
  const { url, endpoint, region, path_style: pathStyle } = config.store;
  return withoutUndefined({
    url: url ?? fallbackUrl,
    endpoint: endpoint ?? env.AWS_ENDPOINT_URL_S3 ?? env.AWS_ENDPOINT_URL,
    region: region ?? env.AWS_REGION ?? env.AWS_DEFAULT_REGION,
    pathStyle,
    accessKey: env.AWS_ACCESS_KEY_ID,
    secretKey: env.AWS_SECRET_ACCESS_KEY,
    sessionToken: env.AWS_SESSION_TOKEN,
  });
}

async function readTree(file: string): Promise<Tree> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new ConfigError(`cannot read configuration ${file}: ${(error as Error).message}`, { cause: error });
  }
  if (text.length > FILE_BYTES_MAX) throw new ConfigError(`${file} is larger than ${FILE_BYTES_MAX} bytes`);
  const document = parseDocument(text, { uniqueKeys: true });
  const fault = document.errors[0];
  if (fault) throw new ConfigError(`${file} is not YAML: ${fault.message.split("\n")[0]}`, { cause: fault });
  const value: unknown = document.toJS({ maxAliasCount: 100 }) ?? {};
  if (!isTree(value)) throw new ConfigError(`${file} must be a mapping of sections`);
  // `section:` without keys is null in YAML and means an empty section.
  return Object.fromEntries(Object.entries(value).map(([key, keys]) => [key, keys ?? {}])) as Tree;
}

/** VEXLAKE_INGEST_SEAL_BYTES → "ingest.seal_bytes"; null when the name is of no section. */
function keyOfVariable(name: string): string | null {
  const match = /^VEXLAKE_([A-Z]+)_([A-Z0-9_]+)$/.exec(name);
  if (!match) return null;
  const [, section, key] = match as unknown as [string, string, string];
  return section.toLowerCase() in SECTIONS ? `${section}.${key}`.toLowerCase() : null;
}

function set(
  tree: Tree,
  origins: Map<string, Origin>,
  key: string,
  text: string,
  origin: Origin,
  name: string,
) {
  const [section, field, ...more] = key.split(".");
  const shape = section && section in SECTIONS ? SECTIONS[section as SectionName].shape : null;
  const type = shape && field ? (shape as Record<string, z.ZodType>)[field] : undefined;
  if (!section || !field || more.length > 0 || !type)
    throw new ConfigError(`${name} sets an unknown key ${key}`);
  const keys = tree[section] ?? {};
  if (!isTree(keys)) throw new ConfigError(`section ${section} must be a mapping`);
  tree[section] = { ...keys, [field]: coerce(type, text) };
  origins.set(key, origin);
}

/** Text to the type below defaults and optionals; what does not convert is left to the schema's message. */
function coerce(type: z.ZodType, text: string): unknown {
  const inner = innermost(type);
  if (inner instanceof z.ZodNumber) return /^-?\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
  if (inner instanceof z.ZodBoolean) {
    if (/^(true|1|yes|on)$/i.test(text)) return true;
    return /^(false|0|no|off)$/i.test(text) ? false : text;
  }
  if (inner instanceof z.ZodArray) {
    return text
      .split(",")
      .map((item) => item.trim())
      .filter((item) => item !== "");
  }
  return text;
}

function innermost(type: z.ZodType): z.ZodType {
  if (type instanceof z.ZodDefault || type instanceof z.ZodOptional || type instanceof z.ZodPrefault) {
    return innermost(type.def.innerType as z.ZodType);
  }
  return type;
}

function explain(error: z.ZodError, file: string | undefined, origins: Map<string, Origin>): string {
  const lines = error.issues.slice(0, 10).map((issue) => {
    const key = issue.path.join(".");
    if (issue.code === "unrecognized_keys") {
      return `unknown key ${issue.keys.map((name) => [key, name].filter(Boolean).join(".")).join(", ")}`;
    }
    const origin = origins.get(key);
    return `${key || "configuration"}: ${issue.message}${origin ? ` (from ${origin})` : ""}`;
  });
  return `${file ?? "configuration"}: ${lines.join("; ")}`;
}

function isTree(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as T;
}
