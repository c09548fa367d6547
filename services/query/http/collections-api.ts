/** /api/v1/collections: list, create, look at, drop. */
import { DATABASES, DIMENSION_MAX } from "../collections.ts";
import { checkName } from "../commands/key.ts";
import type { CollectionView } from "../core.ts";
import { ReplyError } from "../errors.ts";
import { type Answer, type ApiRequest, json } from "./answer.ts";
import { Fields } from "./fields.ts";
import { readSections } from "./sections.ts";

export const METRICS = ["cosine", "l2", "ip", "l1"] as const;
export const FORMATS = ["f32", "protobuf", "json"] as const;
/** As vexlake.yaml bounds and defaults it. */
const PARTITIONS_MAX = 1_024;
const PARTITIONS_DEFAULT = 4;

export function readDb(fields: Fields): number {
  return fields.integer("db", 0, 0, DATABASES - 1);
}

/** The collection that a request names, or 404. */
export async function requireCollection(
  request: ApiRequest,
  db: number,
  name: string,
): Promise<CollectionView> {
  const view = await request.context.collections.find(db, name);
  if (view === undefined)
    throw new ReplyError("ERR", `there is no collection ${name} in database ${db}`, 404);
  return view;
}

export async function listCollections({ context, query }: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(query, ["db"]);
  const db = fields.optionalText("db") === undefined ? undefined : readDb(fields);
  await context.collections.list();
  return json(200, { collections: context.collections.all(db) });
}

export async function oneCollection(request: ApiRequest): Promise<Answer> {
  const db = readDb(Fields.ofQuery(request.query, ["db"]));
  const view = await requireCollection(request, db, request.name);
  await request.context.collections.list();
  return json(200, request.context.collections.known(db, request.name) ?? view);
}

export async function createCollection({ context, body }: ApiRequest): Promise<Answer> {
  const fields = Fields.ofBody(readSections(body), ["db", "name", "dim", "metric", "partitions", "format"]);
  const db = readDb(fields);
  const name = checkName(Buffer.from(fields.text("name")));
  const dim = fields.integer("dim", 0, 1, DIMENSION_MAX);
  if (dim === 0) throw new ReplyError("ERR", "dim is missing");
  if ((await context.collections.find(db, name)) !== undefined) {
    throw new ReplyError("ERR", `collection ${name} exists in database ${db}`, 409);
  }
  const view = await context.collections.create({
    db,
    name,
    dim,
    metric: fields.choice("metric", METRICS, "cosine"),
    partitions: fields.integer("partitions", PARTITIONS_DEFAULT, 1, PARTITIONS_MAX),
    format: fields.choice("format", FORMATS, "f32"),
  });
  return json(201, view);
}

export async function dropCollection(request: ApiRequest): Promise<Answer> {
  const db = readDb(Fields.ofQuery(request.query, ["db"]));
  await request.context.collections.drop(await requireCollection(request, db, request.name));
  return json(200, { dropped: request.name });
}
