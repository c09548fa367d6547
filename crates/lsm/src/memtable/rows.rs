//! The rows of a memtable: what a search looks at, in chunks that readers hold while more
//! rows arrive.
//!
//! A chunk has its rows whole: vectors and norms as the scan walks them, ids and attributes
//! as one text. [`Rows`] is a list of shared chunks, so that a clone of it is a reference per
//! chunk and shows for ever what was there when it was made. The writer appends to the last
//! chunk; where a clone still holds that one, it is copied first (copy on write). So neither
//! waits for the other: a reader costs the writer one copy of a part of a chunk, however
//! long he reads.
//!
//! Invariants: only the last chunk changes; slots are numbered in arrival order across
//! chunks. Deletes have no slot, but a place for their ids.
//!
//! Limits: [`CHUNK_BYTES`] of vectors and [`CHUNK_TEXT_BYTES`] of texts, by at most one record
//! more.

use std::sync::Arc;

use parking_lot::Mutex;
use vexlake_index::{CHUNK_ROWS, Columns, Filter};

use super::EntryIndex;

/// Bytes of vectors of a chunk: 512 rows of 128 floats. A memtable of 64 MiB has 256 chunks,
/// which are cloned in some 2 µs; a copy on write takes some 20 µs at most.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of texts that end a chunk, however few its rows are: it bounds a copy on write too.
const CHUNK_TEXT_BYTES: usize = 128 << 10;

/// A part of a chunk's text; that is some 200 KiB at most.
type Span = (u32, u32);

/// Where the id of an entry stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdPlace {
    chunk: u32,
    span: Span,
}

/// What a row is beside its vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    entry: EntryIndex,
    id: Span,
    attrs: Option<Span>,
}

/// Some rows in the order in which they arrived.
#[derive(Debug)]
pub struct Chunk {
    first: u32,
    vectors: Vec<f32>,
    norms: Vec<f32>,
    rows: Vec<Row>,
    text: String,
}

/// The rows of a memtable so far; see the file header.
#[derive(Clone, Debug)]
pub struct Rows {
    dim: usize,
    chunks: Vec<Arc<Chunk>>,
    /// Attributes of the first slots, as far as a filter has asked; all clones share them, so
    /// these may be more slots than a clone shows. They are not in the memtable's bytes: their
    /// texts, which are, take more.
    columns: Arc<Mutex<Vec<Columns>>>,
}

impl Chunk {
    /// An empty chunk with room for what it may hold.
    fn new(first: u32, dim: usize) -> Self {
        let rows = chunk_rows(dim);
        Self {
            first,
            vectors: Vec::with_capacity(rows * dim),
            norms: Vec::with_capacity(rows),
            rows: Vec::with_capacity(rows),
            text: String::new(),
        }
    }

    /// A copy with the same room.
    fn copied(&self, dim: usize) -> Self {
        let mut copy = Self::new(self.first, dim);
        copy.vectors.extend_from_slice(&self.vectors);
        copy.norms.extend_from_slice(&self.norms);
        copy.rows.extend_from_slice(&self.rows);
        copy.text.push_str(&self.text);
        copy
    }

    fn is_full(&self, dim: usize) -> bool {
        self.rows.len() == chunk_rows(dim) || self.text.len() >= CHUNK_TEXT_BYTES
    }

    fn keep(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        (start, text.len() as u32)
    }

    fn text(&self, (start, length): Span) -> &str {
        &self.text[start as usize..(start + length) as usize]
    }

    /// Slot of its first row.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Its vectors, one after another.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// |row| of each row.
    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// The entry of a row.
    pub fn entry(&self, row: u32) -> EntryIndex {
        self.rows[row as usize].entry
    }
}

/// Rows of a chunk at most.
fn chunk_rows(dim: usize) -> usize {
    (CHUNK_BYTES / (4 * dim)).max(1)
}

impl Rows {
    pub(super) fn new(dim: usize) -> Self {
        Self {
            dim,
            chunks: Vec::new(),
            columns: Arc::default(),
        }
    }

    /// How many there are, which is the next slot.
    pub fn len(&self) -> u32 {
        self.chunks
            .last()
            .map_or(0, |last| last.first + last.rows.len() as u32)
    }

