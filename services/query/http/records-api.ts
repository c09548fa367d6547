/**
 * /api/v1/records: get, put, patch (attributes) and delete records by id. Writes are answered when they are
 * visible.
 */
import { checkAttributes } from "../attributes.ts";
import type { Reply, WritePlan } from "../commands/command.ts";
import { checkPlan } from "../commands/execute.ts";
import { checkId } from "../commands/key.ts";
import { checkDimensions } from "../commands/vector-argument.ts";
import { requireAccepted } from "../commands/vector-write.ts";
import { type CollectionView, slice } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Change, WriteAck } from "../writer.ts";
import { type Answer, type ApiRequest, json, textOf } from "./answer.ts";
import { readDb, requireCollection } from "./collections-api.ts";
import { Fields } from "./fields.ts";
import { readSections } from "./sections.ts";
import { readVectorField } from "./vector-field.ts";

/** Records of one GET: at 65,536 dimensions and 10 characters a number 100 are 64 MiB of text. */
export const IDS_MAX = 100;
const NO_REPLY = (): Reply => () => undefined;

export async function getRecords(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(request.query, ["db", "collection", "id", "vectors"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const ids = fields.texts("id").map((id) => checkId(Buffer.from(id)));
  if (ids.length > IDS_MAX) throw new ReplyError("ERR", `${ids.length} ids, at most ${IDS_MAX} are possible`);
  const withVectors = fields.choice("vectors", ["true", "false"], "true") === "true";
  const { core } = request.context;
  const asked = { incarnation: view.incarnation, ids, scope: "fresh" } as const;
  const [attrs, vectors] = await Promise.all([
    core.get({ ...asked, want: "attrs" }),
    withVectors ? core.get({ ...asked, want: "values" }) : undefined,
  ]);
  const records = ids.map((id, i) => {
    if (attrs.present[i] === 0 || vectors?.present[i] === 0) return "null";
    const text = textOf(slice(attrs.bytes, attrs.ends, i));
    const vector = vectors === undefined ? "" : `,"vector":${textOf(slice(vectors.bytes, vectors.ends, i))}`;
    return `{"id":${JSON.stringify(id.toString())}${vector},"attrs":${text === "" ? "null" : text}}`;
  });
  return { status: 200, body: `{"records":[${records.join(",")}]}` };
}

export async function putRecord(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofBody(readSections(request.body), ["db", "collection", "id"], ["vector", "attrs"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const id = checkId(Buffer.from(fields.text("id")));
  const bytes = fields.raw("vector");
  if (bytes === undefined) throw new ReplyError("ERR", "vector is missing");
  const { argument, dim, format, value } = readVectorField(bytes);
  checkDimensions(dim, view.dim);
  const attrs = fields.raw("attrs");
  const change: Change = { id, op: "upsert", format, value };
  if (attrs !== undefined) change.attrs = checkAttributes(attrs);
  return written(await perform(request, { collection: view, change, check: argument, reply: NO_REPLY }));
}

/** Replaces the attributes of a record; null takes them away. */
export async function patchRecord(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofBody(readSections(request.body), ["db", "collection", "id"], ["attrs"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const id = checkId(Buffer.from(fields.text("id")));
  if (!fields.has("attrs")) throw new ReplyError("ERR", "attrs is missing");
  await requireRecord(request, view, id);
  const attrs = checkAttributes(fields.raw("attrs") ?? Buffer.alloc(0));
  return written(
    await perform(request, { collection: view, change: { id, op: "set-attrs", attrs }, reply: NO_REPLY }),
  );
}

export async function deleteRecord(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(request.query, ["db", "collection", "id"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const id = checkId(Buffer.from(fields.text("id")));
  return written(await perform(request, { collection: view, change: { id, op: "delete" }, reply: NO_REPLY }));
}

async function requireRecord(request: ApiRequest, view: CollectionView, id: Buffer): Promise<void> {
  const { present } = await request.context.core.get({
    incarnation: view.incarnation,
    ids: [id],
    want: "exists",
    scope: "fresh",
  });
  if (present[0] === 0) throw new ReplyError("ERR", `there is no record ${id} in ${view.name}`, 404);
}

async function perform({ context }: ApiRequest, plan: WritePlan): Promise<WriteAck> {
  await checkPlan(context, plan);
  const ack = await context.writer.write(plan.collection, plan.change);
  requireAccepted(ack);
  return ack;
}

function written({ existed }: WriteAck): Answer {
  return json(200, { existed });
}
