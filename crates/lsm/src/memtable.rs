//! The memtable: records in arrival order, newest of each key alive.
//!
//! One code serves ingest (sealed, flushed into a segment) and a query node's tail
//! (sealed when full, dropped once a snapshot covers it). What a search needs of a record
//! goes to an append-only arena of chunks that are shared with readers (`memtable/rows.rs`);
//! everything else is the writer's own: entries, and a hash table that maps a key to its
//! newest one.
//!
//! Invariants:
//! - at most one entry of a key is alive: the one with the newest position;
//! - each consumed offset counts in exactly one ledger column of its partition;
//! - a stretch only grows at its end. Where a snapshot of another owner's commit jumped
//!   ahead, it spans a hole and its ledger does not add up: then its begin is not the
//!   stored checkpoint any more, and a flush gives the partition up as gone.
//! - a patch remembers what it was completed from, until the flush has looked at the head.
//!
//! Left out on purpose: space of dead entries is not reused before the flush, since
//! a reader may be scanning it.

mod rows;

use std::collections::BTreeMap;

use hashbrown::HashTable;
use vexlake_segment::{Position, key_hash};

use self::rows::IdPlace;
pub use self::rows::Rows;
use crate::state::{Fingerprint, Ledger};

/// Bookkeeping per entry beside its own bytes: the entry (88), what its chunk keeps of it (24),
/// the hash-table share (~10) and the norm (4).
const ENTRY_OVERHEAD_BYTES: usize = 126;
/// A patch's base: a position (32) and its share of a tree node.
const BASE_BYTES: usize = 56;

/// Index of an entry in arrival order.
pub type EntryIndex = u32;

/// What a record becomes in the memtable.
#[derive(Clone, Debug)]
pub struct Entry {
    id: IdPlace,
    /// Slot of its row; `None` for a delete.
    pub slot: Option<u32>,
    /// Event time, ms.
    pub event_time: Option<i64>,
    /// Where in the log it stands.
    pub position: Position,
    /// Hash of the key.
    pub hash: u64,
    /// Whether it is the newest of its key in this memtable.
    pub alive: bool,
}

/// The consumed stretch of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// First offset.
    pub from: u64,
    /// One past the last consumed.
    pub to: u64,
    /// Log time after the last.
    pub log_time: i64,
    /// The last record.
    pub last: Option<Fingerprint>,
    /// What became of each offset.
    pub ledger: Ledger,
}

/// A record that passed every check.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Key.
    pub id: &'a str,
    /// The vector as received; `None` deletes the key.
    pub vector: Option<&'a [f32]>,
    /// JSON object text.
    pub attrs: Option<&'a str>,
    /// Event time, ms.
    pub event_time: Option<i64>,
    /// Where in the log it stands.
    pub position: Position,
    /// Where the record stands that a patch was completed from; `None` for all else.
    pub base: Option<Position>,
}

/// A mutable buffer of records; see the file header.
#[derive(Debug)]
pub struct Memtable {
    rows: Rows,
    entries: Vec<Entry>,
    keys: HashTable<EntryIndex>,
    /// What patches rest on, by entry. A map of its own, as most loads hold no patch.
    bases: BTreeMap<EntryIndex, Position>,
    stretches: BTreeMap<(u32, u32), Stretch>,
    bytes: usize,
}

