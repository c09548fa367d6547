//! The state of one incarnation, and the deltas that move it.
//!
//! The manifest stores a chain of [`Delta`]s (`state/delta.rs`). What each one does, and
//! when it is refused, is the law in `state/apply.rs`; how far partitions are consumed
//! is `state/progress.rs`; which deletes are needed no more is `state/deletes.rs`; which
//! centroids are in use is `state/centroids.rs`. Here is what a version holds, and how
//! positions order.
//!
//! Left out on purpose: shadow bits that went to a `shadow/<ulid>` object are only
//! referenced here; a snapshot reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::{Invariant, Invariants, State, Violation, u64_str};
use vexlake_segment::{Position, SegmentMeta, SegmentSchema};
use vexlake_store::{Store, StoreError};

use crate::shadow::{self, ShadowRefs};

pub use centroids::{CentroidVersions, CentroidsMeta, Trained};
pub use deletes::DroppedDeletes;
pub use delta::{Delta, Dropped, Mark};
use progress::fresh_checkpoints;
pub use progress::{Checkpoint, Fingerprint, Ledger, Range};

mod apply;
mod centroids;
mod deletes;
mod delta;
mod progress;

/// Shadow objects referenced before a base roll folds them into one pack: a reader
/// opening cold fetches at most this many small objects.
pub const SHADOW_OBJECTS_MAX: usize = 16;

/// What a collection's vectors are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Components of a vector, 1..=65,536.
    pub dim: u32,
    /// `cosine`, `l2`, `ip` or `l1`.
    pub metric: String,
    /// Record format assumed when a record carries no `vexlake-format` header.
    pub format: String,
}

impl Schema {
    /// The metric as the kernels know it.
    pub fn metric(&self) -> Metric {
        Metric::parse(&self.metric).unwrap_or(Metric::Cosine)
    }

    /// The part that segments are built by.
    pub fn segment(&self) -> SegmentSchema {
        SegmentSchema {
            dim: self.dim,
            metric: self.metric(),
        }
    }
}

/// Where records come from. A new epoch is a new source; rank orders sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Newest position wins; a backfill ranks below the live source.
    pub rank: u32,
    /// Counts re-creations and switches of the log behind this source.
    pub epoch: u32,
    /// `kafka` or `local`.
    pub kind: String,
    /// The cluster id that the log reports.
    pub cluster: String,
    /// The topic.
    pub topic: String,
    /// Whether compaction may take records out of the topic, as read when the source was
    /// added. Part of this table, so that everyone judges patches alike.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compacted: bool,
    /// First offset of each partition that belongs to this incarnation (its floor).
    #[serde(with = "crate::string_map")]
    pub starts: BTreeMap<u32, u64>,
}

impl Source {
    /// Whether both read one log, in whatever epoch.
    pub fn is_same_log(&self, other: &Self) -> bool {
        let Self {
            kind,
            cluster,
            topic,
            ..
        } = self;
        (kind, cluster, topic) == (&other.kind, &other.cluster, &other.topic)
    }

    /// Whether an offset means the same record in both.
    pub fn is_same_epoch(&self, other: &Self) -> bool {
        self.is_same_log(other) && self.epoch == other.epoch
    }

    /// The log, for people.
    pub fn log(&self) -> String {
        format!("{} {} topic {}", self.kind, self.cluster, self.topic)
    }
}

/// A source as a creator describes it; rank and epoch start at their defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    /// `kafka` or `local`.
    pub kind: String,
    /// Cluster id.
    pub cluster: String,
    /// Topic.
    pub topic: String,
    /// Whether the topic is compacted.
    #[serde(default)]
    pub compacted: bool,
    /// First offset by partition.
    #[serde(with = "crate::string_map")]
    pub starts: BTreeMap<u32, u64>,
}

/// Rank of a collection's own topic; backfill sources rank below.
const LIVE_RANK: u32 = 100;

impl NewSource {
    pub(crate) fn into_source(self, epoch: u32) -> Source {
        let Self {
            kind,
            cluster,
            topic,
            compacted,
            starts,
        } = self;
        Source {
            rank: LIVE_RANK,
            epoch,
            kind,
            cluster,
            topic,
            compacted,
            starts,
        }
    }
}

/// A live segment and what hides some of its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentState {
    /// The immutable files.
    pub meta: SegmentMeta,
    /// Entries hidden by newer records.
    pub shadow: ShadowRefs,
}

