//! Flush: sealed memtables become segments, each by one commit.
//!
//! 1. Seal the active memtable; take the sealed ones oldest first, one at a time.
//! 2. On the head to commit on: drop the partitions whose checkpoint is not ours any
//!    more, reviving what only their records had beaten. Find for every key the entry
//!    that is live at that head.
//! 3. Judge patches again: one is wrong where a record of another partition came to lie
//!    between its base and itself. Its whole partition is left out like one that is not
//!    ours, and 2 begins anew; reported as lost, it is consumed again from its
//!    checkpoint, where the patch meets that record and the ordinary rule judges it.
//! 4. Build one segment of what remains and upload it, unless that was done already. With
//!    centroids its rows are assigned to lists first and written in their order.
//! 5. Commit with the shadows of what 2 found: an older entry gets a shadow bit, a newer
//!    one makes ours born shadowed. A lost race goes back to 2 with the new head; only
//!    segments added since are probed, everything else found before still stands.
//! 6. Show the new version, which drops the memtable from the feed.
//!
//! Invariants: what a memtable holds is either committed exactly once or belongs to a
//! partition whose next owner consumes it again from the stored checkpoint; no patch is
//! committed on a base that something committed with or before it has overtaken.

mod probe;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ulid::Ulid;
use vexlake_manifest::{Head, ManifestError};
use vexlake_segment::{Position, SegmentMeta};

use self::probe::Probe;
use self::write::Written;
use crate::error::{Error, Result};
use crate::incarnation::{COMMIT_ATTEMPTS_MAX, Incarnation};
use crate::memtable::{Entry, EntryIndex, Memtable};
use crate::shadow::Shadows;
use crate::snapshot::{Location, Snapshot};
use crate::state::{Delta, IncarnationState, Ledger, Range};

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
    /// (source, partition, stored next) of partitions to be consumed again from there:
    /// another process owns them now, or a patch of theirs has to be judged again.
    pub lost: Vec<(u32, u32, u64)>,
}

/// Partitions that are not ours any more: (source, partition) → stored next.
type Gone = BTreeMap<(u32, u32), u64>;

impl Incarnation {
    /// Seals and flushes everything consumed so far; see the file header.
    ///
    /// # Errors
    /// `FENCED` when the incarnation is retired; `CONFLICT` after too many lost races;
    /// store errors. Nothing is lost on an error: a later flush takes it up again.
    pub async fn flush(&self) -> Result<Flushed> {
        self.feed.seal(0).await;
        self.flush_sealed().await
    }

    /// Flushes what is sealed; appends go on meanwhile. Ingest seals by itself, at a
    /// moment when the dead letters of everything sealed are acknowledged.
    ///
    /// # Errors
    /// See [`Incarnation::flush`].
    pub async fn flush_sealed(&self) -> Result<Flushed> {
        let _turn = self.flushing.lock().await;
        let mut flushed = Flushed {
            version: self.manifest.head().version,
            ..Flushed::default()
        };
        let mut before: Option<Arc<Memtable>> = None;
        while let Some(memtable) = self.feed.oldest_sealed() {
            if before.is_some_and(|before| Arc::ptr_eq(&before, &memtable)) {
                // Committed and not shown yet: the next flush finds it covered.
                break;
            }
            self.flush_one(&memtable, &mut flushed).await?;
            if !flushed.lost.is_empty() {
                // What is buffered beyond a lost partition's checkpoint follows from what was
                // given up, or is the new owner's now; what was committed just now must not be
                // taken back with it.
                self.show(self.manifest.head()).await?;
                self.feed.reset().await;
            }
            before = Some(memtable);
        }
        Ok(flushed)
    }

