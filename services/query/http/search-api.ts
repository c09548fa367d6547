/** POST /api/v1/search: neighbours of a vector, or of a record by its id. */
import { checkAnswer } from "../commands/execute.ts";
import { checkId, findMoment, scopeOf, type Target } from "../commands/key.ts";
import { checkDimensions } from "../commands/vector-argument.ts";
import { EF_DEFAULT, EF_MAX } from "../commands/vector-write.ts";
import { COUNT_MAX } from "../commands/vsim.ts";
import { attributesOf, type CollectionView, type SearchReply, slice, type VectorArgument } from "../core.ts";
import { fromFailure, ReplyError } from "../errors.ts";
import { type Answer, type ApiRequest, textOf } from "./answer.ts";
import { readDb, requireCollection } from "./collections-api.ts";
import { Fields } from "./fields.ts";
import { readSections } from "./sections.ts";
import { readVectorField } from "./vector-field.ts";

const KNOWN = [
  "db",
  "collection",
  "id",
  "k",
  "scope",
  "at",
  "with_attrs",
  "score_min",
  "ef",
  "truth",
  "filter",
];
const COUNT_DEFAULT = 10;
const SCOPES = ["fresh", "snapshot"] as const;

export async function search(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofBody(readSections(request.body), KNOWN, ["vector"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const at = fields.optionalText("at");
  const target: Target =
    at === undefined ? { view } : { view, version: await findMoment(request.context.core, view, at) };
  const scoreMin = fields.number("score_min");
  const filter = fields.optionalText("filter");
  const [reply] = await request.context.core.search([
    {
      collection: view.incarnation,
      vector: readQuery(fields, view),
      k: fields.integer("k", COUNT_DEFAULT, 1, COUNT_MAX),
      ...scopeOf(target, fields.choice("scope", SCOPES, "fresh")),
      withAttrs: fields.flag("with_attrs"),
      effort: fields.integer("ef", EF_DEFAULT, 1, EF_MAX),
      truth: fields.flag("truth"),
      ...(scoreMin === undefined ? {} : { scoreMin }),
      ...(filter === undefined ? {} : { filter }),
    },
  ]);
  if (reply === undefined) throw new ReplyError("ERR", "the engine left the search unanswered", 500);
  if (reply.error !== undefined) throw fromFailure(reply.error);
  if (reply.cost !== undefined) request.context.metrics.searched(reply.cost);
  checkAnswer(reply);
  return { status: 200, body: render(reply) };
}

function readQuery(fields: Fields, view: CollectionView): VectorArgument {
  const bytes = fields.raw("vector");
  const id = fields.optionalText("id");
  if ((bytes === undefined) === (id === undefined)) {
    throw new ReplyError("ERR", "exactly one of vector and id is expected");
  }
  if (id !== undefined) return { kind: "element", id: checkId(Buffer.from(id)) };
  const { argument, dim } = readVectorField(bytes as Buffer);
  checkDimensions(dim, view.dim);
  return argument;
}

function render(reply: SearchReply): string {
  const results: string[] = [];
  for (let i = 0; i < reply.idEnds.length; i += 1) {
    const id = JSON.stringify(textOf(slice(reply.ids, reply.idEnds, i)));
    const score = JSON.stringify(reply.scores[i]);
    const distance = JSON.stringify(reply.distances[i]);
    let attrs = "";
    if (reply.attrs !== undefined) attrs = `,"attrs":${textOf(attributesOf(reply, i)) || "null"}`;
    results.push(`{"id":${id},"score":${score},"distance":${distance}${attrs}}`);
  }
  return `{"version":"${reply.version}","results":[${results.join(",")}]}`;
}
