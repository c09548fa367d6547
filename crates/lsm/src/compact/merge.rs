//! A merge: stream the live entries of some segments into fewer, and replace them.
//!
//! 1. Fix the snapshot; a missing input means the job is *superseded*, not failed.
//! 2. With centroids, make the lists of the output first: those of inputs of the same
//!    version are interleaved by copying, others are encoded anew (`merge/listing.rs`).
//!    They say where each row goes.
//! 3. Read each input in batches that fit the memory cap, leave out what is shadowed,
//!    write what remains, in list order by way of buckets (`merge/buckets.rs`); deletes
//!    go last. A row map (4 bytes an entry) remembers where each entry went.
//!    Deletes older than the spec's bound are left out too, where no other segment holds
//!    their key.
//! 4. Commit the replace. After a lost race: inputs gone → superseded; otherwise the
//!    bits that appeared on the inputs meanwhile move through the row map to the
//!    outputs, and the commit is tried again. Nothing is merged twice.
//!
//! A delete is kept while an older record of its key may still arrive (a slow partition):
//! only its entry keeps that record hidden. `state/deletes.rs` says when none can arrive
//! any more. And it is kept while another segment holds an older row: our readers know
//! that row's shadow, but whoever reads the Parquet files alone knows only positions.
//! What is committed beside a merge cannot change either: it is newer than the horizon,
//! or made of segments that were looked at.
//!
//! Limits: batches of at most a quarter of the memory cap; the caller's byte rate.

mod buckets;
mod limits;
mod listing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_manifest::{Head, ManifestError, State};
use vexlake_segment::{
    Built, Delete, EntryHash, Position, Row, SegmentMeta, SegmentWriter, key_hash, upload,
};

use self::buckets::Buckets;
use self::limits::{ENTRY_OVERHEAD_BYTES, check_memory};
pub(super) use self::limits::{Pace, entries_max, with_lists};
use super::plan::Spec;
use crate::error::{Error, Result};
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Incarnation};
use crate::shadow::Shadows;
use crate::snapshot::{SegmentView, Snapshot};
use crate::state::{Delta, Dropped, DroppedDeletes, IncarnationState};

/// Deletes read at once: with ids of 20 bytes 460 KiB.
const DELETES_PER_BATCH: u32 = 8192;
/// Entry ordinal in the row map for "left behind".
const LEFT_BEHIND: u32 = u32::MAX;

/// Bounds of a merge.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MergeOptions {
    /// Memory for batches and bookkeeping.
    pub memory_bytes_max: u64,
    /// Bytes read and written a second; 0 = no bound.
    pub bytes_per_second_max: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
            bytes_per_second_max: 0,
        }
    }
}

/// How far a merge is.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Entries read.
    pub rows_done: u64,
    /// Entries to read.
    pub rows_total: u64,
    /// Bytes read so far.
    pub bytes_read: u64,
    /// `lists`, `merge`, `upload` or `commit`; `sample` and `train` of a training.
    pub phase: &'static str,
}

/// How a job ended; none of them is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It committed.
    Done,
    /// Somebody else's commit left nothing to do.
    Superseded,
    /// As asked for.
    Cancelled,
}

/// What a merge or a training did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    /// How it ended.
    pub status: Ended,
    /// Version after it.
    pub version: u64,
    /// Segments that began.
    pub segments: Vec<Ulid>,
    /// Entries written.
    pub rows: u64,
    /// Entries left behind.
    pub dropped: u64,
    /// Bytes of the inputs.
    pub bytes_in: u64,
    /// Bytes of the outputs.
    pub bytes_out: u64,
}

impl Spec {
    /// An end of this spec that made no segment.
    pub(super) fn ended(&self, status: Ended, version: u64) -> Merged {
        Merged {
            status,
            version,
            segments: Vec::new(),
            rows: 0,
            dropped: 0,
            bytes_in: self.bytes_in,
            bytes_out: 0,
        }
    }
}

/// What a merge produced, before its commit.
struct Output {
    built: Option<Built>,
    dropped: Dropped,
    /// Per input: where each entry went.
    row_maps: BTreeMap<Ulid, Vec<u32>>,
}

