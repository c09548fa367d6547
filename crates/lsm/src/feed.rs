//! The feed: everything of one incarnation that is newer than its snapshot.
//!
//! It is ingest's memtable and a query node's tail at once: an active memtable, the
//! sealed ones before it, and the snapshot they extend. A *view* is the pair
//! (snapshot, feed) read under one lock; it is replaced by one swap when a newer
//! snapshot arrives. What a reader sees follows from three rules only:
//! 1. an entry counts while its offset is at or beyond the snapshot's checkpoint;
//! 2. it must be the newest of its key in the feed;
//! 3. the snapshot must hold no newer entry of that key; if it holds an older one,
//!    that one is hidden (`shadows`).
//!
//! Ingest seals and flushes; a query node seals in steps of its tail;
//! both drop a memtable once the snapshot covers every stretch of it, the active one
//! too, so that nothing is sealed which has been committed by somebody else. There
//! is no other difference between the two.
//!
//! **Two locks.** Looking up a key in the snapshot may read from the store, so it never
//! happens under the view's lock. Whoever changes the feed first takes the `writing` turn
//! ([`Feed::writing`]), an async lock that may be held across reads; while he has it,
//! nothing but his own doing changes the view. He looks up what he needs, then changes
//! the view under its lock, which cannot fail and takes what memory takes. Both long
//! look-ups, of a batch (append.rs) and of everything buffered (`advance`), are done
//! ahead, without the turn; with it only what has changed since is looked up.
//!
//! **Readers** hold the view's lock for as long as it takes to copy references: a search works
//! on a fixed view (`feed/fixed.rs`) and never makes a writer wait, nor he it.
//!
//! **Advance** builds the next view beside the current one, every entry related, while
//! readers go on; the swap itself moves a pointer.
//!
//! Invariants: only the owner of the turn takes the view's lock for writing; the active
//! memtable is shared by nobody else while it grows; what the snapshot holds of a key that
//! the view shows is hidden already, so such a key need not be looked up again.
//!
//! Limits: the services bound bytes by pausing partitions, and with them the tables
//! that a lookup walks.

mod ahead;
mod fixed;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use roaring::RoaringBitmap;
use tokio::sync::{Mutex, MutexGuard};
use ulid::Ulid;

use self::ahead::Ahead;
use self::fixed::Visible;
pub use self::fixed::FixedTable;
use crate::error::Result;
use crate::memtable::{Accepted, Entry, EntryIndex, Memtable};
use crate::snapshot::{Location, Snapshot};
use crate::state::Fingerprint;

/// A memtable and how its entries relate to the rest of the view.
struct Table {
    memtable: Arc<Memtable>,
    /// Entries that are alive and neither overtaken by another memtable of the feed nor older
    /// than the snapshot's entry: one counts only once `relate` has placed it.
    visible: Visible,
}

impl Table {
    fn unrelated(memtable: Arc<Memtable>) -> Self {
        let visible = Visible::default();
        Self { memtable, visible }
    }
}

/// Where the feed stands in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The next offset.
    pub next: u64,
    /// Log time of the last record.
    pub log_time: i64,
    /// The last record.
    pub last: Option<Fingerprint>,
}

/// What became of one accepted record.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Whether the key had a live record before this one.
    pub existed: bool,
}

/// The locked part of a feed.
pub struct View {
    /// The snapshot that the tables extend.
    pub snapshot: Arc<Snapshot>,
    /// Entries of snapshot segments hidden by the feed.
    pub shadows: HashMap<Ulid, Arc<RoaringBitmap>>,
    tables: Vec<Table>,
    applied: BTreeMap<(u32, u32), Applied>,
    card: i64,
    /// Counts the times that tables were taken away: between two, a table keeps its number.
    epoch: u64,
}

/// The feed of one incarnation; see the file header.
pub struct Feed {
    dim: u32,
    view: RwLock<View>,
    writing: Mutex<()>,
}

/// The turn to change a feed; see the file header.
pub struct Writing<'a> {
    feed: &'a Feed,
    _turn: MutexGuard<'a, ()>,
}

