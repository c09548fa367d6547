//! The law of an incarnation: what each delta does to the state, and when it is refused.
//!
//! A committer that computed its delta on a stale parent is turned away here, before
//! anything is written; a reader that replays the chain runs the same checks again.
//!
//! Invariants (the catalogue is `Invariant`), and what they mean here:
//! - **fenced-retired**: nothing follows a retire.
//! - **append-contiguous**: each range starts at the stored next offset.
//! - **checkpoint-monotone**: offsets and log time never go back.
//! - **ledger-adds-up**: kept + superseded + dead-lettered + not-records + lost =
//!   to − from, and the kept of all ranges = rows + deletes of the added segments. Of the
//!   whole state: each ledger = next − start, and all kept − all dropped = entries.
//! - **segment-live**: a replaced or shadowed segment is live.
//! - **replace-conserves**: entries and their multiset hash are conserved:
//!   inputs − dropped = outputs.
//! - **delete-needed**: a delete is dropped only when nothing older can arrive.
//! - **source-shut**: a replaced epoch appends nothing once deletes were dropped.
//! - **mark-monotone**: a mark never takes back what an earlier one gave up.
//!
//! Rules that a request, or a flush that slept too long, may break:
//! - **segment-new**: an added name is new and younger than the last mark's cutoff.
//! - **partition-new**: an added partition was unknown.
//! - **loss-current**: a loss is accepted from where the checkpoint stands.
//! - **centroids-next**: centroids replace those in use, under a new name.
//! - **centroids-live**: the centroids of an added segment's lists are there.
//! - **pin-readable / pin-new / pin-live**: a pin keeps a version that can still be
//!   read, under a name that is free; only the pair of both ends it.
//! - **source-new**: a source gets an id above all that the committer saw.
//! - **source-below**: no source is added whose records are older than dropped deletes.

use ulid::Ulid;
use vexlake_manifest::{Invariant, Invariants, State, Violation};
use vexlake_segment::{EntryHash, SegmentMeta};

use super::progress::fresh_checkpoints;
use super::{
    Checkpoint, Delta, Dropped, DroppedDeletes, IncarnationState, Ledger, Range, SegmentState,
};
use crate::shadow::{ShadowRefs, Shadows};

pub(super) fn violation<T>(rule: &'static str, message: String) -> Result<T, Violation> {
    Err(Violation { rule, message })
}

fn broken<T>(invariant: Invariant, message: String) -> Result<T, Violation> {
    violation(invariant.id(), message)
}

/// The invariants that [`IncarnationState::applied`] checks of a delta.
pub(super) fn checked(delta: &Delta) -> &'static [Invariant] {
    use Invariant::{
        AppendContiguous, CheckpointMonotone, FencedRetired, LedgerAddsUp, ReplaceConserves,
        SegmentLive,
    };
    match delta {
        Delta::Append { .. } => &[
            FencedRetired,
            AppendContiguous,
            CheckpointMonotone,
            LedgerAddsUp,
            SegmentLive,
        ],
        Delta::Replace { .. } => &[FencedRetired, ReplaceConserves, SegmentLive],
        Delta::Accept { .. } => &[FencedRetired, CheckpointMonotone],
        _ => &[FencedRetired],
    }
}

