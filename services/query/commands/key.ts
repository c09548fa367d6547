/**
 * From the key of a command to the collection that it names, and from element arguments to ids that may be
 * stored.
 *
 * Reads may say which version: `docs@42`, `docs@tag` or `docs@2026-11-20T15:00:00Z` read the collection as it
 * was. A name that really exists wins, so a collection may have an @ in its name.
 */
import { isUtf8 } from "node:buffer";
import type { CollectionView, QueryCore } from "../core.ts";
import { ReplyError } from "../errors.ts";
import type { Call } from "./command.ts";

export const ID_BYTES_MAX = 1024;
/** What kafka's topic name and the catalog take; checked again where a collection is created. */
export const NAME_BYTES_MAX = 255;
const VERSION = /^(0|[1-9][0-9]{0,17})$/;

export interface Target {
  view: CollectionView;
  /** an earlier version, where the key asks for one */
  version?: bigint;
}

/** The collection of that exact name, if there is one. */
export function findCollection(
  call: Call,
  key: Buffer,
): CollectionView | undefined | Promise<CollectionView | undefined> {
  if (key.length === 0 || key.length > NAME_BYTES_MAX || !isUtf8(key)) return undefined;
  return call.context.collections.find(call.session.db, key.toString());
}

/** The collection that a read means, with the moment it asks for. */
export function findTarget(call: Call, key: Buffer): Target | undefined | Promise<Target | undefined> {
  const known =
    key.length <= NAME_BYTES_MAX
      ? call.context.collections.known(call.session.db, key.toString())
      : undefined;
  if (known !== undefined) return { view: known };
  return lookForTarget(call, key);
}

async function lookForTarget(call: Call, key: Buffer): Promise<Target | undefined> {
  const view = await findCollection(call, key);
  if (view !== undefined) return { view };
  const at = key.lastIndexOf("@");
  if (at < 1 || at === key.length - 1) return undefined;
  const named = await findCollection(call, key.subarray(0, at));
  return named === undefined
    ? undefined
    : { view: named, version: await findMoment(call.context.core, named, key.toString("utf8", at + 1)) };
}

/** The version that a number, a tag (the name of a pin) or a time means: at a time, the one newest then. */
export async function findMoment(
  core: Pick<QueryCore, "describe">,
  view: CollectionView,
  moment: string,
): Promise<bigint> {
  if (VERSION.test(moment)) return BigInt(moment);
  const pinned = view.pins[moment];
  if (pinned !== undefined) return BigInt(pinned);
  const ms = Date.parse(moment);
  if (!Number.isNaN(ms)) {
    const answer = await core.describe({
      what: "version-at",
      incarnation: view.incarnation,
      ms: Math.max(0, ms),
    });
    return BigInt((JSON.parse(answer as string) as { version: number }).version);
  }
  throw new ReplyError("ERR", `collection ${view.name} has no version or tag ${moment}`);
}

/** Scope and version of a read, as the core takes them. */
export function scopeOf(
  { version }: Target,
  scope: "fresh" | "snapshot" = "fresh",
): { scope: "fresh" | "snapshot" } | { scope: "at"; version: bigint } {
  return version === undefined ? { scope } : { scope: "at", version };
}

/** The name of a collection that is about to be created. */
export function checkName(key: Buffer): string {
  if (key.length === 0 || key.length > NAME_BYTES_MAX) {
    throw new ReplyError(
      "ERR",
      `collection name has ${key.length} bytes, 1 to ${NAME_BYTES_MAX} are possible`,
    );
  }
  if (!isUtf8(key)) throw new ReplyError("ERR", "collection name is not UTF-8");
  return key.toString();
}

/** An id that may enter the log. */
export function checkId(id: Buffer): Buffer {
  if (id.length === 0 || id.length > ID_BYTES_MAX) {
    throw new ReplyError("ERR", `id has ${id.length} bytes, 1 to ${ID_BYTES_MAX} are possible`);
  }
  if (!isUtf8(id)) throw new ReplyError("ERR", "id is not UTF-8");
  return id;
}