impl View {
    fn empty(dim: u32, snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            shadows: HashMap::new(),
            tables: vec![Table::unrelated(Arc::new(Memtable::new(dim)))],
            applied: BTreeMap::new(),
            card: 0,
            epoch: 0,
        }
    }

    /// Live records: the snapshot's, corrected by the feed.
    pub fn card(&self) -> u64 {
        (self.snapshot.live_rows as i64 + self.card).max(0) as u64
    }

    /// Bytes held by all memtables.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|t| t.memtable.bytes()).sum()
    }

    /// Where the feed stands in a partition; the snapshot's checkpoint before any record.
    pub fn applied(&self, source: u32, partition: u32) -> Option<Applied> {
        let stored = self.snapshot.state().checkpoint(source, partition)?;
        let committed = Applied {
            next: stored.next,
            log_time: stored.log_time,
            last: stored.last,
        };
        let fed = self
            .applied
            .get(&(source, partition))
            .filter(|fed| fed.next >= stored.next);
        Some(fed.copied().unwrap_or(committed))
    }

    /// Memtables, oldest first; table numbers are positions in this list.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.tables.iter().map(|t| &t.memtable)
    }

    /// Whether a reader of this view sees the entry.
    pub fn visible(&self, table: usize, index: EntryIndex) -> bool {
        // Without a look at the checkpoint: an entry below it is never related to this
        // snapshot, hence not visible.
        self.tables[table].visible.contains(index)
    }

    /// The visible entry of a key in the feed: (table, entry).
    pub fn find(&self, hash: u64, id: &str) -> Option<(usize, EntryIndex)> {
        self.tables
            .iter()
            .enumerate()
            .rev()
            .find_map(|(number, table)| {
                let index = table.memtable.find(hash, id)?;
                self.visible(number, index).then_some((number, index))
            })
    }

    /// Whether the key has a live record in this view; `base` is the snapshot's entry.
    fn is_live(&self, hash: u64, id: &str, base: Option<Location>) -> bool {
        match self.find(hash, id) {
            Some((table, index)) => self.tables[table].memtable.entry(index).slot.is_some(),
            None => base.is_some_and(|base| !base.deleted),
        }
    }

    fn is_newer(&self, a: &vexlake_segment::Position, b: &vexlake_segment::Position) -> bool {
        let state = self.snapshot.state();
        state.order(a) > state.order(b)
    }

    /// Relates a freshly inserted (or re-examined) entry to the other tables and to `base`,
    /// the snapshot's entry of its key. Updates shadows and the live count; tells whether
    /// the key existed.
    fn relate(&mut self, number: usize, index: EntryIndex, base: Option<Location>) -> bool {
        let table = &self.tables[number];
        let entry = table.memtable.entry(index);
        let (hash, position, is_row) = (entry.hash, entry.position, entry.slot.is_some());
        let memtable = table.memtable.clone();
        let id = memtable.id(memtable.entry(index));
        let mut existed = None;
        self.tables[number].visible.set(index, true);
        for other in (0..self.tables.len())
            .rev()
            .filter(|other| *other != number)
        {
            let Some(found) = self.tables[other].memtable.find(hash, id) else {
                continue;
            };
            if !self.visible(other, found) {
                continue;
            }
            let rival = self.tables[other].memtable.entry(found);
            let rival_is_row = rival.slot.is_some();
            if self.is_newer(&rival.position, &position) {
                self.tables[number].visible.set(index, false);
                return rival_is_row;
            }
            self.tables[other].visible.set(found, false);
            self.card -= i64::from(rival_is_row);
            existed = Some(rival_is_row);
        }
        if base.is_some_and(|base| self.is_newer(&base.position, &position)) {
            self.tables[number].visible.set(index, false);
            return base.is_some_and(|base| !base.deleted);
        }
        if let Some(base) = base {
            let bits = self.shadows.entry(base.segment).or_default();
            let fresh = Arc::make_mut(bits).insert(base.entry);
            self.card -= i64::from(fresh && !base.deleted);
        }
        self.card += i64::from(is_row);
        existed.unwrap_or(base.is_some_and(|base| !base.deleted))
    }

    /// Relates all entries of a table that have anything to say.
    fn relate_table(&mut self, number: usize, located: &[Option<Location>]) {
        let memtable = self.tables[number].memtable.clone();
        for (index, entry) in (0..).zip(memtable.entries()) {
            if counts(entry, &self.snapshot) {
                self.relate(number, index, located[index as usize]);
            }
        }
    }

    /// This view on top of a newer snapshot: without the tables that it covers, the others
    /// related to it.
    fn upon(&self, snapshot: Arc<Snapshot>, ahead: &Ahead) -> View {
        let kept: Vec<usize> = (0..self.tables.len())
            .filter(|number| !covered(&self.tables[*number].memtable, &snapshot))
            .collect();
        let unrelated = |number: &usize| Table::unrelated(self.tables[*number].memtable.clone());
        let mut tables: Vec<Table> = kept.iter().map(unrelated).collect();
        if kept.last() != Some(&(self.tables.len() - 1)) {
            let dim = snapshot.state().schema.dim;
            tables.push(Table::unrelated(Arc::new(Memtable::new(dim))));
        }
        let mut next = View {
            snapshot,
            shadows: HashMap::new(),
            tables,
            applied: self.applied.clone(),
            card: 0,
            epoch: self.epoch + 1,
        };
        for (number, before) in kept.into_iter().enumerate() {
            next.relate_table(number, &ahead.located[before]);
        }
        next
    }

    /// Takes a record; `located` is the snapshot's entry of its key. Where the view shows
    /// the key already, that entry is hidden and counted, and `located` changes nothing.
    fn insert(&mut self, record: &Accepted<'_>, located: Option<Location>) -> Verdict {
        let number = self.tables.len() - 1;
        let snapshot = self.snapshot.clone();
        let state = snapshot.state();
        let newer = |a: &vexlake_segment::Position, b: &vexlake_segment::Position| {
            state.order(a) > state.order(b)
        };
        let hash = vexlake_segment::key_hash(record.id);
        let before = self.tables[number].memtable.find(hash, record.id);
        let before_visible = before.is_some_and(|index| self.visible(number, index));
        let table = &mut self.tables[number];
        let memtable = Arc::get_mut(&mut table.memtable).expect("only sealed memtables are shared");
        let (index, alive) = memtable.insert(record, newer);
        let Some(old) = before else {
            return Verdict {
                existed: self.relate(number, index, located),
            };
        };
        let old_is_row = self.tables[number].memtable.entry(old).slot.is_some();
        if !alive {
            // What beat it may itself be hidden: then the rest of the view says what is live.
            let live = || self.is_live(hash, record.id, located);
            return Verdict {
                existed: if before_visible { old_is_row } else { live() },
            };
        }
        // The successor stands exactly where its predecessor stood, unless that one was hidden.
        if !before_visible {
            return Verdict {
                existed: self.relate(number, index, located),
            };
        }
        let visible = &mut self.tables[number].visible;
        visible.set(old, false);
        visible.set(index, true);
        self.card += i64::from(record.vector.is_some()) - i64::from(old_is_row);
        Verdict {
            existed: old_is_row,
        }
    }
}

