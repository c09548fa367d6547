//! Verify: recount the ledger against the log.
//!
//! The services read every partition again from the incarnation's start to its
//! checkpoint and hand the batches in; this file judges each record as ingest does
//! and compares at the end:
//! - (a) each partition's ledger sums to next − start, and its columns equal the recount;
//! - (b) Σ kept − Σ dropped = entries in live segments;
//! - (c) the newest accepted record of each key is its one live row, or its delete; a
//!   delete may be absent where the state says that deletes so old were dropped.
//!
//! Where the log's low mark has passed the start, only (a)'s sums and (b) can be
//! checked, and the report says so. Memory: ~100 bytes a distinct key.
//!
//! A patch is judged by its own partition, as ingest judges it; a key that is written
//! in several partitions makes that judgement depend on timing, so such keys are
//! counted apart and excused from (c), and their patches from the columns of (a).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use vexlake_manifest::{Invariant, Invariants};
use vexlake_segment::{Position, key_hash};

use crate::error::{Error, Result};
use crate::incarnation::Incarnation;
use crate::record::{self, Format, Op};
use crate::snapshot::{Key, Snapshot};
use crate::state::{Checkpoint, Ledger};

/// Differences listed in a report: enough to start looking, small enough to read.
const EXAMPLES_MAX: usize = 10;
/// Keys looked up together: so many that each index page is read a few times in all.
const KEYS_PER_LOOKUP: usize = 1 << 18;

/// The newest accepted record of a key, by the recount.
struct Newest {
    position: Position,
    deleted: bool,
    /// Written in more than one partition.
    crossed: bool,
    /// Patches, refused ones included.
    patches: u64,
}

impl Newest {
    fn is_timing_dependent(&self) -> bool {
        self.crossed && self.patches > 0
    }
}

/// A recount under way.
pub struct Verification {
    snapshot: Arc<Snapshot>,
    keys: HashMap<String, Newest>,
    counts: BTreeMap<(u32, u32), Recount>,
    invariants: Arc<Invariants>,
}

#[derive(Default)]
struct Recount {
    next: u64,
    log_time: i64,
    accepted: u64,
    bad: u64,
    from_start: bool,
}

/// One partition's line of the report.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionReport {
    /// Source id.
    pub source: u32,
    /// Partition.
    pub partition: u32,
    /// First offset of the incarnation.
    pub start: u64,
    /// Committed next offset.
    pub next: u64,
    /// The stored ledger.
    pub ledger: Ledger,
    /// Records accepted by the recount.
    pub accepted: u64,
    /// Records refused by the recount.
    pub refused: u64,
    /// Whether the log still had everything from the start.
    pub recounted: bool,
}

/// The result of a verification.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether every check passed.
    pub ok: bool,
    /// Version verified.
    pub version: u64,
    /// Offsets covered by checkpoints.
    pub offsets: u64,
    /// Sum of all ledgers.
    pub ledger: Ledger,
    /// Entries dropped by merges.
    pub dropped: u64,
    /// Entries in live segments, shadowed ones included.
    pub entries: u64,
    /// Live rows.
    pub live_rows: u64,
    /// Distinct keys in the log, by the recount.
    pub keys: u64,
    /// Keys whose newest record is not where it must be.
    pub missing: u64,
    /// Live entries beyond one a key.
    pub duplicated: u64,
    /// Keys whose newest record is a delete that a merge has dropped.
    pub forgotten: u64,
    /// Patches whose verdict depends on timing across partitions.
    pub timing_dependent: u64,
    /// Whether (c) could be checked.
    pub recounted: bool,
    /// Partitions.
    pub partitions: Vec<PartitionReport>,
    /// What failed, for people; the first few of each.
    pub problems: Vec<String>,
}

impl Verification {
    /// Begins a recount of the newest version.
    ///
    /// # Errors
    /// Store and format errors.
    pub async fn begin(incarnation: &Incarnation) -> Result<Self> {
        let snapshot = incarnation.follow().await?;
        Ok(Self {
            snapshot,
            keys: HashMap::new(),
            counts: BTreeMap::new(),
            invariants: incarnation.context.components.invariants.clone(),
        })
    }

    /// The stretches to read: (source, partition, checkpoint).
    pub fn stretches(&self) -> Vec<(u32, u32, Checkpoint)> {
        let state = self.snapshot.state();
        let flat = |(source, partitions): (&u32, &BTreeMap<u32, Checkpoint>)| {
            partitions
                .iter()
                .map(|(partition, c)| (*source, *partition, *c))
                .collect::<Vec<_>>()
        };
        state.checkpoints.iter().flat_map(flat).collect()
    }

