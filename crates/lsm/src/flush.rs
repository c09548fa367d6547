//! Flush: sealed memtables become segments, each by one commit.
//!
//! 1. Seal the active memtable; take the sealed ones oldest first, one at a time.
//! 2. Build one segment of the entries alive and upload it.
//! 3. On the head to commit on: drop the partitions whose checkpoint is not ours any
//!    more, and if there were any, build again without them. Find for every key the
//!    entry that is live at that head: an older one gets a shadow bit, a newer one
//!    makes our entry born shadowed.
//! 4. Commit. A lost race goes back to 3 with the new head; only segments added since
//!    are probed, everything else found before still stands.
//! 5. Show the new version, which drops the memtable from the feed.
//!
//! Invariant: what a memtable holds is either committed exactly once or belongs to a
//! partition whose next owner consumes it again from the stored checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_manifest::{Head, ManifestError};
use vexlake_segment::{Built, Delete, Row, SegmentMeta, SegmentWriter, upload};

use crate::error::{Error, Result};
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Incarnation};
use crate::memtable::{Entry, Memtable};
use crate::shadow::Shadows;
use crate::snapshot::{Location, Snapshot, locate};
use crate::state::{Delta, IncarnationState, Range};

/// What a flush did.
#[derive(Clone, Debug, Default)]
pub struct Flushed {
    /// Newest version after it.
    pub version: u64,
    /// Commits made.
    pub commits: u32,
    /// Segments written.
    pub segments: Vec<Ulid>,
    /// Rows written.
    pub rows: u64,
    /// Delete entries written.
    pub deletes: u64,
    /// Bytes uploaded.
    pub bytes: u64,
    /// Committed stretches.
    pub ranges: Vec<Range>,
    /// (source, partition, stored next) of partitions that another process owns now.
    pub lost: Vec<(u32, u32, u64)>,
}

/// Partitions, as (source, partition).
type Partitions = BTreeSet<(u32, u32)>;

impl Incarnation {
    /// Seals and flushes everything consumed so far; see the file header.
    ///
    /// # Errors
    /// `FENCED` when the incarnation is retired; `CONFLICT` after too many lost races;
    /// store errors. Nothing is lost on an error: a later flush takes it up again.
    pub async fn flush(&self) -> Result<Flushed> {
        self.feed.seal(0);
        self.flush_sealed().await
    }

    /// Flushes what is sealed; appends go on meanwhile. Ingest seals by itself, at a
    /// moment when the dead letters of everything sealed are acknowledged.
    ///
    /// # Errors
    /// See [`Incarnation::flush`].
    pub async fn flush_sealed(&self) -> Result<Flushed> {
        let _turn = self.flushing.lock().await;
        let mut flushed = Flushed { version: self.manifest.head().version, ..Flushed::default() };
        while let Some(memtable) = self.feed.oldest_sealed() {
            self.flush_one(&memtable, &mut flushed).await?;
            if !flushed.lost.is_empty() {
                // What is buffered beyond a lost partition's checkpoint is the new owner's now.
                self.feed.reset();
            }
        }
        Ok(flushed)
    }