/// Whether an entry has anything to say on top of a snapshot. One that has not never will:
/// neither death nor a checkpoint is undone.
fn counts(entry: &Entry, snapshot: &Snapshot) -> bool {
    let position = &entry.position;
    entry.alive && position.offset >= snapshot.next(position.source, position.partition)
}

impl Feed {
    /// A feed without records on top of a snapshot.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let dim = snapshot.state().schema.dim;
        Self {
            dim,
            view: RwLock::new(View::empty(dim, snapshot)),
            writing: Mutex::new(()),
        }
    }

    /// Runs `read` on a consistent view. Keep it short: writers wait.
    pub fn read<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.view.read())
    }

    /// The turn to change the feed; it may be held across reads of the store.
    pub async fn writing(&self) -> Writing<'_> {
        Writing {
            feed: self,
            _turn: self.writing.lock().await,
        }
    }

    /// Seals the active memtable if it consumed any offset and holds at least `bytes_min`.
    pub async fn seal(&self, bytes_min: usize) {
        let writing = self.writing().await;
        let mut view = writing.feed.view.write();
        let due = |table: &Table| !table.memtable.is_empty() && table.memtable.bytes() >= bytes_min;
        if view.tables.last().is_some_and(due) {
            let active = Arc::new(Memtable::new(self.dim));
            view.tables.push(Table::unrelated(active));
        }
    }

    /// The oldest sealed memtable.
    pub fn oldest_sealed(&self) -> Option<Arc<Memtable>> {
        let view = self.view.read();
        (view.tables.len() > 1).then(|| view.tables[0].memtable.clone())
    }

    /// Replaces the snapshot by a newer one: drops what it covers and relates what
    /// remains to it.
    ///
    /// # Errors
    /// Read errors of the new snapshot; the view stays as it is.
    pub async fn advance(&self, snapshot: Arc<Snapshot>) -> Result<()> {
        let mut ahead = Ahead::default();
        ahead.catch_up(self, &snapshot).await?;
        let writing = self.writing().await;
        if snapshot.version() <= self.read(|view| view.snapshot.version()) {
            return Ok(());
        }
        ahead.catch_up(self, &snapshot).await?;
        tokio::task::block_in_place(|| {
            let next = self.read(|view| view.upon(snapshot, &ahead));
            writing.swap(next);
        });
        Ok(())
    }

    /// Forgets everything consumed beyond the snapshot, as after losing partitions.
    pub async fn reset(&self) {
        let writing = self.writing().await;
        let (epoch, snapshot) = self.read(|view| (view.epoch + 1, view.snapshot.clone()));
        let fresh = View::empty(self.dim, snapshot);
        writing.swap(View { epoch, ..fresh });
    }
}