impl Memtable {
    /// An empty memtable for vectors of `dim` components.
    pub fn new(dim: u32) -> Self {
        Self {
            rows: Rows::new(dim as usize),
            entries: Vec::new(),
            keys: HashTable::new(),
            bases: BTreeMap::new(),
            stretches: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Approximate bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether any offset was consumed.
    pub fn is_empty(&self) -> bool {
        self.stretches.values().all(|s| s.from == s.to)
    }

    /// All entries in arrival order, dead ones included.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An entry.
    pub fn entry(&self, index: EntryIndex) -> &Entry {
        &self.entries[index as usize]
    }

    /// What searches look at; a clone stays as it is.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Key of an entry.
    pub fn id(&self, entry: &Entry) -> &str {
        self.rows.id_at(entry.id)
    }

    /// Attributes of an entry.
    pub fn attrs(&self, entry: &Entry) -> Option<&str> {
        self.rows.attrs(entry.slot?)
    }

    /// Vector of an entry; `None` for a delete.
    pub fn vector(&self, entry: &Entry) -> Option<&[f32]> {
        Some(self.rows.vector(entry.slot?))
    }

    /// The consumed stretches by (source, partition).
    pub fn stretches(&self) -> &BTreeMap<(u32, u32), Stretch> {
        &self.stretches
    }

    /// The newest entry of a key.
    pub fn find(&self, hash: u64, id: &str) -> Option<EntryIndex> {
        let same = |index: &EntryIndex| {
            let entry = self.entry(*index);
            entry.hash == hash && self.id(entry) == id
        };
        self.keys.find(hash, same).copied()
    }

    /// What a patch rests on: the newest version of its key that is no patch of this
    /// memtable itself. Between the two, the log of their partition held no other.
    pub fn base(&self, index: EntryIndex) -> Option<&Position> {
        self.bases.get(&index)
    }

    /// Begins, or continues, the stretch of a partition at `from`; `log_time` is the
    /// partition's before the stretch. Returns the stretch's end so far.
    pub fn begin(&mut self, source: u32, partition: u32, from: u64, log_time: i64) -> &mut Stretch {
        self.stretches
            .entry((source, partition))
            .or_insert(Stretch {
                from,
                to: from,
                log_time,
                last: None,
                ledger: Ledger::default(),
            })
    }

    /// Takes a record that passed every check and counts it. `newer` tells whether
    /// the first position is newer than the second. Returns the entry and whether it
    /// is the newest of its key here.
    pub fn insert(
        &mut self,
        record: &Accepted<'_>,
        newer: impl Fn(&Position, &Position) -> bool,
    ) -> (EntryIndex, bool) {
        let hash = key_hash(record.id);
        let previous = self.find(hash, record.id);
        let alive = previous.is_none_or(|p| newer(&record.position, &self.entry(p).position));
        let index = self.entries.len() as EntryIndex;
        let entry = self.store(record, hash, alive, index);
        self.entries.push(entry);
        if let Some(base) = record.base {
            // A chain of patches rests on what its first one rests on.
            let chained = previous.filter(|p| self.entry(*p).position == base);
            let root = chained.and_then(|p| self.base(p).copied()).unwrap_or(base);
            self.bases.insert(index, root);
            self.bytes += BASE_BYTES;
        }
        match previous {
            Some(old) if alive => {
                self.entries[old as usize].alive = false;
                let beaten = self.entries[old as usize].position;
                self.count(&beaten, |ledger| {
                    ledger.kept -= 1;
                    ledger.superseded += 1;
                });
                let entries = &self.entries;
                if let Ok(slot) = self.keys.find_entry(hash, |i| *i == old) {
                    slot.remove();
                }
                self.keys
                    .insert_unique(hash, index, |i| entries[*i as usize].hash);
            }
            Some(_) => {}
            None => {
                let entries = &self.entries;
                self.keys
                    .insert_unique(hash, index, |i| entries[*i as usize].hash);
            }
        }
        self.count(&record.position, |ledger| match alive {
            true => ledger.kept += 1,
            false => ledger.superseded += 1,
        });
        (index, alive)
    }

    fn count(&mut self, position: &Position, change: impl FnOnce(&mut Ledger)) {
        let stretch = self
            .stretches
            .get_mut(&(position.source, position.partition));
        change(&mut stretch.expect("begin() comes before insert()").ledger);
    }

    fn store(&mut self, record: &Accepted<'_>, hash: u64, alive: bool, index: EntryIndex) -> Entry {
        let (slot, id) = match record.vector {
            Some(vector) => {
                let row = (record.id, vector, record.attrs);
                let (slot, id) = self.rows.push(row, index);
                (Some(slot), id)
            }
            None => (None, self.rows.push_delete(record.id)),
        };
        self.bytes += ENTRY_OVERHEAD_BYTES
            + record.id.len()
            + record.attrs.map_or(0, str::len)
            + record.vector.map_or(0, |v| 4 * v.len());
        Entry {
            id,
            slot,
            event_time: record.event_time,
            position: record.position,
            hash,
            alive,
        }
    }
}

#[cfg(test)]
mod tests;
