/** The Rust core. Control crosses as JSON text, vectors and records as bytes. */

export type ErrorCode =
  | "INVALID"
  | "NOT_FOUND"
  | "CONFLICT"
  | "FENCED"
  | "UNAVAILABLE"
  | "CORRUPT"
  | "INTERNAL";

export declare class CoreError extends Error {
  code: ErrorCode;
  fields: Record<string, unknown>;
}

export interface StoreOptions {
  /** A directory, or s3://bucket/prefix. */
  url: string;
  endpoint?: string;
  region?: string;
  pathStyle?: boolean;
  accessKey?: string;
  secretKey?: string;
  sessionToken?: string;
}

export interface OpenOptions {
  store: StoreOptions;
  /** ingest, query, compactor, up or cli: written into each commit. */
  role: string;
  instance: string;
  /** Local directory for segments under construction; emptied at open. */
  spoolDir: string;
  cacheBytes?: number;
  /** `<point>:<n>`: SIGKILL this process the n-th time it passes the point. */
  crashAt?: string;
  searchThreads?: number;
  /** Share of searches through lists that are compared with exact ones, 0 to 1. */
  recallSampleRatio?: number;
  /** Bytes of new segments that are read before searches see them; 0 by default. */
  warmBytes?: number;
}

export interface SourceOptions {
  kind: "kafka" | "local";
  cluster: string;
  topic: string;
  /** The topic's cleanup.policy contains compact: patches are refused. */
  compacted?: boolean;
  /** First offset by partition, as decimal digits. */
  starts: Record<string, string>;
}

export type AlterCommand =
  | {
      op: "create";
      db: number;
      name: string;
      dim: number;
      metric: string;
      format: string;
      source: SourceOptions;
    }
  | { op: "drop"; db: number; name: string }
  | { op: "clear"; db: number; name: string; source: SourceOptions }
  /** `withoutEpochs`: epochs of the live incarnation whose records it may lack. */
  | { op: "replay-start"; db: number; name: string; source: SourceOptions; withoutEpochs?: number[] }
  | { op: "replay-retire"; db: number; name: string; incarnation: string }
  | { op: "promote"; db: number; name: string; incarnation?: string; withoutEpochs?: number[] }
  | { op: "rollback"; db: number; name: string; withoutEpochs?: number[] }
  | { op: "pin" | "unpin"; incarnation: string; name: string; version: number }
  | { op: "source-accept"; incarnation: string; source: number; partition: number; from: string; to: string }
  | { op: "partition-add"; incarnation: string; source: number; partition: number; start: string }
  | { op: "source-open"; incarnation: string; source: SourceOptions }
  | { op: "seal"; incarnation: string; bytesMin?: number }
  | { op: "cancel"; job: string };

export type DescribeRequest =
  | { what: "lake" | "collections" }
  | { what: "incarnation" | "segments" | "files"; incarnation: string }
  | { what: "commits"; incarnation: string; limit: number }
  /** The version that was newest at a time: {"version"}. */
  | { what: "version-at"; incarnation: string; ms: number };

/** One partition's next stretch of the log: `[from, to)`, records in `table` (schemas/records.md). */
export interface AppendBatch {
  incarnation: string;
  source: number;
  partition: number;
  from: bigint;
  to: bigint;
  buffers: Uint8Array[];
  table: Uint8Array;
  /** Format of records without a vexlake-format header; the collection's by default. */
  format?: "f32" | "protobuf" | "json";
  /** `fail` stops before the first bad record; every other value passes it and reports it. */
  badRecord?: "dlq" | "skip" | "fail";
}

export interface AppendResult {
  next: bigint;
  accepted: number;
  notRecords: number;
  memtableBytes: number;
  bad: { offset: bigint; reason: string; message: string }[];
  acks: { write: string; offset: bigint; existed: boolean; accepted: boolean; message?: string }[];
  failedAt?: bigint;
}

export interface FlushResult {
  version: number;
  commits: number;
  segments: string[];
  rows: number;
  deletes: number;
  bytes: number;
  /** Held in memory afterwards. */
  memtableBytes: number;
  ranges: { source: number; partition: number; from: string; to: string }[];
  /** To consume again from `next`: another process is further, or a patch has to be judged again. */
  lost: { source: number; partition: number; next: string }[];
}

export type VectorArgument =
  | { kind: "f32" | "text"; bytes: Uint8Array }
  | { kind: "values"; frame: Uint8Array; spans: Uint32Array }
  | { kind: "element"; id: Uint8Array };

export interface SearchRequest {
  /** The incarnation; empty with k 0: one that is not there yet, so any dimension is right. */
  collection: string;
  vector: VectorArgument;
  /** 1 to 10,000; 0 only checks the vector. */
  k: number;
  scope: "fresh" | "snapshot" | "at";
  version?: bigint;
  withAttrs: boolean;
  scoreMin?: number;
  /** EF: scales what a search through lists looks at, around 100. */
  effort?: number;
  /** Compare every row. */
  truth?: boolean;
  /** What attributes of results must satisfy: an expression of Redis' vector sets. */
  filter?: string;
  /** Search alone, whatever the group, and say where the time went. */
  explain?: boolean;
}