/// The state of an incarnation at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationState {
    /// This incarnation.
    pub id: Ulid,
    /// Name at creation, for people; the catalog owns the mapping.
    pub name: String,
    /// Shape of the vectors.
    pub schema: Schema,
    /// Sources by id.
    pub sources: BTreeMap<u32, Source>,
    /// Checkpoints by source, partition.
    pub checkpoints: BTreeMap<u32, BTreeMap<u32, Checkpoint>>,
    /// Live segments; ULIDs order them by birth.
    pub segments: BTreeMap<Ulid, SegmentState>,
    /// Versions of centroids; none in a small collection.
    #[serde(default, skip_serializing_if = "CentroidVersions::is_empty")]
    pub centroids: CentroidVersions,
    /// Entries dropped by replaces so far.
    #[serde(with = "u64_str")]
    pub dropped_entries: u64,
    /// Those of them that were live deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_deletes: Option<DroppedDeletes>,
    /// The last mark.
    pub mark: Option<Mark>,
    /// Pinned versions by name.
    #[serde(with = "crate::string_map")]
    pub pins: BTreeMap<String, u64>,
    /// Whether a retire has ended this incarnation.
    pub retired: bool,
}

impl IncarnationState {
    /// Version 0 of an incarnation.
    pub fn new(id: Ulid, name: String, schema: Schema, sources: BTreeMap<u32, Source>) -> Self {
        let checkpoints = sources
            .iter()
            .map(|(id, source)| (*id, fresh_checkpoints(source)))
            .collect();
        Self {
            id,
            name,
            schema,
            sources,
            checkpoints,
            segments: BTreeMap::new(),
            centroids: CentroidVersions::default(),
            dropped_entries: 0,
            dropped_deletes: None,
            mark: None,
            pins: BTreeMap::new(),
            retired: false,
        }
    }

    /// The checkpoint of a partition, if the incarnation knows it.
    pub fn checkpoint(&self, source: u32, partition: u32) -> Option<&Checkpoint> {
        self.checkpoints.get(&source)?.get(&partition)
    }

    /// Whether a source's topic is compacted.
    pub fn is_compacted(&self, source: u32) -> bool {
        self.sources.get(&source).is_some_and(|s| s.compacted)
    }

    /// A position as a value that orders newest last: rank, epoch, log time,
    /// partition, offset.
    pub fn order(&self, position: &Position) -> (u32, u32, i64, u32, u64) {
        let (rank, epoch) = self
            .sources
            .get(&position.source)
            .map_or((0, 0), |source| (source.rank, source.epoch));
        (
            rank,
            epoch,
            position.log_time,
            position.partition,
            position.offset,
        )
    }

    /// Sum of the ledgers of all partitions.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for checkpoint in self.checkpoints.values().flat_map(BTreeMap::values) {
            sum.add(&checkpoint.ledger);
        }
        sum
    }

    /// Entries (rows and deletes, shadowed ones included) in live segments.
    pub fn entries(&self) -> u64 {
        self.segments
            .values()
            .map(|s| u64::from(s.meta.rows) + u64::from(s.meta.deletes))
            .sum()
    }

    /// Distinct shadow objects referenced by live segments.
    pub fn shadow_objects(&self) -> std::collections::BTreeSet<Ulid> {
        self.segments
            .values()
            .flat_map(|s| s.shadow.objects.iter().copied())
            .collect()
    }
}

#[async_trait::async_trait]
impl State for IncarnationState {
    type Delta = Delta;

    fn apply(&mut self, version: u64, _when_ms: u64, delta: &Delta) -> Result<(), Violation> {
        *self = self.applied(version, delta)?;
        Ok(())
    }

    fn checked(delta: &Delta) -> &'static [Invariant] {
        apply::checked(delta)
    }

    fn check(&self, invariants: &Invariants) -> Result<(), Violation> {
        self.check_whole(invariants)
    }

    fn retain_from(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.retain_from)
    }

    fn cutoff_ms(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.cutoff_ms)
    }

    fn retired(&self) -> bool {
        self.retired
    }

    fn pinned(&self) -> Vec<u64> {
        self.pins.values().copied().collect()
    }

    fn fold_due(&self) -> bool {
        self.shadow_objects().len() >= SHADOW_OBJECTS_MAX
    }

    async fn fold(&self, store: &Store) -> Result<Self, StoreError> {
        shadow::fold(self, store).await
    }
}

#[cfg(test)]
mod tests;
