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
//! Limits: the services bound bytes by pausing partitions, and with them the tables
//! that a lookup walks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use roaring::RoaringBitmap;
use ulid::Ulid;

use crate::memtable::{Accepted, EntryIndex, Memtable};
use crate::snapshot::{Location, Snapshot};
use crate::state::Fingerprint;

/// How an entry of the feed relates to the snapshot.
#[derive(Clone, Copy, Debug)]
struct Relation {
    /// Overtaken by another memtable of the feed, older than the snapshot's entry, or
    /// not related yet: an entry counts only once `relate` has placed it.
    hidden: bool,
    /// The snapshot's entry that this one hides.
    base: Option<Location>,
}

/// Entries looked up in one turn of the lock: a millisecond or two that an append waits.
const LOCATED_PER_LOCK: usize = 1024;

const UNRELATED: Relation = Relation {
    hidden: true,
    base: None,
};

/// A memtable and how its entries relate to the rest of the view.
struct Table {
    memtable: Arc<Memtable>,
    relations: Vec<Relation>,
    /// What the view's snapshot holds of the first entries' keys, looked up ahead.
    located: Vec<Option<Location>>,
}

impl Table {
    fn unrelated(memtable: Arc<Memtable>, located: Vec<Option<Location>>) -> Self {
        let relations = vec![UNRELATED; memtable.entries().len()];
        Self {
            memtable,
            relations,
            located,
        }
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
}

impl View {
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
        // Asked once a row by scans, so without a look at the checkpoint: an entry below it
        // is never related to this snapshot, hence hidden.
        let table = &self.tables[table];
        table.memtable.entry(index).alive && !table.relations[index as usize].hidden
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

    /// Whether the key has a live record in this view.
    fn is_live(&self, hash: u64, id: &str) -> bool {
        match self.find(hash, id) {
            Some((table, index)) => self.tables[table].memtable.entry(index).slot.is_some(),
            None => self
                .snapshot
                .locate(hash, id)
                .is_some_and(|base| !base.deleted),
        }
    }

    fn is_newer(&self, a: &vexlake_segment::Position, b: &vexlake_segment::Position) -> bool {
        let state = self.snapshot.state();
        state.order(a) > state.order(b)
    }

    /// Relates a freshly inserted (or re-examined) entry to the other tables and the
    /// snapshot. Updates shadows and the live count; tells whether the key existed.
    fn relate(&mut self, number: usize, index: EntryIndex) -> bool {
        let table = &self.tables[number];
        let entry = table.memtable.entry(index);
        let (hash, position, is_row) = (entry.hash, entry.position, entry.slot.is_some());
        let memtable = table.memtable.clone();
        let id = memtable.id(memtable.entry(index));
        let mut existed = None;
        self.tables[number].relations[index as usize].hidden = false;
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
                self.tables[number].relations[index as usize].hidden = true;
                return rival_is_row;
            }
            self.tables[other].relations[found as usize].hidden = true;
            self.card -= i64::from(rival_is_row);
            existed = Some(rival_is_row);
        }
        let base = match self.tables[number].located.get(index as usize) {
            Some(found) => *found,
            None => self.snapshot.locate(hash, id),
        };
        if base.is_some_and(|base| self.is_newer(&base.position, &position)) {
            self.tables[number].relations[index as usize].hidden = true;
            return base.is_some_and(|base| !base.deleted);
        }
        if let Some(base) = base {
            let bits = self.shadows.entry(base.segment).or_default();
            let fresh = Arc::make_mut(bits).insert(base.entry);
            self.card -= i64::from(fresh && !base.deleted);
        }
        self.tables[number].relations[index as usize].base = base;
        self.card += i64::from(is_row);
        existed.unwrap_or(base.is_some_and(|base| !base.deleted))
    }

    /// Relates all entries of a table whose relations are unset.
    fn relate_table(&mut self, number: usize) {
        let memtable = &self.tables[number].memtable;
        let snapshot = &self.snapshot;
        let counts = |entry: &crate::memtable::Entry| {
            let position = &entry.position;
            entry.alive && position.offset >= snapshot.next(position.source, position.partition)
        };
        let count = memtable.entries().len() as EntryIndex;
        let related: Vec<EntryIndex> = (0..count)
            .filter(|index| counts(memtable.entry(*index)))
            .collect();
        for index in related {
            self.relate(number, index);
        }
        self.tables[number].located = Vec::new();
    }

    fn insert(&mut self, record: &Accepted<'_>) -> Verdict {
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
        table.relations.push(UNRELATED);
        let Some(old) = before else {
            return Verdict {
                existed: self.relate(number, index),
            };
        };
        let old_is_row = self.tables[number].memtable.entry(old).slot.is_some();
        if !alive {
            // What beat it may itself be hidden: then the rest of the view says what is live.
            let live = || self.is_live(hash, record.id);
            return Verdict {
                existed: if before_visible { old_is_row } else { live() },
            };
        }
        // The successor stands exactly where its predecessor stood, unless that one was hidden.
        if !before_visible {
            return Verdict {
                existed: self.relate(number, index),
            };
        }
        let base = self.tables[number].relations[old as usize].base;
        self.tables[number].relations[index as usize] = Relation {
            hidden: false,
            base,
        };
        self.card += i64::from(record.vector.is_some()) - i64::from(old_is_row);
        Verdict {
            existed: old_is_row,
        }
    }
}

