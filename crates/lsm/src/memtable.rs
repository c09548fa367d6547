//! The memtable: records in arrival order, newest of each key alive.
//!
//! One code serves ingest (sealed, flushed into a segment) and a query node's tail
//! (sealed when full, dropped once a snapshot covers it). Vectors go to an
//! append-only arena of fixed chunks that a scan walks like segment blocks; ids and
//! attributes to a byte arena; a hash table maps a key to its newest entry.
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

use std::collections::BTreeMap;

use hashbrown::HashTable;
use parking_lot::Mutex;
use vexlake_index::{CHUNK_ROWS, Columns, Filter};
use vexlake_segment::{Position, key_hash};

use crate::state::{Fingerprint, Ledger};

/// Bytes of one vector chunk: a scan task of a millisecond at most.
const CHUNK_BYTES: usize = 1 << 20;
/// Bookkeeping per entry beside its own bytes: the entry (96), its slot (8), the
/// hash-table share (~10) and the norm (4).
const ENTRY_OVERHEAD_BYTES: usize = 120;
/// A patch's base: a position (32) and its share of a tree node.
const BASE_BYTES: usize = 56;

/// Index of an entry in arrival order.
pub type EntryIndex = u32;

/// What a record becomes in the memtable.
#[derive(Clone, Debug)]
pub struct Entry {
    id: (u32, u32),
    attrs: Option<(u32, u32)>,
    /// Slot in the vector arena; `None` for a delete.
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
    dim: usize,
    chunk_rows: usize,
    chunks: Vec<Vec<f32>>,
    norms: Vec<f32>,
    slots: Vec<EntryIndex>,
    text: String,
    entries: Vec<Entry>,
    keys: HashTable<EntryIndex>,
    /// What patches rest on, by entry. A map of its own, as most loads hold no patch.
    bases: BTreeMap<EntryIndex, Position>,
    stretches: BTreeMap<(u32, u32), Stretch>,
    bytes: usize,
    /// Attributes of the first slots, as far as a filter has asked. They are not in `bytes`:
    /// their texts, which are, take more.
    columns: Mutex<Vec<Columns>>,
}

impl Memtable {
    /// An empty memtable for vectors of `dim` components.
    pub fn new(dim: u32) -> Self {
        let dim = dim as usize;
        Self {
            dim,
            chunk_rows: (CHUNK_BYTES / (4 * dim)).max(1),
            chunks: Vec::new(),
            norms: Vec::new(),
            slots: Vec::new(),
            text: String::new(),
            entries: Vec::new(),
            keys: HashTable::new(),
            bases: BTreeMap::new(),
            stretches: BTreeMap::new(),
            bytes: 0,
            columns: Mutex::default(),
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

    /// Key of an entry.
    pub fn id(&self, entry: &Entry) -> &str {
        self.text(entry.id)
    }

    /// Attributes of an entry.
    pub fn attrs(&self, entry: &Entry) -> Option<&str> {
        entry.attrs.map(|span| self.text(span))
    }

    /// Vector of an entry; `None` for a delete.
    pub fn vector(&self, entry: &Entry) -> Option<&[f32]> {
        let slot = entry.slot? as usize;
        let start = slot % self.chunk_rows * self.dim;
        Some(&self.chunks[slot / self.chunk_rows][start..start + self.dim])
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

    /// Vector chunks for a scan: contiguous rows, their norms, first slot.
    pub fn chunks(&self) -> impl Iterator<Item = (&[f32], &[f32], u32)> {
        self.chunks.iter().enumerate().map(|(index, rows)| {
            let first = index * self.chunk_rows;
            (
                rows.as_slice(),
                &self.norms[first..first + rows.len() / self.dim],
                first as u32,
            )
        })
    }

    /// The entry in a vector slot.
    pub fn entry_of_slot(&self, slot: u32) -> EntryIndex {
        self.slots[slot as usize]
    }

    /// The vector slots whose attributes pass a filter: bit per slot, 64 to a word.
    ///
    /// Attributes become columns once somebody asks, and stay: asking again costs what came
    /// since, and a nanosecond a slot. O(slots).
    pub fn passing(&self, filter: &Filter) -> Vec<u64> {
        let mut chunks = self.columns.lock();
        let known: u32 = chunks.iter().map(Columns::rows).sum();
        for entry in &self.slots[known as usize..] {
            if chunks.last().is_none_or(|last| last.rows() == CHUNK_ROWS) {
                chunks.push(Columns::default());
            }
            let attrs = self.attrs(self.entry(*entry));
            chunks
                .iter_mut()
                .rev()
                .take(1)
                .for_each(|last| last.push(attrs));
        }
        let words = self.slots.len().div_ceil(64);
        let (mut pass, mut unknown) = (vec![0u64; words], vec![0u64; words]);
        let chunk_words = CHUNK_ROWS as usize / 64;
        let places = pass
            .chunks_mut(chunk_words)
            .zip(unknown.chunks_mut(chunk_words));
        for (chunk, (pass, unknown)) in chunks.iter().zip(places) {
            let columns = filter.fields().iter().map(|field| chunk.column(field));
            let columns: Vec<_> = columns.collect();
            filter.evaluate(&columns, chunk.is_complete(), chunk.rows(), pass, unknown);
        }
        drop(chunks);
        for (word, unknown) in unknown
            .into_iter()
            .enumerate()
            .filter(|(_, bits)| *bits != 0)
        {
            for bit in (0..64).filter(|bit| unknown >> bit & 1 == 1) {
                let entry = self.entry(self.slots[word * 64 + bit]);
                pass[word] |= u64::from(filter.matches(self.attrs(entry))) << bit;
            }
        }
        pass
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
        let id = self.keep(record.id);
        let attrs = record.attrs.map(|text| self.keep(text));
        let slot = record.vector.map(|vector| self.keep_vector(vector, index));
        self.bytes += ENTRY_OVERHEAD_BYTES
            + record.id.len()
            + record.attrs.map_or(0, str::len)
            + record.vector.map_or(0, |v| 4 * v.len());
        Entry {
            id,
            attrs,
            slot,
            event_time: record.event_time,
            position: record.position,
            hash,
            alive,
        }
    }

    fn keep_vector(&mut self, vector: &[f32], index: EntryIndex) -> u32 {
        debug_assert_eq!(vector.len(), self.dim);
        let slot = self.slots.len();
        if slot.is_multiple_of(self.chunk_rows) {
            self.chunks
                .push(Vec::with_capacity(self.chunk_rows * self.dim));
        }
        self.chunks[slot / self.chunk_rows].extend_from_slice(vector);
        self.norms.push((vexlake_distance::kernels().norm)(vector));
        self.slots.push(index);
        slot as u32
    }

    /// Texts are addressed by u32: a memtable seals at 64 MiB, far below 4 GiB.
    fn keep(&mut self, text: &str) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        (start, text.len() as u32)
    }

    fn text(&self, (start, length): (u32, u32)) -> &str {
        &self.text[start as usize..(start + length) as usize]
    }
}

#[cfg(test)]
mod tests;