/// What a merge reads, and which deletes it leaves behind.
struct Inputs {
    segments: Vec<SegmentView>,
    /// The segments that are not merged.
    others: Vec<SegmentView>,
    /// Deletes of a lower log time may go; `None` = keep all.
    drop_deletes_before: Option<i64>,
}

impl Inputs {
    /// `None` when one of the spec's segments is gone, or it names none.
    fn of(snapshot: &Snapshot, spec: &Spec) -> Option<Self> {
        let horizon = snapshot.state().horizon();
        let bound = |wanted: i64| horizon.map(|horizon| wanted.min(horizon));
        let others = snapshot.segments.iter();
        let others = others.filter(|(id, _)| !spec.inputs.contains(id));
        let segments = live_inputs(snapshot, spec).filter(|live| !live.is_empty())?;
        Some(Self {
            segments,
            others: others.map(|(_, view)| view.clone()).collect(),
            drop_deletes_before: spec.drop_deletes_before.and_then(bound),
        })
    }

    /// Whether a delete that is not shadowed may go. Key filters answer for the segments that
    /// are not merged: one of 65,536 deletes stays without need.
    fn may_drop(&self, id: &str, position: &Position) -> bool {
        let hash = key_hash(id);
        let may_hold = |view: &SegmentView| view.reader.may_hold(hash);
        let is_old = |before| position.log_time < before;
        self.drop_deletes_before.is_some_and(is_old) && !self.others.iter().any(may_hold)
    }
}