impl Feed {
    /// A feed without records on top of a snapshot.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let dim = snapshot.state().schema.dim;
        let view = View {
            snapshot,
            shadows: HashMap::new(),
            tables: vec![Table::unrelated(Arc::new(Memtable::new(dim)), Vec::new())],
            applied: BTreeMap::new(),
            card: 0,
            epoch: 0,
        };
        Self {
            dim,
            view: RwLock::new(view),
        }
    }

    /// Runs `read` on a consistent view. Keep it short: writers wait.
    pub fn read<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.view.read())
    }

    /// Appends one batch under one lock.
    pub fn append<T>(&self, write: impl FnOnce(&mut Appender<'_>) -> T) -> T {
        let mut view = self.view.write();
        write(&mut Appender { view: &mut view })
    }

    /// Seals the active memtable if it consumed any offset and holds at least `bytes_min`.
    pub fn seal(&self, bytes_min: usize) {
        let mut view = self.view.write();
        let due = |table: &Table| !table.memtable.is_empty() && table.memtable.bytes() >= bytes_min;
        if view.tables.last().is_some_and(due) {
            view.tables.push(Table::unrelated(
                Arc::new(Memtable::new(self.dim)),
                Vec::new(),
            ));
        }
    }

    /// The oldest sealed memtable.
    pub fn oldest_sealed(&self) -> Option<Arc<Memtable>> {
        let view = self.view.read();
        (view.tables.len() > 1).then(|| view.tables[0].memtable.clone())
    }

    /// Replaces the snapshot by a newer one: drops what it covers and relates what
    /// remains to it. The costly part, a probe of key filters an entry, runs ahead of the
    /// swap; readers go on with the old view meanwhile.
    pub fn advance(&self, snapshot: Arc<Snapshot>) {
        let (epoch, mut located) = self.locate_ahead(&snapshot);
        let guard = self.view.upgradable_read();
        if snapshot.version() <= guard.snapshot.version() {
            return;
        }
        if epoch != guard.epoch {
            located.clear();
        }
        located.resize_with(guard.tables.len(), Vec::new);
        let last = guard.tables.len() - 1;
        let active_located = located.pop().unwrap_or_default();
        let mut tables: Vec<Table> = Vec::with_capacity(guard.tables.len());
        for (table, located) in guard.tables[..last].iter().zip(located) {
            if !covered(&table.memtable, &snapshot) {
                tables.push(Table::unrelated(table.memtable.clone(), located));
            }
        }
        let mut next = View {
            snapshot,
            shadows: HashMap::new(),
            tables,
            applied: guard.applied.clone(),
            card: 0,
            epoch: guard.epoch + 1,
        };
        for number in 0..next.tables.len() {
            next.relate_table(number);
        }
        // The active memtable cannot be shared while it grows, so it moves over inside the swap.
        let mut guard = RwLockUpgradableReadGuard::upgrade(guard);
        let active = guard
            .tables
            .pop()
            .expect("a feed always has an active memtable");
        let active = match covered(&active.memtable, &next.snapshot) {
            true => Table::unrelated(Arc::new(Memtable::new(self.dim)), Vec::new()),
            false => Table::unrelated(active.memtable, active_located),
        };
        next.tables.push(active);
        next.relate_table(next.tables.len() - 1);
        *guard = next;
    }

    /// Looks up in a snapshot that nobody sees yet what it holds of the feed's keys, by
    /// table, a few entries a lock. Entries that arrive meanwhile are left to the swap.
    fn locate_ahead(&self, snapshot: &Snapshot) -> (u64, Vec<Vec<Option<Location>>>) {
        let (epoch, counts) = self.read(|view| {
            let counts = view.tables.iter().map(|t| t.memtable.entries().len());
            (view.epoch, counts.collect::<Vec<usize>>())
        });
        let mut located: Vec<Vec<Option<Location>>> = Vec::with_capacity(counts.len());
        for (number, count) in counts.into_iter().enumerate() {
            let mut found = Vec::with_capacity(count);
            while found.len() < count {
                let view = self.view.read();
                if view.epoch != epoch {
                    return (epoch, Vec::new());
                }
                let memtable = &view.tables[number].memtable;
                let end = count.min(found.len() + LOCATED_PER_LOCK);
                found.extend(memtable.entries()[found.len()..end].iter().map(|entry| {
                    let position = &entry.position;
                    let next = snapshot.next(position.source, position.partition);
                    // An entry that does not count now never will.
                    let counts = entry.alive && position.offset >= next;
                    counts
                        .then(|| snapshot.locate(entry.hash, memtable.id(entry)))
                        .flatten()
                }));
            }
            located.push(found);
        }
        (epoch, located)
    }

    /// Forgets everything consumed beyond the snapshot, as after losing partitions.
    pub fn reset(&self) {
        let mut view = self.view.write();
        let epoch = view.epoch + 1;
        let fresh = Feed::new(view.snapshot.clone()).view.into_inner();
        *view = View { epoch, ..fresh };
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

    /// Takes a record that passed every check.
    pub fn accept(&mut self, record: &Accepted<'_>) -> Verdict {
        let before = self.applied_or_start(record.position.source, record.position.partition);
        self.active().begin(
            record.position.source,
            record.position.partition,
            before.next,
            before.log_time,
        );
        self.view.insert(record)
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
