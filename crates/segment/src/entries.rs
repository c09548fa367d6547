//! The entries of a segment in memory, column by column: what the writer, or the
//! rebuilding of an index, gathers while rows stream past.
//!
//! Memory per entry: id bytes + 4, position 24, event time 8; per record also its
//! checksum, 4, and its attributes as columns. A million records with 20-byte ids and no
//! attributes take 60 MB.

use crate::error::{Result, SegmentError};
use crate::hash::EntryHash;
use crate::index::ColumnChunks;
use crate::record::{Delete, EVENT_TIME_NONE, Position, Row};

/// Ordinals are u32 and so are offsets into the id bytes. Both end well below
/// u32::MAX, so that counts and sums never overflow.
const ENTRIES_MAX: usize = u32::MAX as usize / 2;
const ID_BYTES_TOTAL_MAX: usize = u32::MAX as usize / 2;

/// Invariant: records come before deletes; every column has one value per entry,
/// `row_crcs` one per record, `id_offsets` one more than entries.
#[derive(Debug)]
pub(crate) struct Entries {
    pub(crate) rows: u32,
    pub(crate) deletes: u32,
    pub(crate) ids: String,
    pub(crate) id_offsets: Vec<u32>,
    pub(crate) log_times: Vec<i64>,
    pub(crate) offsets: Vec<u64>,
    pub(crate) sources: Vec<u32>,
    pub(crate) partitions: Vec<u32>,
    pub(crate) event_times: Vec<i64>,
    pub(crate) row_crcs: Vec<u32>,
    pub(crate) hash: EntryHash,
    pub(crate) attributes: ColumnChunks,
}

impl Entries {
    pub(crate) fn new() -> Self {
        Self {
            rows: 0,
            deletes: 0,
            ids: String::new(),
            id_offsets: vec![0],
            log_times: vec![],
            offsets: vec![],
            sources: vec![],
            partitions: vec![],
            event_times: vec![],
            row_crcs: vec![],
            hash: EntryHash::default(),
            attributes: ColumnChunks::default(),
        }
    }

    /// Records and deletes.
    pub(crate) fn len(&self) -> u32 {
        self.rows + self.deletes
    }

    /// Adds a checked record and answers its ordinal.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<u32> {
        if self.deletes > 0 {
            return Err(SegmentError::invalid(
                "a record after a delete",
                row.id,
                "before all deletes",
            ));
        }
        let ordinal = self.push_entry(row.id, row.event_time, &row.position)?;
        self.row_crcs.push(row_crc(row.vector));
        self.attributes.push(row.attrs);
        self.hash += EntryHash::of_row(row.id, &row.position);
        self.rows += 1;
        Ok(ordinal)
    }

    /// Adds a checked delete.
    pub(crate) fn delete(&mut self, delete: &Delete<'_>) -> Result<u32> {
        let ordinal = self.push_entry(delete.id, delete.event_time, &delete.position)?;
        self.hash += EntryHash::of_delete(delete.id, &delete.position);
        self.deletes += 1;
        Ok(ordinal)
    }

    fn push_entry(&mut self, id: &str, event_time: Option<i64>, at: &Position) -> Result<u32> {
        let id_bytes = self.ids.len() + id.len();
        for (what, actual, max) in [
            (
                "the number of entries",
                self.log_times.len() + 1,
                ENTRIES_MAX,
            ),
            ("the bytes of all ids", id_bytes, ID_BYTES_TOTAL_MAX),
        ] {
            if actual > max {
                return Err(SegmentError::invalid(
                    what,
                    actual,
                    format!("at most {max}"),
                ));
            }
        }
        let ordinal = self.len();
        self.ids.push_str(id);
        self.id_offsets.push(id_bytes as u32);
        self.log_times.push(at.log_time);
        self.offsets.push(at.offset);
        self.sources.push(at.source);
        self.partitions.push(at.partition);
        self.event_times.push(event_time.unwrap_or(EVENT_TIME_NONE));
        Ok(ordinal)
    }

    /// The id of an ordinal. Panics where there is none, as indexing does.
    pub(crate) fn id(&self, ordinal: u32) -> &str {
        let ordinal = ordinal as usize;
        &self.ids[self.id_offsets[ordinal] as usize..self.id_offsets[ordinal + 1] as usize]
    }

    /// The least and greatest log time; (0, 0) without entries.
    pub(crate) fn log_time_extent(&self) -> (i64, i64) {
        let min = self.log_times.iter().min().copied().unwrap_or(0);
        let max = self.log_times.iter().max().copied().unwrap_or(0);
        (min, max)
    }
}

/// The CRC32C of a vector's little-endian bytes.
pub(crate) fn row_crc(vector: &[f32]) -> u32 {
    crc32c::crc32c(bytemuck::cast_slice(vector))
}
