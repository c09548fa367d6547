//! The state of one incarnation, and the deltas that move it.
//!
//! The manifest stores a chain of [`Delta`]s (`state/delta.rs`); this file says what each one
//! means and which are refused. `apply` is the whole law: a committer that computed its
//! delta on a stale parent is turned away here, before anything is written, and a
//! reader that replays the chain runs the same checks again.
//!
//! Invariants, by the rule id a [`Violation`] carries:
//! - **fenced-retired**: nothing follows a retire.
//! - **append-contiguous**: each range starts at the stored next offset.
//! - **checkpoint-monotone**: offsets and log time never go back.
//! - **ledger-adds-up**: kept + superseded + dead-lettered + not-records = to − from,
//!   and the kept of all ranges = rows + deletes of the added segments.
//! - **segment-new / segment-live**: an added name is new and younger than the last
//!   mark's cutoff; a replaced or shadowed one is live.
//! - **partition-new**: an added partition was unknown.
//! - **replace-conserves**: entries and their multiset hash are conserved:
//!   inputs − dropped = outputs.
//! - **mark-monotone**: a mark never takes back what an earlier one gave up.
//! - **pin-readable / pin-new / pin-live**: a pin keeps a version that can still be
//!   read, under a name that is free; only the pair of both ends it.
//! - **source-new**: a source gets an id above all that the committer saw.
//!
//! Left out on purpose: shadow bits that went to a `shadow/<ulid>` object are only
//! referenced here; a snapshot reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::{State, Violation, u64_str};
use vexlake_segment::{EntryHash, Position, SegmentMeta, SegmentSchema};
use vexlake_store::{Store, StoreError};

use crate::shadow::{self, ShadowRefs, Shadows};

pub use delta::{Delta, Dropped, Mark};
use progress::fresh_checkpoints;
pub use progress::{Checkpoint, Fingerprint, Ledger, Range};

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
    /// First offset of each partition that belongs to this incarnation (its floor).
    #[serde(with = "crate::string_map")]
    pub starts: BTreeMap<u32, u64>,
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
    /// Entries dropped by replaces so far.
    #[serde(with = "u64_str")]
    pub dropped_entries: u64,
    /// The last mark.
    pub mark: Option<Mark>,
    /// Pinned versions by name.
    #[serde(with = "crate::string_map")]
    pub pins: BTreeMap<String, u64>,
    /// Whether a retire has ended this incarnation.
    pub retired: bool,
}