    /// Judges one batch, read in offset order.
    ///
    /// # Errors
    /// `INVALID` for a batch of an unknown partition, or one that leaves a gap.
    pub fn add(
        &mut self,
        source: u32,
        partition: u32,
        from: u64,
        to: u64,
        table: &[u8],
        buffers: &[&[u8]],
    ) -> Result<()> {
        let snapshot = self.snapshot.clone();
        let state = snapshot.state();
        let stored = state.checkpoint(source, partition).ok_or_else(|| {
            Error::Invalid(format!("source {source} has no partition {partition}"))
        })?;
        let count = self
            .counts
            .entry((source, partition))
            .or_insert_with(|| Recount {
                next: from,
                log_time: stored.start_log_time,
                from_start: from <= stored.start,
                ..Recount::default()
            });
        if from > count.next {
            return Err(Error::Invalid(format!(
                "partition {partition}: recount at {}, batch begins at {from}",
                count.next
            )));
        }
        let format = Format::parse(&state.schema.format).ok_or_else(|| {
            Error::Invalid(format!("format {:?} is not known", state.schema.format))
        })?;
        let compacted = state.is_compacted(source);
        let mut floats = Vec::new();
        for (offset, timestamp, raw) in
            record::entries(table, buffers).map_err(|e| Error::Invalid(e.to_string()))?
        {
            let offset = offset as u64;
            if offset < count.next || offset < stored.start || offset >= stored.next {
                continue;
            }
            let log_time = count.log_time.max(timestamp);
            count.log_time = log_time;
            floats.clear();
            let record = record::decode(&raw, format, state.schema.dim, &mut floats);
            let Ok(record) = record.and_then(|record| record.allowed_on(compacted)) else {
                count.bad += 1;
                continue;
            };
            let position = Position {
                source,
                log_time,
                partition,
                offset,
            };
            match judge(&mut self.keys, record.id, record.op, position, |a, b| {
                state.order(a) > state.order(b)
            }) {
                true => count.accepted += 1,
                false => count.bad += 1,
            }
        }
        count.next = count.next.max(to);
        Ok(())
    }

    /// Compares the recount with the lake.
    ///
    /// # Errors
    /// Read errors; `NOT_FOUND` when the recount took longer than its version was kept.
    pub async fn finish(self) -> Result<Report> {
        let state = self.snapshot.state();
        let mut problems = Problems::default();
        let mut partitions = Vec::new();
        let slack = self
            .keys
            .values()
            .filter(|key| key.is_timing_dependent())
            .map(|key| key.patches)
            .sum();
        for (source, partition, stored) in self.stretches() {
            let line = self.partition_report(source, partition, &stored, slack, &mut problems);
            partitions.push(line);
        }
        let recounted = partitions.iter().all(|p| p.recounted);
        let (ledger, entries) = (state.ledger(), state.entries());
        if ledger.kept != entries + state.dropped_entries {
            let dropped = state.dropped_entries;
            problems.add(
                "ledger",
                format!(
                    "kept {} − dropped {dropped} is not the {entries} entries in segments",
                    ledger.kept
                ),
            );
        }
        let newest = if recounted {
            self.compare(&mut problems).await?
        } else {
            Compared::default()
        };
        let live = self.live_entries();
        let keys = self.keys.len() as u64;
        let duplicated = if recounted {
            (live + newest.forgotten).saturating_sub(keys)
        } else {
            0
        };
        if !self
            .invariants
            .judge(Invariant::OneLiveRow, duplicated == 0)
        {
            let forgotten = newest.forgotten;
            problems.add(
                "duplicated",
                format!("{live} live entries and {forgotten} forgotten deletes for {keys} keys"),
            );
        }
        let dropped = state.dropped_deletes.map_or(0, |deletes| deletes.entries);
        let lost = newest.forgotten.saturating_sub(dropped);
        if lost > 0 {
            let forgotten = newest.forgotten;
            problems.add(
                "missing",
                format!("{forgotten} deletes are absent, merges dropped {dropped}"),
            );
        }
        Ok(Report {
            ok: problems.count == 0,
            version: self.snapshot.version(),
            offsets: partitions.iter().map(|p| p.next - p.start).sum(),
            ledger,
            dropped: state.dropped_entries,
            entries,
            live_rows: self.snapshot.live_rows,
            keys,
            missing: newest.missing + lost,
            duplicated,
            forgotten: newest.forgotten,
            timing_dependent: newest.timing_dependent,
            recounted,
            partitions,
            problems: problems.lines,
        })
    }

    fn live_entries(&self) -> u64 {
        self.snapshot
            .segments
            .values()
            .map(|v| u64::from(v.reader.entries()) - v.shadow.len())
            .sum()
    }