    /// In the order of their slots.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().map(|chunk| &**chunk)
    }

    /// Key of a row.
    pub fn id(&self, slot: u32) -> &str {
        let (chunk, row) = self.row(slot);
        chunk.text(chunk.rows[row].id)
    }

    /// Attributes of a row.
    pub fn attrs(&self, slot: u32) -> Option<&str> {
        let (chunk, row) = self.row(slot);
        chunk.rows[row].attrs.map(|span| chunk.text(span))
    }

    pub(super) fn vector(&self, slot: u32) -> &[f32] {
        let (chunk, row) = self.row(slot);
        &chunk.vectors[row * self.dim..(row + 1) * self.dim]
    }

    pub(super) fn id_at(&self, place: IdPlace) -> &str {
        self.chunks[place.chunk as usize].text(place.span)
    }

    fn row(&self, slot: u32) -> (&Chunk, usize) {
        let behind = self.chunks.partition_point(|chunk| chunk.first <= slot);
        // Chunks of deletes alone begin where the next one does.
        let chunk = &self.chunks[behind - 1];
        (chunk, (slot - chunk.first) as usize)
    }

    /// Keeps an id that has no row.
    pub(super) fn push_delete(&mut self, id: &str) -> IdPlace {
        let (number, chunk) = self.writable();
        IdPlace {
            chunk: number,
            span: chunk.keep(id),
        }
    }

    /// Answers the row's slot and where its id stands.
    pub(super) fn push(
        &mut self,
        (id, vector, attrs): (&str, &[f32], Option<&str>),
        entry: EntryIndex,
    ) -> (u32, IdPlace) {
        debug_assert_eq!(vector.len(), self.dim);
        let (number, chunk) = self.writable();
        let slot = chunk.first + chunk.rows.len() as u32;
        chunk.vectors.extend_from_slice(vector);
        chunk.norms.push((vexlake_distance::kernels().norm)(vector));
        let row = Row {
            entry,
            id: chunk.keep(id),
            attrs: attrs.map(|text| chunk.keep(text)),
        };
        chunk.rows.push(row);
        let place = IdPlace {
            chunk: number,
            span: row.id,
        };
        (slot, place)
    }

    /// The chunk to append to, with its number: a new one behind a full one, and a copy of one
    /// that somebody else holds.
    fn writable(&mut self) -> (u32, &mut Chunk) {
        let (next, dim) = (self.len(), self.dim);
        if self.chunks.last().is_none_or(|last| last.is_full(dim)) {
            self.chunks.push(Arc::new(Chunk::new(next, dim)));
        }
        let number = self.chunks.len() - 1;
        let last = &mut self.chunks[number];
        if Arc::get_mut(last).is_none() {
            *last = Arc::new(last.copied(dim));
        }
        let last = Arc::get_mut(last).expect("a copy of our own");
        (number as u32, last)
    }

    /// The slots whose attributes pass a filter: bit per slot, 64 to a word.
    ///
    /// Attributes become columns once somebody asks, and stay: asking again costs what came
    /// since, and a nanosecond a slot. O(slots).
    pub fn passing(&self, filter: &Filter) -> Vec<u64> {
        let mut columns = self.columns.lock();
        let known: u32 = columns.iter().map(Columns::rows).sum();
        for slot in known..self.len() {
            if columns.last().is_none_or(|last| last.rows() == CHUNK_ROWS) {
                columns.push(Columns::default());
            }
            let last = columns.last_mut().expect("pushed above");
            last.push(self.attrs(slot));
        }
        let rows: u32 = columns.iter().map(Columns::rows).sum();
        let words = rows.div_ceil(64) as usize;
        let (mut pass, mut unknown) = (vec![0u64; words], vec![0u64; words]);
        let chunk_words = CHUNK_ROWS as usize / 64;
        let places = pass
            .chunks_mut(chunk_words)
            .zip(unknown.chunks_mut(chunk_words));
        for (chunk, (pass, unknown)) in columns.iter().zip(places) {
            let columns = filter.fields().iter().map(|field| chunk.column(field));
            let columns: Vec<_> = columns.collect();
            filter.evaluate(&columns, chunk.is_complete(), chunk.rows(), pass, unknown);
        }
        drop(columns);
        for (word, unknown) in unknown.into_iter().enumerate() {
            // Slots beyond the length arrived since this clone was made.
            let slots = (0..64).map(|bit| (bit, word as u32 * 64 + bit));
            for (bit, slot) in slots.take_while(|(_, slot)| unknown != 0 && *slot < self.len()) {
                if unknown >> bit & 1 == 1 {
                    pass[word] |= u64::from(filter.matches(self.attrs(slot))) << bit;
                }
            }
        }
        pass
    }
}