fn violation<T>(rule: &'static str, message: String) -> Result<T, Violation> {
    Err(Violation { rule, message })
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
            dropped_entries: 0,
            mark: None,
            pins: BTreeMap::new(),
            retired: false,
        }
    }

    /// The checkpoint of a partition, if the incarnation knows it.
    pub fn checkpoint(&self, source: u32, partition: u32) -> Option<&Checkpoint> {
        self.checkpoints.get(&source)?.get(&partition)
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

    fn apply_ranges(&mut self, ranges: &[Range]) -> Result<u64, Violation> {
        let mut kept = 0;
        for range in ranges {
            let Range {
                source,
                partition,
                from,
                to,
                ..
            } = *range;
            let Some(checkpoint) = self
                .checkpoints
                .get_mut(&source)
                .and_then(|partitions| partitions.get_mut(&partition))
            else {
                return violation(
                    "append-contiguous",
                    format!("source {source} has no partition {partition}"),
                );
            };
            if checkpoint.next != from || to < from {
                let stored = checkpoint.next;
                return violation(
                    "append-contiguous",
                    format!(
                        "source {source} partition {partition}: range [{from}, {to}) where next is {stored}"
                    ),
                );
            }
            if range.log_time < checkpoint.log_time {
                let stored = checkpoint.log_time;
                return violation(
                    "checkpoint-monotone",
                    format!(
                        "partition {partition}: log time {} after {stored}",
                        range.log_time
                    ),
                );
            }
            if range.ledger.total() != to - from {
                return violation(
                    "ledger-adds-up",
                    format!(
                        "partition {partition}: {:?} sums to {}, offsets {}",
                        range.ledger,
                        range.ledger.total(),
                        to - from
                    ),
                );
            }
            kept += range.ledger.kept;
            checkpoint.next = to;
            checkpoint.log_time = range.log_time;
            checkpoint.last = range.last.or(checkpoint.last);
            checkpoint.ledger.add(&range.ledger);
        }
        Ok(kept)
    }

    fn add_segments(&mut self, adds: &[SegmentMeta]) -> Result<(), Violation> {
        let cutoff = self.cutoff_ms();
        for meta in adds {
            if meta.id.timestamp_ms() < cutoff {
                return violation(
                    "segment-new",
                    format!(
                        "segment {} was minted at {} before the mark's cutoff {cutoff}",
                        meta.id,
                        meta.id.timestamp_ms()
                    ),
                );
            }
            let added = SegmentState {
                meta: meta.clone(),
                shadow: ShadowRefs::default(),
            };
            if self.segments.insert(meta.id, added).is_some() {
                return violation(
                    "segment-new",
                    format!("segment {} is live already", meta.id),
                );
            }
        }
        Ok(())
    }

    fn apply_shadows(&mut self, version: u64, shadows: &Shadows) -> Result<(), Violation> {
        for id in shadows.touched() {
            let Some(segment) = self.segments.get_mut(&id) else {
                return violation(
                    "segment-live",
                    format!("shadow on segment {id}, which is not live"),
                );
            };
            let entries = segment.meta.rows + segment.meta.deletes;
            if let Some(max) = shadows
                .inline
                .get(&id)
                .and_then(|bits| bits.0.max())
                .filter(|max| *max >= entries)
            {
                return violation(
                    "segment-live",
                    format!("shadow bit {max} on segment {id} of {entries} entries"),
                );
            }
            segment.shadow.absorb(version, &id, shadows);
        }
        Ok(())
    }

    fn replace(
        &mut self,
        inputs: &[Ulid],
        adds: &[SegmentMeta],
        dropped: &Dropped,
    ) -> Result<(), Violation> {
        let (mut entries, mut hash) = (0u64, EntryHash::default());
        for id in inputs {
            let Some(segment) = self.segments.remove(id) else {
                return violation("segment-live", format!("replaced segment {id} is not live"));
            };
            entries += u64::from(segment.meta.rows) + u64::from(segment.meta.deletes);
            hash += segment.meta.hash;
        }
        let out: u64 = adds
            .iter()
            .map(|m| u64::from(m.rows) + u64::from(m.deletes))
            .sum();
        let out_hash = adds.iter().fold(dropped.hash, |sum, m| sum + m.hash);
        if entries != out + dropped.entries || hash != out_hash {
            return violation(
                "replace-conserves",
                format!(
                    "{entries} entries in, {out} out, {} dropped; hashes equal: {}",
                    dropped.entries,
                    hash == out_hash
                ),
            );
        }
        self.dropped_entries += dropped.entries;
        self.add_segments(adds)
    }

    fn accept_loss(
        &mut self,
        source: u32,
        partition: u32,
        from: u64,
        to: u64,
    ) -> Result<(), Violation> {
        let range = Range {
            source,
            partition,
            from,
            to,
            log_time: self
                .checkpoint(source, partition)
                .map_or(i64::MIN, |stored| stored.log_time),
            last: None,
            ledger: Ledger {
                lost: to.saturating_sub(from),
                ..Ledger::default()
            },
        };
        self.apply_ranges(&[range]).map(drop)
    }

    fn add_partition(&mut self, source: u32, partition: u32, start: u64) -> Result<(), Violation> {
        let known = self
            .sources
            .get_mut(&source)
            .zip(self.checkpoints.get_mut(&source));
        let Some((source, checkpoints)) =
            known.filter(|(_, known)| !known.contains_key(&partition))
        else {
            return violation(
                "partition-new",
                format!("partition {partition} of source {source} is known, or the source is not"),
            );
        };
        source.starts.insert(partition, start);
        checkpoints.insert(partition, Checkpoint::fresh(start));
        Ok(())
    }

    fn applied(&self, version: u64, delta: &Delta) -> Result<Self, Violation> {
        if self.retired {
            return violation(
                "fenced-retired",
                format!("incarnation {} is retired", self.id),
            );
        }
        let mut next = self.clone();
        match delta {
            Delta::Append {
                ranges,
                adds,
                shadows,
            } => {
                let kept = next.apply_ranges(ranges)?;
                let written: u64 = adds
                    .iter()
                    .map(|m| u64::from(m.rows) + u64::from(m.deletes))
                    .sum();
                if kept != written {
                    return violation(
                        "ledger-adds-up",
                        format!("{kept} kept but {written} entries written"),
                    );
                }
                next.add_segments(adds)?;
                next.apply_shadows(version, shadows)?;
            }
            Delta::Replace {
                inputs,
                adds,
                shadows,
                dropped,
            } => {
                next.replace(inputs, adds, dropped)?;
                next.apply_shadows(version, shadows)?;
            }
            Delta::Mark(mark) => {
                if mark.retain_from < self.retain_from()
                    || mark.cutoff_ms < self.cutoff_ms()
                    || mark.retain_from > version
                {
                    return violation(
                        "mark-monotone",
                        format!("mark {mark:?} after {:?} at version {version}", self.mark),
                    );
                }
                next.mark = Some(*mark);
            }
            Delta::Pin {
                name,
                version: pinned,
            } => {
                if *pinned >= version
                    || (*pinned < self.retain_from() && !self.pins.values().any(|v| v == pinned))
                {
                    return violation(
                        "pin-readable",
                        format!("version {pinned} is not readable at {version}"),
                    );
                }
                if let Some(before) = next.pins.insert(name.clone(), *pinned) {
                    return violation(
                        "pin-new",
                        format!("pin {name:?} already keeps version {before}"),
                    );
                }
            }
            Delta::Unpin {
                name,
                version: pinned,
            } => {
                if next.pins.remove(name) != Some(*pinned) {
                    return violation("pin-live", format!("no pin {name:?} on version {pinned}"));
                }
            }
            Delta::Source {
                previous,
                id,
                source,
            } => {
                if self.sources.keys().last().copied() != *previous
                    || previous.is_some_and(|p| *id <= p)
                {
                    return violation(
                        "source-new",
                        format!(
                            "source {id} after {previous:?}: {:?}",
                            self.sources.keys().last()
                        ),
                    );
                }
                next.sources.insert(*id, source.clone());
                next.checkpoints.insert(*id, fresh_checkpoints(source));
            }
            Delta::Accept {
                source,
                partition,
                from,
                to,
            } => next.accept_loss(*source, *partition, *from, *to)?,
            Delta::Partition {
                source,
                partition,
                start,
            } => next.add_partition(*source, *partition, *start)?,
            Delta::Retire {} => next.retired = true,
        }
        Ok(next)
    }
}

#[async_trait::async_trait]
impl State for IncarnationState {
    type Delta = Delta;

    fn apply(&mut self, version: u64, _when_ms: u64, delta: &Delta) -> Result<(), Violation> {
        *self = self.applied(version, delta)?;
        Ok(())
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