impl IncarnationState {
    fn apply_ranges(&mut self, ranges: &[Range]) -> Result<u64, Violation> {
        if let Some(range) = ranges.iter().find(|range| self.is_shut(range.source)) {
            return violation(
                "source-shut",
                format!(
                    "source {} was replaced, and deletes that its records need were dropped",
                    range.source
                ),
            );
        }
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
                return broken(
                    Invariant::AppendContiguous,
                    format!("source {source} has no partition {partition}"),
                );
            };
            if checkpoint.next != from || to < from {
                let stored = checkpoint.next;
                return broken(
                    Invariant::AppendContiguous,
                    format!(
                        "source {source} partition {partition}: range [{from}, {to}) where next is {stored}"
                    ),
                );
            }
            if range.log_time < checkpoint.log_time {
                let stored = checkpoint.log_time;
                return broken(
                    Invariant::CheckpointMonotone,
                    format!(
                        "partition {partition}: log time {} after {stored}",
                        range.log_time
                    ),
                );
            }
            if range.ledger.total() != to - from {
                return broken(
                    Invariant::LedgerAddsUp,
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
            self.check_centroids(meta)?;
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
                return broken(
                    Invariant::SegmentLive,
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
                return broken(
                    Invariant::SegmentLive,
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
                return broken(
                    Invariant::SegmentLive,
                    format!("replaced segment {id} is not live"),
                );
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
            return broken(
                Invariant::ReplaceConserves,
                format!(
                    "{entries} entries in, {out} out, {} dropped; hashes equal: {}",
                    dropped.entries,
                    hash == out_hash
                ),
            );
        }
        if let Some(deletes) = dropped.deletes {
            if deletes.entries > dropped.entries || !self.may_drop(&deletes) {
                return violation(
                    "delete-needed",
                    format!(
                        "{deletes:?} among {} dropped entries, the horizon is {:?}",
                        dropped.entries,
                        self.horizon()
                    ),
                );
            }
            DroppedDeletes::add(&mut self.dropped_deletes, deletes);
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
        let stored = self.checkpoint(source, partition);
        let Some(stored) = stored.filter(|stored| stored.next == from && from <= to) else {
            let next = stored.map(|stored| stored.next);
            return violation(
                "loss-current",
                format!(
                    "partition {partition} of source {source}: loss [{from}, {to}) where next is {next:?}"
                ),
            );
        };
        let range = Range {
            source,
            partition,
            from,
            to,
            log_time: stored.log_time,
            last: None,
            ledger: Ledger {
                lost: to - from,
                ..Ledger::default()
            },
        };
        self.apply_ranges(&[range]).map(drop)
    }

    fn add_partition(&mut self, source: u32, partition: u32, start: u64) -> Result<(), Violation> {
        let start_log_time = self.first_log_time();
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
        checkpoints.insert(partition, Checkpoint::fresh(start, start_log_time));
        Ok(())
    }

    /// What has to hold of the whole state, whatever deltas made it.
    pub(super) fn check_whole(&self, invariants: &Invariants) -> Result<(), Violation> {
        invariants.checked(Invariant::CheckpointMonotone);
        invariants.checked(Invariant::LedgerAddsUp);
        let flat = self.checkpoints.values().flatten();
        for (
            partition,
            Checkpoint {
                start,
                next,
                ledger,
                ..
            },
        ) in flat
        {
            let Some(offsets) = next.checked_sub(*start) else {
                return broken(
                    Invariant::CheckpointMonotone,
                    format!("partition {partition}: next {next} before its start {start}"),
                );
            };
            if ledger.total() != offsets {
                return broken(
                    Invariant::LedgerAddsUp,
                    format!(
                        "partition {partition}: {ledger:?} sums to {}, offsets {offsets}",
                        ledger.total()
                    ),
                );
            }
        }
        let (kept, dropped, entries) = (self.ledger().kept, self.dropped_entries, self.entries());
        if kept != dropped + entries {
            return broken(
                Invariant::LedgerAddsUp,
                format!("{kept} kept, {dropped} dropped, but {entries} entries in segments"),
            );
        }
        Ok(())
    }

    pub(super) fn applied(&self, version: u64, delta: &Delta) -> Result<Self, Violation> {
        if self.retired {
            return broken(
                Invariant::FencedRetired,
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
                    return broken(
                        Invariant::LedgerAddsUp,
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
                    return broken(
                        Invariant::MarkMonotone,
                        format!("mark {mark:?} after {:?} at version {version}", self.mark),
                    );
                }
                next.mark = Some(*mark);
                next.forget_centroids();
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
                if self.is_below_dropped(source) {
                    return violation(
                        "source-below",
                        format!(
                            "source {id} ranks below others, and deletes that its records need were dropped: {:?}; \
                             replay the collection instead",
                            self.dropped_deletes
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
            Delta::Centroids {
                replaces,
                centroids,
            } => next.replace_centroids(*replaces, centroids)?,
            Delta::Retire {} => next.retired = true,
        }
        Ok(next)
    }
}