    async fn flush_one(&self, memtable: &Arc<Memtable>, flushed: &mut Flushed) -> Result<()> {
        let mut share: Option<Arc<Share>> = None;
        let mut segment: Option<Written> = None;
        let mut probe = Probe::default();
        let mut overtaken = BTreeSet::new();
        for _ in 0..=COMMIT_ATTEMPTS_MAX {
            // The newest known: another task of this process may have followed meanwhile.
            let head = self.manifest.head();
            let judged = async {
                let snapshot = self.opened(&head).await?;
                let judged = judge(memtable, &snapshot, &share, &mut overtaken, &mut probe).await?;
                Ok((snapshot, judged))
            };
            let (snapshot, (ours, gone)) = match judged.await {
                Err(error) => {
                    // Merged away and swept under the look-up: a newer head says what is there.
                    self.leave_swept(error, head.version).await?;
                    continue;
                }
                Ok(judged) => judged,
            };
            let lost = lost_partitions(memtable, &gone);
            if ours.ranges.is_empty() {
                flushed.lost.extend(lost);
                self.show(head).await?;
                return Ok(());
            }
            let stale = segment.as_ref().is_some_and(|s| s.is_stale(&head.state));
            if stale
                || !share
                    .as_ref()
                    .is_some_and(|share| Arc::ptr_eq(share, &ours))
            {
                segment = self.write_segment(memtable, &ours, &snapshot).await?;
                (self.context.components.crash)("flush:uploaded");
            }
            share = Some(ours.clone());
            let bits = segment.as_ref().map(|segment| {
                tokio::task::block_in_place(|| probe.bits(memtable, &ours, segment, &snapshot))
            });
            let name = self.manifest.mint();
            let shadows = Shadows::place(bits.unwrap_or_default(), &self.store, name).await?;
            let adds: Vec<SegmentMeta> = segment.iter().map(|s| s.meta.clone()).collect();
            let delta = Delta::Append {
                ranges: ours.ranges.clone(),
                adds: adds.clone(),
                shadows,
            };
            match self
                .manifest
                .commit(&head, delta, &self.context.author)
                .await
            {
                Ok(committed) => {
                    (self.context.components.crash)("flush:committed");
                    flushed.note(&committed, adds, ours.ranges.clone(), lost);
                    self.show_committed(&committed).await;
                    return Ok(());
                }
                Err(ManifestError::Conflict { .. }) => drop(self.manifest.refresh().await?),
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!(
            "incarnation {}: {COMMIT_ATTEMPTS_MAX} commits lost in a row",
            self.id
        );
        Err(Error::Conflict(message))
    }

    /// The snapshot of `head`, which readers need not see yet.
    async fn opened(&self, head: &Arc<Head<IncarnationState>>) -> Result<Arc<Snapshot>> {
        let current = self.snapshot();
        if current.version() == head.version {
            return Ok(current);
        }
        let (store, cache) = (&self.store, &self.context.cache);
        let opened = Snapshot::open(store, cache, head.clone(), Some(&current)).await?;
        Ok(Arc::new(opened))
    }
}

impl Flushed {
    fn note(
        &mut self,
        head: &Head<IncarnationState>,
        adds: Vec<SegmentMeta>,
        ranges: Vec<Range>,
        lost: Vec<(u32, u32, u64)>,
    ) {
        self.version = head.version;
        self.commits += 1;
        self.ranges.extend(ranges);
        self.lost.extend(lost);
        for meta in adds {
            self.rows += u64::from(meta.rows);
            self.deletes += u64::from(meta.deletes);
            self.bytes += meta.files.iter().map(|f| f.bytes).sum::<u64>();
            self.segments.push(meta.id);
        }
    }
}

/// Our share on a head: without what is not ours and what has to be judged again, which goes
/// to `overtaken`. The share `before` stands while the same partitions are left out, and
/// with it what the probe found.
async fn judge(
    memtable: &Memtable,
    snapshot: &Snapshot,
    before: &Option<Arc<Share>>,
    overtaken: &mut BTreeSet<(u32, u32)>,
    probe: &mut Probe,
) -> Result<(Arc<Share>, Gone)> {
    let state = snapshot.state();
    loop {
        let gone = gone_partitions(memtable, state, overtaken);
        let ours = match before {
            Some(share) if share.gone.keys().eq(gone.keys()) => share.clone(),
            _ => {
                *probe = Probe::default();
                Arc::new(Share::of(memtable, gone.clone(), state))
            }
        };
        probe.update(memtable, &ours, snapshot).await?;
        let fresh = ours.overtaken(memtable, &probe.found, state);
        if fresh.is_empty() {
            return Ok((ours, gone));
        }
        overtaken.extend(fresh);
    }
}

/// Partitions of the memtable whose stored checkpoint is not where the stretch begins, whose
/// source is shut or whose patches were `overtaken`, with the stored next offset.
fn gone_partitions(
    memtable: &Memtable,
    state: &IncarnationState,
    overtaken: &BTreeSet<(u32, u32)>,
) -> Gone {
    let stored = |(source, partition)| state.checkpoint(source, partition).map_or(0, |c| c.next);
    let stretches = memtable.stretches().iter();
    stretches
        .filter(|(key, s)| {
            stored(**key) != s.from || state.is_shut(key.0) || overtaken.contains(key)
        })
        .map(|(key, _)| (*key, stored(*key)))
        .collect()
}

/// Those of the gone partitions that have to be consumed again. A stretch that is committed
/// to its very end is not lost, and mostly our own: a commit whose answer did not arrive.
fn lost_partitions(memtable: &Memtable, gone: &Gone) -> Vec<(u32, u32, u64)> {
    let moved = gone
        .iter()
        .filter(|(key, next)| memtable.stretches()[key].to != **next);
    moved
        .map(|((source, partition), next)| (*source, *partition, *next))
        .collect()
}

fn partition_of(position: &Position) -> (u32, u32) {
    (position.source, position.partition)
}

/// What of a memtable is still ours to commit.
struct Share {
    gone: Gone,
    /// Entries that become rows and deletes, in arrival order.
    entries: Vec<EntryIndex>,
    ranges: Vec<Range>,
}

impl Share {
    /// Without gone partitions: what is alive. A gone partition takes its records with
    /// it, also where they had beaten records of ours: those are revived, since the
    /// offsets that beat them are committed later, by somebody else.
    fn of(memtable: &Memtable, gone: Gone, state: &IncarnationState) -> Self {
        let all = || memtable.entries().iter().zip(0..);
        let mut ledgers: BTreeMap<(u32, u32), Ledger> = memtable
            .stretches()
            .iter()
            .map(|(key, s)| (*key, s.ledger))
            .collect();
        let entries: Vec<EntryIndex> = if gone.is_empty() {
            all()
                .filter(|(entry, _)| entry.alive)
                .map(|(_, index)| index)
                .collect()
        } else {
            let mut newest: HashMap<&str, EntryIndex> = HashMap::new();
            for (entry, index) in
                all().filter(|(entry, _)| !gone.contains_key(&partition_of(&entry.position)))
            {
                let best = newest.entry(memtable.id(entry)).or_insert(index);
                let order = |index: EntryIndex| state.order(&memtable.entry(index).position);
                *best = if order(index) > order(*best) {
                    index
                } else {
                    *best
                };
            }
            let mut entries: Vec<EntryIndex> = newest.into_values().collect();
            entries.sort_unstable();
            for entry in entries
                .iter()
                .map(|index| memtable.entry(*index))
                .filter(|entry| !entry.alive)
            {
                let ledger = ledgers
                    .get_mut(&partition_of(&entry.position))
                    .expect("an entry belongs to a stretch");
                ledger.kept += 1;
                ledger.superseded -= 1;
            }
            entries
        };
        let kept = memtable
            .stretches()
            .iter()
            .filter(|(key, s)| !gone.contains_key(key) && s.to > s.from);
        let ranges = kept.map(|(key, s)| Range {
            source: key.0,
            partition: key.1,
            from: s.from,
            to: s.to,
            log_time: s.log_time,
            last: s.last,
            ledger: ledgers[key],
        });
        Self {
            ranges: ranges.collect(),
            gone,
            entries,
        }
    }

    /// Partitions with a patch whose base is not the newest version before it any more.
    /// `found` is what the head holds of each entry's key.
    ///
    /// Only records of other partitions can come between the two: what their own held
    /// there was known when the patch was completed.
    fn overtaken(
        &self,
        memtable: &Memtable,
        found: &[Option<Location>],
        state: &IncarnationState,
    ) -> BTreeSet<(u32, u32)> {
        let between = |base: &Position, rival: &Position, patch: &Position| {
            let (base, rival_at, at) = (state.order(base), state.order(rival), state.order(patch));
            partition_of(rival) != partition_of(patch) && base < rival_at && rival_at < at
        };
        let mut overtaken = BTreeSet::new();
        let mut patches: HashMap<&str, (&Position, &Position)> = HashMap::new();
        for (index, found) in self.entries.iter().zip(found) {
            let Some(base) = memtable.base(*index) else {
                continue;
            };
            let entry = memtable.entry(*index);
            let (at, partition) = (&entry.position, partition_of(&entry.position));
            let is_overtaken = match found {
                Some(found) => between(base, &found.position, at),
                // A base that was committed and has no successor: a delete that came over it
                // was dropped since.
                None => base.offset < memtable.stretches()[&partition].from,
            };
            if is_overtaken {
                overtaken.insert(partition);
            }
            patches.insert(memtable.id(entry), (base, at));
        }
        if !overtaken.is_empty() || patches.is_empty() {
            return overtaken;
        }
        // A rival that arrived after the patch and is committed with it. One partition at a
        // time, so that two whose patches overtake each other are not left out for ever.
        let rivals = memtable.entries().iter();
        let mut rivals = rivals.filter(|e| !self.gone.contains_key(&partition_of(&e.position)));
        let first = rivals.find_map(|rival| {
            let (base, patch) = patches.get(memtable.id(rival))?;
            between(base, &rival.position, patch).then(|| partition_of(patch))
        });
        first.into_iter().collect()
    }

    fn entries<'a>(&'a self, memtable: &'a Memtable) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().map(|index| memtable.entry(*index))
    }
}

#[cfg(test)]
mod tests;