    async fn flush_one(&self, memtable: &Arc<Memtable>, flushed: &mut Flushed) -> Result<()> {
        let mut dropped = Partitions::new();
        let mut segment: Option<SegmentMeta> = None;
        let mut probe = Probe::default();
        let mut head = self.manifest.head();
        for attempt in 0..=COMMIT_ATTEMPTS_MAX {
            let lost = lost_partitions(memtable, &head.state);
            let fresh = attempt == 0 || lost.len() != dropped.len();
            dropped = lost.keys().copied().collect();
            let ranges = ranges_of(memtable, &dropped);
            if ranges.is_empty() {
                flushed.lost.extend(lost.iter().map(|((s, p), next)| (*s, *p, *next)));
                return Ok(());
            }
            if fresh {
                segment = self.write_segment(memtable, &dropped).await?;
                (self.context.components.crash)("flush:uploaded");
            }
            let shadows = self.shadows(memtable, &dropped, segment.as_ref(), &head, &mut probe).await?;
            let adds: Vec<SegmentMeta> = segment.iter().cloned().collect();
            let delta = Delta::Append { ranges: ranges.clone(), adds: adds.clone(), shadows };
            match self.manifest.commit(&head, delta, &self.context.author).await {
                Ok(committed) => {
                    (self.context.components.crash)("flush:committed");
                    flushed.note(&committed, adds, ranges, lost);
                    self.show(committed).await?;
                    return Ok(());
                }
                Err(ManifestError::Conflict { .. }) => head = self.manifest.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("incarnation {}: {COMMIT_ATTEMPTS_MAX} commits lost in a row", self.id);
        Err(Error::Conflict(message))
    }

    /// Builds and uploads the segment of the entries that are alive and ours; `None`
    /// when there are none.
    async fn write_segment(&self, memtable: &Arc<Memtable>, dropped: &Partitions) -> Result<Option<SegmentMeta>> {
        if ours(memtable, dropped).next().is_none() {
            return Ok(None);
        }
        let id = self.manifest.mint();
        let schema = self.manifest.head().state.schema.segment();
        let spool = tempfile::tempdir_in(&self.context.spool)
            .map_err(|e| Error::Unavailable(format!("spool {}: {e}", self.context.spool.display())))?;
        let (memtable, dropped, path) = (memtable.clone(), dropped.clone(), spool.path().to_owned());
        let built = tokio::task::spawn_blocking(move || -> Result<Built> {
            let mut writer = SegmentWriter::create(&path, id, &schema)?;
            for entry in ours(&memtable, &dropped) {
                if let Some(vector) = memtable.vector(entry) {
                    let (id, attrs) = (memtable.id(entry), memtable.attrs(entry));
                    writer.push(&Row { id, vector, attrs, event_time: entry.event_time, position: entry.position })?;
                }
            }
            for entry in ours(&memtable, &dropped).filter(|e| e.slot.is_none()) {
                let id = memtable.id(entry);
                writer.delete(&Delete { id, event_time: entry.event_time, position: entry.position })?;
            }
            Ok(writer.finish()?)
        })
        .await
        .map_err(|e| Error::Internal(format!("segment build ended: {e}")))??;
        upload(&self.store.scoped(&format!("seg/{id}")), &built).await?;
        Ok(Some(built.meta))
    }

    /// The shadow bits of this flush on `head`: in older segments and in its own.
    async fn shadows(
        &self,
        memtable: &Memtable,
        dropped: &Partitions,
        segment: Option<&SegmentMeta>,
        head: &Arc<Head<IncarnationState>>,
        probe: &mut Probe,
    ) -> Result<Shadows> {
        let Some(segment) = segment else { return Ok(Shadows::default()) };
        let current = self.snapshot();
        let snapshot = match current.version() == head.version {
            true => current,
            false => {
                let opened =
                    Snapshot::open(&self.store, &self.context.cache, head.clone(), Some(&current)).await?;
                Arc::new(opened)
            }
        };
        let bits = tokio::task::block_in_place(|| {
            probe.update(memtable, &snapshot);
            probe.bits(memtable, dropped, segment, &snapshot)
        });
        Ok(Shadows::place(bits, &self.store, self.manifest.mint()).await?)
    }
}

impl Flushed {
    fn note(
        &mut self,
        head: &Head<IncarnationState>,
        adds: Vec<SegmentMeta>,
        ranges: Vec<Range>,
        lost: BTreeMap<(u32, u32), u64>,
    ) {
        self.version = head.version;
        self.commits += 1;
        self.ranges.extend(ranges);
        self.lost.extend(lost.into_iter().map(|((source, partition), next)| (source, partition, next)));
        for meta in adds {
            self.rows += u64::from(meta.rows);
            self.deletes += u64::from(meta.deletes);
            self.bytes += meta.files.iter().map(|f| f.bytes).sum::<u64>();
            self.segments.push(meta.id);
        }
    }
}

/// The entries that a segment of this memtable holds, in arrival order.
fn ours<'a>(memtable: &'a Memtable, dropped: &'a Partitions) -> impl Iterator<Item = &'a Entry> {
    memtable
        .entries()
        .iter()
        .filter(|e| e.alive && !dropped.contains(&(e.position.source, e.position.partition)))
}

/// Partitions of the memtable whose stored checkpoint is not where the stretch begins.
fn lost_partitions(memtable: &Memtable, state: &IncarnationState) -> BTreeMap<(u32, u32), u64> {
    let stored = |(source, partition)| state.checkpoint(source, partition).map_or(0, |c| c.next);
    memtable
        .stretches()
        .iter()
        .filter(|(key, stretch)| stored(**key) != stretch.from)
        .map(|(key, _)| (*key, stored(*key)))
        .collect()
}

fn ranges_of(memtable: &Memtable, dropped: &Partitions) -> Vec<Range> {
    let kept = memtable.stretches().iter().filter(|(key, s)| !dropped.contains(key) && s.to > s.from);
    kept.map(|((source, partition), s)| Range {
        source: *source,
        partition: *partition,
        from: s.from,
        to: s.to,
        log_time: s.log_time,
        last: s.last,
        ledger: s.ledger,
    })
    .collect()
}

/// For every entry of a memtable the committed entry of its key, kept across lost races.
#[derive(Default)]
struct Probe {
    probed: BTreeSet<Ulid>,
    found: Vec<Option<Location>>,
}

impl Probe {
    /// Brings the findings up to a snapshot: probes the segments not seen yet, and
    /// forgets what is no longer live.
    fn update(&mut self, memtable: &Memtable, snapshot: &Snapshot) {
        self.found.resize(memtable.entries().len(), None);
        let added: Vec<_> =
            snapshot.segments.iter().filter(|(id, _)| !self.probed.contains(id)).map(|(_, view)| view).collect();
        for (entry, found) in memtable.entries().iter().zip(&mut self.found) {
            let live = |l: &Location| {
                snapshot.segments.get(&l.segment).is_some_and(|view| !view.shadow.contains(l.entry))
            };
            let newer = locate(added.iter().copied(), entry.hash, memtable.id(entry));
            *found = newer.or(found.filter(live));
        }
        self.probed.extend(snapshot.segments.keys());
    }

    fn bits(
        &self,
        memtable: &Memtable,
        dropped: &Partitions,
        segment: &SegmentMeta,
        snapshot: &Snapshot,
    ) -> BTreeMap<Ulid, RoaringBitmap> {
        let mut bits: BTreeMap<Ulid, RoaringBitmap> = BTreeMap::new();
        let (mut row, mut delete) = (0, segment.rows);
        for (entry, found) in memtable.entries().iter().zip(&self.found) {
            if !entry.alive || dropped.contains(&(entry.position.source, entry.position.partition)) {
                continue;
            }
            let ordinal = if entry.slot.is_some() { &mut row } else { &mut delete };
            if let Some(found) = found {
                let newer = snapshot.state().order(&found.position) > snapshot.state().order(&entry.position);
                let (id, bit) = if newer { (segment.id, *ordinal) } else { (found.segment, found.entry) };
                bits.entry(id).or_default().insert(bit);
            }
            *ordinal += 1;
        }
        bits
    }
}

#[cfg(test)]
mod tests;
