//! What a search takes of a view: all it needs to go on without the view's lock.
//!
//! Everything is shared and copied on write, so that fixing a view is a reference per chunk,
//! and the first change after it copies what it changes: a chunk at most, and the bits of a
//! table. Readers and writers meet for those microseconds only.

use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_index::Centroids;

use super::View;
use crate::memtable::{Chunk, EntryIndex, Rows};
use crate::snapshot::Snapshot;

/// A view as it was at one moment.
pub struct FixedView {
    /// The snapshot that the tables extend.
    pub snapshot: Arc<Snapshot>,
    /// Entries of snapshot segments hidden by the feed.
    pub shadows: HashMap<Ulid, Arc<RoaringBitmap>>,
    /// Oldest first.
    pub tables: Vec<FixedTable>,
}

/// The rows of a memtable, and which of them the view shows.
pub struct FixedTable {
    /// All of them.
    pub rows: Rows,
    /// Asked by the row's entry.
    pub visible: Visible,
}

/// Which entries of a memtable a view shows: 16 KiB of bits for a memtable of 131,000.
#[derive(Clone, Default)]
pub struct Visible(Arc<Vec<u64>>);

impl Visible {
    /// False for an entry that was never set.
    pub fn contains(&self, entry: EntryIndex) -> bool {
        let word = self.0.get(entry as usize / 64);
        word.is_some_and(|word| word >> (entry % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, entry: EntryIndex, visible: bool) {
        let (words, word) = (Arc::make_mut(&mut self.0), entry as usize / 64);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] = words[word] & !(1 << (entry % 64)) | u64::from(visible) << (entry % 64);
    }
}

impl FixedView {
    /// A snapshot alone.
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            shadows: HashMap::new(),
            tables: Vec::new(),
        }
    }
}

/// Chunks that have no codes yet, and the centroids whose space they get them in.
pub struct Uncoded {
    centroids: Arc<Centroids>,
    chunks: Vec<Arc<Chunk>>,
}

impl Uncoded {
    /// Gives them codes: about a microsecond a row of 128 floats.
    pub fn encode(&self) {
        let space = self.centroids.space();
        self.chunks.iter().for_each(|chunk| chunk.encode(space));
    }
}

impl View {
    /// What may get codes now, if anything.
    pub fn uncoded(&self) -> Option<Uncoded> {
        let centroids = self.snapshot.current_centroids()?.clone();
        let tables = self.tables.iter();
        let chunks: Vec<_> = tables
            .flat_map(|table| table.memtable.rows().uncoded())
            .collect();
        (!chunks.is_empty()).then_some(Uncoded { centroids, chunks })
    }

    /// This view as it is now.
    pub fn fixed(&self) -> FixedView {
        let fixed = self.tables.iter().map(|table| FixedTable {
            rows: table.memtable.rows().clone(),
            visible: table.visible.clone(),
        });
        FixedView {
            snapshot: self.snapshot.clone(),
            shadows: self.shadows.clone(),
            tables: fixed.collect(),
        }
    }
}
