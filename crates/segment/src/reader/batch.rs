//! Whole records, a stretch at a time: what merges and exports read.
//!
//! Vectors and attributes are read past the cache, so that a merge does not push
//! out what queries use; ids, positions and times are borrowed from the index.

use super::SegmentReader;
use crate::error::Result;
use crate::record::Row;
use futures::future::try_join;

/// Vectors that one read of [`SegmentReader::batch_rows`] records holds.
const BATCH_BYTES: usize = 4 << 20;
/// With small vectors, ids and attributes are what counts.
const BATCH_ROWS_MAX: u32 = 4096;

/// Consecutive records of one segment.
#[derive(Debug)]
pub struct RowBatch {
    segment: SegmentReader,
    first_row: u32,
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
        let dim = self.segment.schema().dim as usize;
        let ordinal = self.first_row + place as u32;
        Row {
            attrs: self.attrs[place].as_deref(),
            id: self.segment.id(ordinal),
            vector: &self.vectors[place * dim..(place + 1) * dim],
            event_time: self.segment.event_time(ordinal),
            position: self.segment.position(ordinal),
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
    /// is what was asked for: count × (4·dim + attributes). Fails with Invalid
    /// beyond `rows`; deletes have no rows to read.
    pub async fn read_rows(&self, from: u32, count: u32) -> Result<RowBatch> {
        let rows = self.check_rows(u64::from(from)..u64::from(from) + u64::from(count))?;
        let ranges = if rows.is_empty() {
            vec![]
        } else {
            vec![rows.clone()]
        };
        let (vectors, attrs) =
            try_join(self.vectors_between(rows), self.attrs_between(&ranges)).await?;
        Ok(RowBatch {
            segment: self.clone(),
            first_row: from,
            vectors,
            attrs,
        })
    }
}
