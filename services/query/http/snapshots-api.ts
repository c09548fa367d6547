/** GET /api/v1/snapshots: the newest versions of a collection, what made them, and which are pinned. */
import { COMMITS_MAX, readCommits } from "../commits.ts";
import { type Answer, type ApiRequest, json } from "./answer.ts";
import { readDb, requireCollection } from "./collections-api.ts";
import { Fields } from "./fields.ts";

const LIMIT_DEFAULT = 20;

export async function snapshots(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(request.query, ["db", "collection", "limit"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const limit = fields.integer("limit", LIMIT_DEFAULT, 1, COMMITS_MAX);
  const commits = await readCommits(request.context.core, view.incarnation, limit);
  return json(200, { incarnation: view.incarnation, version: view.version, pins: view.pins, commits });
}
