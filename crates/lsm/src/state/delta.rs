//! The changes that a commit may say, one [`Delta`] a commit.
//!
//! What each one does to the state, and when it is refused, is the law in `apply.rs`.
//! Their JSON is part of the commit format (schemas/commits.md).

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::u64_str;
use vexlake_segment::{EntryHash, SegmentMeta};

use super::{CentroidsMeta, DroppedDeletes, Range, Source};
use crate::shadow::Shadows;

/// The last garbage-collection mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Names minted before this are swept when nothing retained reaches them, ms.
    #[serde(with = "u64_str")]
    pub cutoff_ms: u64,
    /// Versions below this are no longer readable unless pinned.
    #[serde(with = "u64_str")]
    pub retain_from: u64,
}

impl Mark {
    /// This mark, or where an earlier one gave up more, that.
    pub(crate) fn over(self, before: Option<Mark>) -> Mark {
        before.map_or(self, |before| Mark {
            cutoff_ms: self.cutoff_ms.max(before.cutoff_ms),
            retain_from: self.retain_from.max(before.retain_from),
        })
    }
}

/// Entries that a replace left behind: all that were shadowed, and deletes that nothing
/// older can need any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    #[serde(with = "u64_str")]
    pub entries: u64,
    /// Their multiset hash.
    pub hash: EntryHash,
    /// Those of them that were deletes and not shadowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<DroppedDeletes>,
}

/// One commit's change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Delta {
    /// A flush: log stretches become segments.
    Append {
        /// The stretches, at most one a partition.
        ranges: Vec<Range>,
        /// New segments.
        adds: Vec<SegmentMeta>,
        /// Entries hidden by this flush, in older segments or born hidden in its own.
        shadows: Shadows,
    },
    /// A merge: segments become fewer segments.
    Replace {
        /// Segments that end.
        inputs: Vec<Ulid>,
        /// Segments that begin.
        adds: Vec<SegmentMeta>,
        /// Entries of the outputs that were shadowed while the merge ran.
        shadows: Shadows,
        /// What was left behind.
        dropped: Dropped,
    },
    /// Garbage collection announces what it will delete.
    Mark(Mark),
    /// Keeps a version readable until unpinned.
    Pin {
        /// Name of the pin, unique.
        name: String,
        /// The version kept.
        #[serde(with = "u64_str")]
        version: u64,
    },
    /// Ends a pin.
    Unpin {
        /// Name of the pin.
        name: String,
        /// The version it kept.
        #[serde(with = "u64_str")]
        version: u64,
    },
    /// Adds a source; names the highest id before it.
    Source {
        /// Highest source id that the committer saw.
        previous: Option<u32>,
        /// Id of the new source.
        id: u32,
        /// The source.
        source: Source,
    },
    /// A person accepted that the log lost a stretch before we read it.
    Accept {
        /// Source id.
        source: u32,
        /// Partition.
        partition: u32,
        /// The stored next offset.
        #[serde(with = "u64_str")]
        from: u64,
        /// The log's first offset now.
        #[serde(with = "u64_str")]
        to: u64,
    },
    /// A partition that was added to a source's topic.
    Partition {
        /// Source id.
        source: u32,
        /// Partition, unknown so far.
        partition: u32,
        /// Its first offset.
        #[serde(with = "u64_str")]
        start: u64,
    },
    /// New segments use other centroids.
    Centroids {
        /// What they used before.
        replaces: Option<Ulid>,
        /// What they use from now on.
        centroids: CentroidsMeta,
    },
    /// The last commit of an incarnation.
    Retire {},
}
