/**
 * /api/v1/snapshots: the newest versions of a collection and what made them; POST keeps one readable under
 * a tag (`docs@tag`), DELETE lets it go. A tag is a pin, held by a commit until it is taken away.
 */
import { parseIncarnation } from "../../common/catalog.ts";
import { COMMITS_MAX, readCommits } from "../commits.ts";
import { ReplyError } from "../errors.ts";
import { type Answer, type ApiRequest, json } from "./answer.ts";
import { readDb, requireCollection } from "./collections-api.ts";
import { Fields } from "./fields.ts";
import { readSections } from "./sections.ts";

const LIMIT_DEFAULT = 20;
/** A tag is no number and no time, so that `docs@…` stays unambiguous. */
const TAG = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;

export async function snapshots(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(request.query, ["db", "collection", "limit"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const limit = fields.integer("limit", LIMIT_DEFAULT, 1, COMMITS_MAX);
  const commits = await readCommits(request.context.core, view.incarnation, limit);
  return json(200, { incarnation: view.incarnation, version: view.version, pins: view.pins, commits });
}

/** Pins a version, the newest committed one unless `version` says another. */
export async function pinSnapshot(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofBody(readSections(request.body), ["db", "collection", "tag", "version"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const name = fields.text("tag");
  if (!TAG.test(name)) throw new ReplyError("ERR", `tag is ${JSON.stringify(name)}, expected ${TAG.source}`);
  const { core, collections } = request.context;
  // The view may be a second old; "newest" means now.
  const newest = parseIncarnation(await core.refresh(view.incarnation)).version;
  const version = fields.integer("version", newest, 0, Number.MAX_SAFE_INTEGER);
  await core.alter({ op: "pin", incarnation: view.incarnation, name, version });
  await collections.refresh();
  return json(201, { collection: view.name, tag: name, version });
}

export async function unpinSnapshot(request: ApiRequest): Promise<Answer> {
  const fields = Fields.ofQuery(request.query, ["db", "collection", "tag"]);
  const view = await requireCollection(request, readDb(fields), fields.text("collection"));
  const name = fields.text("tag");
  const version = view.pins[name];
  if (version === undefined) {
    throw new ReplyError("ERR", `collection ${view.name} has no tag ${JSON.stringify(name)}`, 404);
  }
  const { core, collections } = request.context;
  await core.alter({ op: "unpin", incarnation: view.incarnation, name, version });
  await collections.refresh();
  return json(200, { collection: view.name, tag: name, version, ended: true });
}
