/**
 * What the query service uses of `@vexlake/core`: its search and get, and collections as views.
 *
 * Vectors never become JavaScript numbers: a request carries bytes (and, for VALUES, spans into the frame of
 * the request), an answer carries bytes and ends.
 */
import type { Lake, SearchReply, SearchRequest, VectorArgument } from "@vexlake/core";
import { type Incarnation, type LiveSource, liveSource, parseIncarnation } from "../common/catalog.ts";

export type {
  AlterCommand,
  DescribeRequest,
  GetReply,
  GetRequest,
  SearchReply,
  SearchRequest,
  SourceOptions,
  VectorArgument,
} from "@vexlake/core";

/** The part of the core that queries use; tests of this folder hand in their own. */
export type QueryCore = Pick<Lake, "search" | "get" | "describe" | "alter" | "refresh" | "metrics">;

/**
 * `k` of a request that only asks whether its vector is acceptable for the collection (numbers, dimension,
 * finite): writes check their vector so before they put it into the log. It scans nothing and finds nothing.
 */
export const CHECK_ONLY = 0;

/** A request that checks a vector and does nothing else. */
export function checkRequest(incarnation: string, vector: VectorArgument): SearchRequest {
  return { collection: incarnation, vector, k: CHECK_ONLY, scope: "snapshot", withAttrs: false };
}

/** Element i of a packed list of bytes. */
export function slice(bytes: Uint8Array, ends: Uint32Array, i: number): Uint8Array {
  return bytes.subarray(i === 0 ? 0 : ends[i - 1], ends[i]);
}

const NONE = new Uint8Array(0);

/** The attributes of result i; empty = none. */
export function attributesOf(answer: SearchReply, i: number): Uint8Array {
  return answer.attrs === undefined || answer.attrEnds === undefined
    ? NONE
    : slice(answer.attrs, answer.attrEnds, i);
}

/** A collection as it is served: its name, and the incarnation that answers under it now. */
export interface CollectionView {
  readonly db: number;
  readonly name: string;
  readonly incarnation: string;
  readonly dim: number;
  readonly metric: string;
  readonly format: Incarnation["schema"]["format"];
  /** where new records come from */
  readonly source: Readonly<LiveSource>;
  readonly partitions: number;
  readonly version: number;
  readonly versionWhenMs: number;
  /** live records, the tail included, when the view was made */
  readonly records: number;
  readonly segments: number;
  /** of the segments */
  readonly bytes: number;
  /** of what is newer than the segments, in memory */
  readonly tailBytes: number;
  /** tag → version */
  readonly pins: Readonly<Record<string, number>>;
}

/** A collection that is answered by `of`. */
export function viewOf(db: number, name: string, of: Incarnation): CollectionView {
  const source = liveSource(of);
  const own = of.partitions.filter((partition) => partition.source === source.id);
  return Object.freeze({
    db,
    name,
    incarnation: of.incarnation,
    dim: of.schema.dim,
    metric: of.schema.metric,
    format: of.schema.format,
    source,
    partitions: own.length,
    version: of.version,
    versionWhenMs: of.versionWhenMs,
    records: of.records,
    segments: of.segments,
    bytes: of.bytes,
    tailBytes: of.feedBytes,
    pins: of.pins,
  });
}

/** A collection that is known, as it is now. */
export async function readCollection(
  core: Pick<QueryCore, "describe">,
  { db, name, incarnation }: CollectionView,
): Promise<CollectionView> {
  return viewOf(db, name, parseIncarnation(await core.describe({ what: "incarnation", incarnation })));
}