/** What a search took: up to `waves` of this request, the rest of all requests in its group. */
export interface SearchCost {
  /** Segments searched through lists, compared row by row, and with nothing to compare. */
  segmentsListed: number;
  segmentsExact: number;
  segmentsPruned: number;
  /** Rows of segments that are live and pass the filter; 0 without one. */
  rowsPassed: number;
  /** Versions of centroids that the lists belong to. */
  centroids: number;
  /** Lists of codes; 0 where everything was compared exactly. */
  lists: number;
  /** Rows compared, by code or exactly, and those of them that lay in memtables. */
  rowsScanned: number;
  memtableRows: number;
  /** Rows found by code and then compared exactly, and in how many waves. */
  rowsReranked: number;
  waves: number;
  /** Times that it waited for the store. */
  rounds: number;
  /** Pages and rows that were in memory, and that were not; requests and bytes for those. */
  pagesHeld: number;
  pagesRead: number;
  requests: number;
  bytesRead: number;
}

/** Microseconds of an explained search; what is between the stages is in the total alone. */
export interface SearchStages {
  /** Fixing the view, opening an older version for it, and scanning its memtables. */
  feed: number;
  /** Laying shadows over the segments, and what the filter does not let pass. */
  filter: number;
  /** Choosing lists and reading their pages. */
  lists: number;
  /** Scanning codes. */
  codes: number;
  /** Reading vectors of candidates and comparing them. */
  rerank: number;
  /** Reading and scanning what is compared row by row. */
  exact: number;
  /** Reading ids and attributes. */
  names: number;
  total: number;
}

/** Packed: id i is `ids[idEnds[i - 1] ?? 0 .. idEnds[i]]`; attributes likewise, empty = none. */
export interface SearchReply {
  ids: Uint8Array;
  idEnds: Uint32Array;
  scores: Float64Array;
  distances: Float64Array;
  attrs?: Uint8Array;
  attrEnds?: Uint32Array;
  version: bigint;
  rowsScanned: number;
  cost?: SearchCost;
  /** Of a request with `explain`. */
  stages?: SearchStages;
  error?: { code: ErrorCode; message: string };
}

export interface GetRequest {
  incarnation: string;
  ids: Uint8Array[];
  want: "text" | "values" | "raw" | "attrs" | "exists";
  scope: "fresh" | "snapshot" | "at";
  version?: bigint;
}

/** Packed like SearchReply; `present` is 0 = absent, 1 = a record, 2 = a record with attributes (want attrs). */
export interface GetReply {
  bytes: Uint8Array;
  ends: Uint32Array;
  present: Uint8Array;
  /** 1 where the key has a newest record, live or a delete; its partition and offset are below. */
  placed: Uint8Array;
  partitions: Uint32Array;
  offsets: bigint[];
}

export interface VerifyStep {
  step: "begin" | "add" | "finish" | "abort";
  session: string;
  incarnation?: string;
  source?: number;
  partition?: number;
  from?: bigint;
  to?: bigint;
  buffers?: Uint8Array[];
  table?: Uint8Array;
}

export declare class Lake {
  private constructor(native: unknown);
  static open(options: OpenOptions): Promise<Lake>;
  /** Kernels and build of this machine, as JSON. `panic` panics on purpose: a test's. */
  static doctor(panic?: boolean): string;
  /** Changes what names mean; answers JSON. */
  alter(command: AlterCommand): Promise<string>;
  /** Appends one stretch of one partition. CONFLICT = the stretch begins beyond the next offset. */
  append(batch: AppendBatch): Promise<AppendResult>;
  /** Builds and commits what is sealed (alter seal); rebases on lost races. Appends go on meanwhile. */
  flush(incarnation: string): Promise<FlushResult>;
  /** Follows the chain; null = the catalog. Answers the incarnation's description as JSON. */
  refresh(incarnation: string | null): Promise<string>;
  /** One call per group of pipelined requests; each answer stands alone. */
  search(requests: SearchRequest[]): Promise<SearchReply[]>;
  get(request: GetRequest): Promise<GetReply>;
  /** JSON, or an Arrow IPC stream for segments and commits. */
  describe(what: DescribeRequest): Promise<string | Uint8Array>;
  /** Merges and trainings due, as JSON CompactionSpec[]; `options`: memoryBytesMax (as `run` will get), deleteRetentionMs. */
  plan(incarnation: string, options?: string): Promise<string>;
  /** Runs one of them; answers its outcome as JSON. Cancel with alter({op: "cancel", job}). */
  run(
    spec: string,
    onProgress: ((progress: string) => void) | undefined,
    job: string,
    options?: string,
  ): Promise<string>;
  /**
   * One incarnation's garbage ({graceMs, dryRun}); or with null the incarnations that are leaving, and with
   * {orphans: true, graceMs, dryRun} those that have no name. JSON.
   */
  gc(incarnation: string | null, options?: string): Promise<string>;
  /**
   * One step of a recount of the ledger against the log; `finish` answers the report as JSON. A step that
   * fails ends the recount, and so does `abort`; 16 run at once, else UNAVAILABLE.
   */
  verify(step: VerifyStep): Promise<string>;
  /**
   * Counters as JSON: cache, store, what was warmed, recall of live searches (`byBound`: those above the bound before and up to
   * each of `bounds`), invariants ({id: {checks, violations}}).
   */
  metrics(): string;
  close(): Promise<void>;
}