impl Writing<'_> {
    /// Changes the view under its lock, where nothing may wait.
    pub fn append<T>(&self, write: impl FnOnce(&mut Appender<'_>) -> T) -> T {
        let mut view = self.feed.view.write();
        write(&mut Appender { view: &mut view })
    }

    fn swap(&self, next: View) {
        let before = std::mem::replace(&mut *self.feed.view.write(), next);
        // Here and not under the lock: it takes a while, and the active memtable is not
        // ours alone before.
        drop(before);
    }
}

/// Whether a snapshot holds everything that the memtable consumed.
fn covered(memtable: &Memtable, snapshot: &Snapshot) -> bool {
    let mut stretches = memtable.stretches().iter();
    stretches.all(|((source, partition), s)| s.to <= snapshot.next(*source, *partition))
}

/// Writes into a feed's active memtable under its lock.
pub struct Appender<'a> {
    view: &'a mut View,
}

impl Appender<'_> {
    /// Where the feed stands in a partition.
    pub fn applied(&self, source: u32, partition: u32) -> Option<Applied> {
        self.view.applied(source, partition)
    }

    /// The view as written so far.
    pub fn view(&self) -> &View {
        self.view
    }

    /// Takes a record that passed every check. `located` is the snapshot's entry of its
    /// key; it counts for nothing where the view shows the key already.
    pub fn accept(&mut self, record: &Accepted<'_>, located: Option<Location>) -> Verdict {
        let before = self.applied_or_start(record.position.source, record.position.partition);
        self.active().begin(
            record.position.source,
            record.position.partition,
            before.next,
            before.log_time,
        );
        self.view.insert(record, located)
    }

    /// Moves the partition past `to`: counts refused records and offsets without one.
    pub fn advance(
        &mut self,
        source: u32,
        partition: u32,
        to: Applied,
        dead_lettered: u64,
        not_records: u64,
    ) {
        let before = self.applied_or_start(source, partition);
        let stretch = self
            .active()
            .begin(source, partition, before.next, before.log_time);
        stretch.to = to.next;
        stretch.log_time = to.log_time;
        stretch.last = to.last.or(stretch.last);
        stretch.ledger.dead_lettered += dead_lettered;
        stretch.ledger.not_records += not_records;
        self.view.applied.insert((source, partition), to);
    }

    fn applied_or_start(&self, source: u32, partition: u32) -> Applied {
        self.view.applied(source, partition).unwrap_or(Applied {
            next: 0,
            log_time: i64::MIN,
            last: None,
        })
    }

    fn active(&mut self) -> &mut Memtable {
        let table = self
            .view
            .tables
            .last_mut()
            .expect("a feed always has an active memtable");
        Arc::get_mut(&mut table.memtable).expect("only sealed memtables are shared")
    }
}

#[cfg(test)]
mod tests;
