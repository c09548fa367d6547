//! The engine: records in, segments out, searches over both.
//!
//! ```text
//! record ─▶ append ─▶ feed (memtables) ─▶ flush ─▶ segment + commit ─▶ snapshot
//!                        └──────────── search / get over snapshot ∪ feed ──┘
//!                                   compact · gc · verify work on the chain
//! ```
//! - [`record`]: formats of the log's records, judged and decoded.
//! - [`Feed`]: everything newer than the snapshot, one code for ingest and query.
//! - [`Incarnation`]: one physical life of a collection: append, flush, search, merge, collect.
//! - [`Lake`]: the catalog of names over the incarnations.
//! - [`IncarnationState`] / [`Delta`]: what a commit may say, and when it is refused.
//!
//! Reads no environment and no clock but those it is given.

pub mod append;
mod catalog;
mod centroids;
mod compact;
mod describe;
mod error;
mod feed;
mod flush;
mod gc;
mod get;
mod incarnation;
mod lake;
mod memtable;
mod pools;
pub mod record;
mod search;
mod shadow;
mod snapshot;
mod state;
mod string_map;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;
mod warm;

pub use catalog::{CatalogState, Mapping};
pub use compact::{
    Ended, MergeOptions, Merged, PlanOptions, Policy, Progress, Spec, plan_compaction,
};
pub use describe::{CollectionInfo, IncarnationInfo, Listed};
pub use error::{Error, ErrorKind, Result};
pub use feed::{Feed, View};
pub use flush::Flushed;
pub use gc::{Collected, GcOptions};
pub use get::{Got, Want};
pub use incarnation::{Context, Incarnation};
pub use lake::{FORMAT, Lake, LakeCollected, LakeGcOptions, LakeInfo, LakeOptions, Orphan};
pub use pools::Pools;
pub use search::{
    Answers, Cost, EF_DEFAULT, FilterCache, Hit, K_MAX, RECALL_BOUNDS, RecallCounts, Sampler,
    Scope, Search, Stages, check_vector,
};
pub use snapshot::Snapshot;
pub use state::{
    CentroidVersions, CentroidsMeta, Checkpoint, Delta, Fingerprint, IncarnationState, Ledger,
    NewSource, Schema, Source, Trained,
};
pub use verify::{Report, Verification};
pub use vexlake_index::{Filter, FilterError};
pub use warm::{WarmCounts, Warming};