impl Incarnation {
    /// Runs a merge; see the file header. `cancelled` is looked at between batches.
    ///
    /// # Errors
    /// `INVALID` when the inputs do not fit the memory cap; `CONFLICT` after too many
    /// lost races; read and write errors.
    pub async fn merge(
        &self,
        spec: &Spec,
        options: &MergeOptions,
        cancelled: &AtomicBool,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Merged> {
        let snapshot = self.follow().await?;
        let Some(inputs) = Inputs::of(&snapshot, spec) else {
            return Ok(spec.ended(Ended::Superseded, snapshot.version()));
        };
        check_memory(&inputs.segments, snapshot.state(), options)?;
        let spool = tempfile::tempdir_in(&self.context.spool).map_err(|e| {
            Error::Unavailable(format!("spool {}: {e}", self.context.spool.display()))
        })?;
        let output = match self
            .stream(
                &inputs,
                &snapshot,
                spool.path(),
                options,
                (cancelled, progress),
            )
            .await
        {
            Ok(Some(output)) => output,
            Ok(None) => return Ok(spec.ended(Ended::Cancelled, snapshot.version())),
            Err(error) => return self.superseded_or(spec, error).await,
        };
        let total = inputs.segments.iter();
        let total = total.map(|view| u64::from(view.reader.entries())).sum();
        let at = |phase| Progress {
            rows_done: total,
            rows_total: total,
            bytes_read: spec.bytes_in,
            phase,
        };
        progress(at("upload"));
        if let Some(built) = &output.built {
            let folder = format!("seg/{}", built.meta.id);
            upload(&self.store.scoped(&folder), built).await?;
        }
        (self.context.components.crash)("compact:uploaded");
        progress(at("commit"));
        match self.commit_merge(spec, &snapshot, &output).await? {
            None => Ok(spec.ended(Ended::Superseded, self.manifest.head().version)),
            Some(head) => {
                (self.context.components.crash)("compact:committed");
                self.show_committed(&head).await;
                let meta = output.built.as_ref().map(|built| &built.meta);
                Ok(Merged {
                    segments: meta.iter().map(|m| m.id).collect(),
                    rows: meta.map_or(0, |m| u64::from(m.rows) + u64::from(m.deletes)),
                    dropped: output.dropped.entries,
                    bytes_out: meta.map_or(0, |m| m.files.iter().map(|f| f.bytes).sum()),
                    ..spec.ended(Ended::Done, head.version)
                })
            }
        }
    }

    /// What an error of reading means: inputs that were replaced meanwhile may have been swept
    /// under the reads, and the next plan names what took their place.
    pub(super) async fn superseded_or(&self, spec: &Spec, error: Error) -> Result<Merged> {
        let now = self.follow().await?;
        match live_inputs(&now, spec) {
            None => Ok(spec.ended(Ended::Superseded, now.version())),
            Some(_) => Err(error),
        }
    }

    async fn stream(
        &self,
        merge: &Inputs,
        snapshot: &Snapshot,
        spool: &std::path::Path,
        options: &MergeOptions,
        (cancelled, progress): Control<'_>,
    ) -> Result<Option<Output>> {
        let inputs = &merge.segments;
        let schema = self.manifest.head().state.schema.segment();
        let row_bytes = u64::from(schema.dim) * 4 + ENTRY_OVERHEAD_BYTES;
        let batch = (options.memory_bytes_max / 4 / row_bytes).clamp(1, 8192) as u32;
        let total: u64 = inputs
            .iter()
            .map(|view| u64::from(view.reader.entries()))
            .sum();
        let mut writer = SegmentWriter::create(spool, &schema)?;
        let mut dropped = Dropped {
            entries: 0,
            hash: EntryHash::default(),
            deletes: None,
        };
        let mut row_maps: BTreeMap<Ulid, Vec<u32>> = inputs
            .iter()
            .map(|v| (v.id(), vec![LEFT_BEHIND; v.reader.entries() as usize]))
            .collect();
        let mut pace = Pace::new(options.bytes_per_second_max);
        let mut buckets = None;
        if let Some(centroids) = snapshot.current_centroids() {
            let listing =
                self.list_inputs(inputs, centroids, batch, &mut pace, (cancelled, progress));
            let Some(listing) = listing.await? else {
                return Ok(None);
            };
            if listing.rows > 0 {
                writer.set_lists(listing.object)?;
                row_maps = listing.row_maps;
                buckets = Some(Buckets::new(spool, listing.rows, batch)?);
            }
        }
        let (mut done, mut kept) = (0u64, 0u32);
        let (pools, runtime) = (&self.context.pools, tokio::runtime::Handle::current());
        for view in inputs {
            let map = row_maps.get_mut(&view.id()).expect("one map per input");
            let mut from = 0;
            while from < view.reader.rows() {
                if cancelled.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let count = batch.min(view.reader.rows() - from);
                pools.in_background(|| -> Result<()> {
                    let rows = runtime.block_on(view.reader.read_rows(from, count))?;
                    for index in 0..count {
                        let row: Row<'_> = rows.row(index as usize);
                        if view.shadow.contains(from + index) {
                            dropped.entries += 1;
                            dropped.hash += EntryHash::of_row(row.id, &row.position);
                            continue;
                        }
                        let place = &mut map[(from + index) as usize];
                        match &mut buckets {
                            Some(buckets) => buckets.push(*place, &row)?,
                            None => *place = writer.push(&row)?,
                        }
                        kept += 1;
                    }
                    Ok(())
                })?;
                from += count;
                done += u64::from(count);
                let bytes_read = done * row_bytes;
                progress(Progress {
                    rows_done: done,
                    rows_total: total,
                    bytes_read,
                    phase: "merge",
                });
                pace.wait(2 * u64::from(count) * row_bytes).await;
            }
        }
        if let Some(buckets) = buckets {
            pools.in_background(|| {
                buckets.each_row(schema.dim, |row| Ok(writer.push(&row).map(drop)?))
            })?;
        }
        for view in inputs {
            let map = row_maps.get_mut(&view.id()).expect("one map per input");
            let reader = &view.reader;
            let mut from = reader.rows();
            while from < reader.entries() {
                let deletes = from..reader.entries().min(from + DELETES_PER_BATCH);
                pools.in_background(|| -> Result<()> {
                    let batch = runtime.block_on(reader.entries_between(deletes.clone()))?;
                    for (place, entry) in deletes.clone().enumerate() {
                        let (id, position) = (batch.id(place), batch.position(place));
                        let shadowed = view.shadow.contains(entry);
                        if shadowed || merge.may_drop(id, &position) {
                            dropped.entries += 1;
                            dropped.hash += EntryHash::of_delete(id, &position);
                            if !shadowed {
                                let (entries, log_time) = (1, position.log_time);
                                let one = DroppedDeletes { entries, log_time };
                                DroppedDeletes::add(&mut dropped.deletes, one);
                            }
                            continue;
                        }
                        map[entry as usize] = kept;
                        writer.delete(&Delete {
                            id,
                            event_time: batch.event_time(place),
                            position,
                        })?;
                        kept += 1;
                    }
                    Ok(())
                })?;
                from = deletes.end;
            }
        }
        // Named only now: a merge may take longer than the grace of a mark that comes meanwhile.
        let id = self.manifest.mint();
        let built = match kept {
            0 => None,
            _ => Some(pools.in_background(|| writer.finish(id))?),
        };
        Ok(Some(Output {
            built,
            dropped,
            row_maps,
        }))
    }

    /// Commits the replace; `None` when an input is gone, or a delete is needed again.
    async fn commit_merge(
        &self,
        spec: &Spec,
        merged_on: &Arc<Snapshot>,
        output: &Output,
    ) -> Result<Option<Arc<Head<IncarnationState>>>> {
        let adds: Vec<_> = output
            .built
            .iter()
            .map(|built| built.meta.clone())
            .collect();
        let mut snapshot = self.follow().await?;
        for _ in 0..=COMMIT_ATTEMPTS_MAX {
            // A partition that was added meanwhile may deliver what a dropped delete hides.
            let deletes = output.dropped.deletes;
            let may_drop = deletes.is_none_or(|deletes| snapshot.state().may_drop(&deletes));
            let Some(now) = live_inputs(&snapshot, spec).filter(|_| may_drop) else {
                return Ok(None);
            };
            let state = snapshot.state();
            let late = |meta: &&SegmentMeta| {
                let gone = |version| !state.centroids.live.contains_key(&version);
                meta.id.timestamp_ms() < state.cutoff_ms() || meta.centroids.is_some_and(gone)
            };
            if let Some(late) = adds.iter().find(late) {
                // Its files, or the centroids of its lists, may be swept already.
                let message = format!("a mark overtook the upload of merged segment {}", late.id);
                return Err(Error::Conflict(message));
            }
            let bits = moved_bits(merged_on, &now, output);
            let shadows = Shadows::place(bits, &self.store, self.manifest.mint()).await?;
            let inputs = spec.inputs.clone();
            let delta = Delta::Replace {
                inputs,
                adds: adds.clone(),
                shadows,
                dropped: output.dropped,
            };
            match self
                .manifest
                .commit(&snapshot.head, delta, &self.context.author)
                .await
            {
                Ok(head) => return Ok(Some(head)),
                Err(ManifestError::Conflict { .. }) => snapshot = self.follow().await?,
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!(
            "incarnation {}: {COMMIT_ATTEMPTS_MAX} commits lost in a row",
            self.id
        );
        Err(Error::Conflict(message))
    }
}

/// Who may end the work, and who is told how far it is.
pub(super) type Control<'a> = (&'a AtomicBool, &'a (dyn Fn(Progress) + Send + Sync));

fn live_inputs(snapshot: &Snapshot, spec: &Spec) -> Option<Vec<SegmentView>> {
    spec.inputs
        .iter()
        .map(|id| snapshot.segments.get(id).cloned())
        .collect()
}

/// Bits that appeared on the inputs since they were merged, as bits of the output.
fn moved_bits(
    merged_on: &Snapshot,
    now: &[SegmentView],
    output: &Output,
) -> BTreeMap<Ulid, RoaringBitmap> {
    let Some(built) = &output.built else {
        return BTreeMap::new();
    };
    let mut bits = RoaringBitmap::new();
    for view in now {
        let before = &merged_on.segments[&view.id()].shadow;
        let map = &output.row_maps[&view.id()];
        let fresh = (&*view.shadow - &**before).into_iter();
        bits.extend(
            fresh
                .map(|entry| map[entry as usize])
                .filter(|entry| *entry != LEFT_BEHIND),
        );
    }
    BTreeMap::from([(built.meta.id, bits)])
}

#[cfg(test)]
mod tests;