    fn partition_report(
        &self,
        source: u32,
        partition: u32,
        stored: &Checkpoint,
        slack: u64,
        problems: &mut Problems,
    ) -> PartitionReport {
        let ledger = stored.ledger;
        let name = format!("source {source} partition {partition}");
        if ledger.total() != stored.next - stored.start {
            let offsets = stored.next - stored.start;
            problems.add(
                "ledger",
                format!(
                    "{name}: the ledger sums to {}, offsets {offsets}",
                    ledger.total()
                ),
            );
        }
        let empty = Recount {
            next: stored.start,
            from_start: stored.next == stored.start,
            ..Recount::default()
        };
        let count = self.counts.get(&(source, partition)).unwrap_or(&empty);
        let recounted = count.from_start && count.next >= stored.next;
        let (taken, refused) = (ledger.kept + ledger.superseded, ledger.dead_lettered);
        // A patch that timing judged otherwise moves from one column to the other.
        let same = count.accepted + count.bad == taken + refused
            && count.accepted.abs_diff(taken) <= slack;
        if recounted && !same {
            let (accepted, bad) = (count.accepted, count.bad);
            problems.add(
                "ledger",
                format!(
                    "{name}: recounted {accepted} accepted and {bad} refused, stored {ledger:?}"
                ),
            );
        }
        let Checkpoint { start, next, .. } = *stored;
        let (accepted, refused) = (count.accepted, count.bad);
        PartitionReport {
            source,
            partition,
            start,
            next,
            ledger,
            accepted,
            refused,
            recounted,
        }
    }

    async fn compare(&self, problems: &mut Problems) -> Result<Compared> {
        let mut compared = Compared::default();
        let dropped = self.snapshot.state().dropped_deletes;
        let keys: Vec<Key<'_>> = self.keys.keys().map(|id| (key_hash(id), &**id)).collect();
        let mut located = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_PER_LOOKUP) {
            located.extend(self.snapshot.locate_many(keys).await?);
        }
        for ((id, newest), found) in self.keys.iter().zip(located) {
            let same = |l: &crate::snapshot::Location| {
                let (a, b) = (&l.position, &newest.position);
                (a.source, a.partition, a.offset, l.deleted)
                    == (b.source, b.partition, b.offset, newest.deleted)
            };
            if found.as_ref().is_some_and(same) {
                continue;
            }
            if newest.is_timing_dependent() {
                compared.timing_dependent += 1;
                continue;
            }
            let old = |d: crate::state::DroppedDeletes| newest.position.log_time <= d.log_time;
            if newest.deleted && found.is_none() && dropped.is_some_and(old) {
                compared.forgotten += 1;
                continue;
            }
            compared.missing += 1;
            let Position {
                partition, offset, ..
            } = newest.position;
            let at = found.map(|l| (l.position.partition, l.position.offset, l.deleted));
            problems.add(
                "missing",
                format!(
                    "key {id:?}: newest at {partition}:{offset}, deleted {}; lake has {at:?}",
                    newest.deleted
                ),
            );
        }
        Ok(compared)
    }
}

/// The keys of the recount whose newest record is not where it is in the log.
#[derive(Default)]
struct Compared {
    missing: u64,
    forgotten: u64,
    timing_dependent: u64,
}

/// Takes one valid record into the newest-of-key table; false when it is a patch
/// without a record in its partition.
fn judge(
    keys: &mut HashMap<String, Newest>,
    id: &str,
    op: Op,
    position: Position,
    newer: impl Fn(&Position, &Position) -> bool,
) -> bool {
    let deleted = op == Op::Delete;
    let Some(before) = keys.get_mut(id) else {
        if op.is_patch() {
            return false;
        }
        keys.insert(
            id.to_owned(),
            Newest {
                position,
                deleted,
                crossed: false,
                patches: 0,
            },
        );
        return true;
    };
    let same_partition = (before.position.source, before.position.partition)
        == (position.source, position.partition);
    before.crossed |= !same_partition;
    if op.is_patch() {
        before.patches += 1;
        if before.deleted || !same_partition {
            return false;
        }
    }
    if newer(&position, &before.position) {
        *before = Newest {
            position,
            deleted,
            ..*before
        };
    }
    true
}

#[derive(Default)]
struct Problems {
    count: u64,
    by_kind: HashMap<&'static str, usize>,
    lines: Vec<String>,
}

impl Problems {
    fn add(&mut self, kind: &'static str, line: String) {
        self.count += 1;
        let listed = self.by_kind.entry(kind).or_default();
        *listed += 1;
        if *listed <= EXAMPLES_MAX {
            self.lines.push(format!("{kind}: {line}"));
        }
    }
}

#[cfg(test)]
mod tests;
