/*
 * Outside readers of a lake: the live files as `vexlake files` names them, copied from S3 by its own SDK
 * where they lie there, and read by DuckDB. Nothing of our Rust or TypeScript touches the bytes in between.
 */
import { createWriteStream } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { GetObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import { vexlakeJson } from "./processes.ts";
import { type OracleService, runPython, type S3Service, unique } from "./services.ts";

/** Copies at a time. */
const COPIES_MAX = 8;

export interface LiveFiles {
  version: number;
  segments: { id: string; rows: number; deletes: number; shadowed: number }[];
  data: string[];
  deletes: string[];
  /** Returns exactly the live records, each once. */
  duckdb: string;
}

/** What `vexlake files` says, with `args` naming the lake. */
export async function liveFiles(collection: string, args: string[], env = {}): Promise<LiveFiles> {
  return await vexlakeJson<LiveFiles>(["files", collection, "--format", "json", ...args], env);
}

export function s3Client(s3: S3Service): S3Client {
  const { endpoint, region, accessKey: accessKeyId, secretKey: secretAccessKey } = s3;
  return new S3Client({
    endpoint,
    region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
}

/** The environment that gives a `vexlake` process access to the store. */
export function s3Environment({ accessKey, secretKey, region }: S3Service): Record<string, string> {
  return { AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey, AWS_REGION: region };
}

/** Every key below a prefix. */
export async function listKeys(s3: S3Service, prefix: string): Promise<string[]> {
  const client = s3Client(s3);
  const keys: string[] = [];
  for (let token: string | undefined, more = true; more; more = token !== undefined) {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: s3.bucket, Prefix: prefix, ContinuationToken: token }),
    );
    for (const { Key } of page.Contents ?? []) if (Key !== undefined) keys.push(Key);
    token = page.IsTruncated ? page.NextContinuationToken : undefined;
  }
  client.destroy();
  return keys;
}

export async function readObject(s3: S3Service, key: string): Promise<string> {
  const client = s3Client(s3);
  const { Body } = await client.send(new GetObjectCommand({ Bucket: s3.bucket, Key: key }));
  const text = await (Body as { transformToString(): Promise<string> }).transformToString();
  client.destroy();
  return text;
}

/** Copies the files of an S3 lake below `folder`; answers them with paths there. */
export async function copyFiles(s3: S3Service, files: LiveFiles, folder: string): Promise<LiveFiles> {
  const root = `s3://${s3.bucket}/`;
  const local = (url: string) => url.replaceAll(root, `${folder}/`);
  const client = s3Client(s3);
  const waiting = [...files.data, ...files.deletes];
  const worker = async () => {
    for (let url = waiting.pop(); url !== undefined; url = waiting.pop()) {
      const path = local(url);
      await mkdir(dirname(path), { recursive: true });
      const object = new GetObjectCommand({ Bucket: s3.bucket, Key: url.slice(root.length) });
      const { Body } = await client.send(object);
      await pipeline(Body as Readable, createWriteStream(path));
    }
  };
  await Promise.all(Array.from({ length: COPIES_MAX }, worker));
  client.destroy();
  const { data, deletes, duckdb } = files;
  return { ...files, data: data.map(local), deletes: deletes.map(local), duckdb: local(duckdb) };
}

/** `read_parquet([…])` over files; Parquet's own columns and nothing else. */
export function readParquet(files: string[]): string {
  return `read_parquet([${files.map((file) => `'${file.replaceAll("'", "''")}'`).join(", ")}])`;
}

const QUERY = `
import json, sys
import duckdb
cursor = duckdb.connect().execute(open(sys.argv[1]).read())
names = [column[0] for column in cursor.description]
rows = [dict(zip(names, row)) for row in cursor.fetchall()]
print(json.dumps(rows, default=lambda value: value.isoformat() if hasattr(value, "isoformat") else list(value)))
`;

/** The rows of a query, by DuckDB. The text goes by file: a list of many files is longer than an argument. */
export async function duckdb<Row>(oracle: OracleService, folder: string, sql: string): Promise<Row[]> {
  await mkdir(folder, { recursive: true });
  const file = join(folder, `${unique("query")}.sql`);
  await writeFile(file, sql);
  return JSON.parse(await runPython(oracle, QUERY, [file])) as Row[];
}
