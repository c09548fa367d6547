//! Whole records, a stretch at a time: what merges and exports read.
//!
//! Everything is read past the cache, so that a merge does not push out what queries use.

use super::SegmentReader;
use super::entries::EntryBatch;
use crate::cache::ReadCounts;
use crate::error::Result;
use crate::record::Row;
use futures::future::try_join3;

/// Vectors that one read of [`SegmentReader::batch_rows`] records holds.
const BATCH_BYTES: usize = 4 << 20;
/// With small vectors, ids and attributes are what counts.
const BATCH_ROWS_MAX: u32 = 4096;

/// Consecutive records of one segment.
#[derive(Debug)]
pub struct RowBatch {
    first_row: u32,
    dim: usize,
    entries: EntryBatch,
    vectors: Vec<f32>,
    attrs: Vec<Option<String>>,
}

impl RowBatch {
    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.attrs.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.attrs.is_empty()
    }

    /// The ordinal of the first record.
    pub fn first_row(&self) -> u32 {
        self.first_row
    }

    /// The record at a place, 0..len; panics beyond.
    pub fn row(&self, place: usize) -> Row<'_> {
        Row {
            attrs: self.attrs[place].as_deref(),
            id: self.entries.id(place),
            vector: &self.vectors[place * self.dim..(place + 1) * self.dim],
            event_time: self.entries.event_time(place),
            position: self.entries.position(place),
        }
    }

    /// len × dim floats.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// All records in ordinal order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|place| self.row(place))
    }
}

impl SegmentReader {
    /// How many records to ask [`SegmentReader::read_rows`] for, so that a batch
    /// takes about 4 MiB.
    pub fn batch_rows(&self) -> u32 {
        let rows = BATCH_BYTES / self.schema().vector_bytes();
        (rows as u32).clamp(1, BATCH_ROWS_MAX)
    }

    /// Exactly `count` records from an ordinal on, in one round of reads. Memory
    /// is what was asked for: count × (4·dim + entry + attributes). Fails with Invalid
    /// beyond `rows`; deletes have no rows to read.
    pub async fn read_rows(&self, from: u32, count: u32) -> Result<RowBatch> {
        let rows = self.check_rows(u64::from(from)..u64::from(from) + u64::from(count))?;
        let ranges = if rows.is_empty() {
            vec![]
        } else {
            vec![rows.clone()]
        };
        let (entries, vectors, attrs) = try_join3(
            self.entries_between(rows.clone()),
            self.vectors_between(rows),
            self.attrs_between(&ranges, &ReadCounts::default()),
        )
        .await?;
        Ok(RowBatch {
            first_row: from,
            dim: self.schema().dim as usize,
            entries,
            vectors,
            attrs,
        })
    }
}
