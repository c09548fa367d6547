//! Reading a segment: the index whole, everything else by ranges.
//!
//! 1. `open` reads `index.vxi` in one request. Where it is missing or damaged,
//!    the same index is derived from the Parquet files, and the segment serves.
//! 2. Ids, positions, times, norms and lookups are then memory.
//! 3. Vectors come in blocks through the [`VectorCache`] (`vectors.rs`),
//!    attributes by page (`attrs.rs`), whole records for merges (`batch.rs`).
//!
//! Invariant: no byte of `data.parquet` is used before its checksum matched.

mod attrs;
mod batch;
mod vectors;

pub use batch::RowBatch;

use crate::cache::VectorCache;
use crate::error::{Result, SegmentError, SegmentErrorKind};
use crate::hash::key_hash;
use crate::index::Index;
use crate::meta::{DATA_FILE, INDEX_FILE, SegmentMeta, SegmentSchema};
use crate::rebuild::rebuild;
use crate::record::Position;
use attrs::AttrsPages;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use vectors::Block;
#[cfg(test)]
pub(crate) use vectors::plan_blocks;
use vexlake_store::Store;

/// An open segment. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct SegmentReader(Arc<Inner>);

struct Inner {
    store: Store,
    meta: SegmentMeta,
    index: Index,
    is_rebuilt: bool,
    blocks: Vec<Block>,
    cache: VectorCache,
    attrs: OnceLock<AttrsPages>,
}

impl SegmentReader {
    /// Opens a segment from a store scoped to `seg/<ulid>`. One read of
    /// `index.vxi`; a missing or damaged one is derived again from the Parquet
    /// files (then [`SegmentReader::is_rebuilt`]). Fails with Corrupt where the
    /// files contradict the commit's `meta` or the collection's `schema`.
    pub async fn open(
        store: Store,
        meta: &SegmentMeta,
        schema: &SegmentSchema,
        cache: VectorCache,
    ) -> Result<Self> {
        let read = match store.get(INDEX_FILE).await {
            Ok(bytes) => parse(bytes)
                .await
                .and_then(|index| checked(index, meta, schema)),
            Err(error) => Err(SegmentError::from(error)),
        };
        let (index, is_rebuilt) = match read {
            Ok(index) => (index, false),
            Err(error) => match error.kind() {
                SegmentErrorKind::NotFound | SegmentErrorKind::Corrupt => (
                    checked(rebuild(&store, meta, schema).await?, meta, schema)?,
                    true,
                ),
                _ => return Err(error),
            },
        };
        Ok(Self(Arc::new(Inner {
            blocks: vectors::plan_blocks(&index),
            store,
            meta: meta.clone(),
            index,
            is_rebuilt,
            cache,
            attrs: OnceLock::new(),
        })))
    }

    /// What the commit says about this segment.
    pub fn meta(&self) -> &SegmentMeta {
        &self.0.meta
    }

    /// Dimension and metric.
    pub fn schema(&self) -> &SegmentSchema {
        &self.0.index.schema
    }

    /// Whether `index.vxi` was missing or damaged and this reader works from one
    /// derived at `open`; [`rebuild_index`](crate::rebuild_index) gives the bytes
    /// to put back.
    pub fn is_rebuilt(&self) -> bool {
        self.0.is_rebuilt
    }

    /// Records; their ordinals are 0..rows.
    pub fn rows(&self) -> u32 {
        self.0.index.entries.rows
    }

    /// Records and deletes; deletes have the ordinals rows..entries.
    pub fn entries(&self) -> u32 {
        self.0.index.entries.len()
    }

    /// Whether an ordinal is a delete's.
    pub fn is_delete(&self, ordinal: u32) -> bool {
        ordinal >= self.rows()
    }

    /// The id of a record or delete. Panics beyond `entries`, as indexing does.
    pub fn id(&self, ordinal: u32) -> &str {
        self.0.index.entries.id(ordinal)
    }

    /// Where a record or delete was read. Panics beyond `entries`.
    pub fn position(&self, ordinal: u32) -> Position {
        self.0.index.entries.position(ordinal)
    }

    /// The event time of a record or delete in ms. Panics beyond `entries`.
    pub fn event_time(&self, ordinal: u32) -> Option<i64> {
        self.0.index.entries.event_time(ordinal)
    }

    /// |vector| of every record, by ordinal.
    pub fn norms(&self) -> &[f32] {
        &self.0.index.entries.norms
    }

    /// The hash that [`SegmentReader::find_hashed`] takes; the same for all segments.
    pub fn key_hash(id: &str) -> u64 {
        key_hash(id)
    }

    /// The ordinal of an id, record or delete; an id is in a segment at most
    /// once. No I/O; O(log entries), and O(1) for 255 of 256 absent ids.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.find_hashed(key_hash(id), id)
    }

    /// As [`SegmentReader::find`], where the caller probes many segments and
    /// hashes once.
    pub fn find_hashed(&self, hash: u64, id: &str) -> Option<u32> {
        self.0.index.find(hash, id)
    }

    /// Bytes that this reader holds in memory, near enough for a budget; cached
    /// blocks not included.
    pub fn memory_bytes(&self) -> usize {
        /// Position 24, event time 8, id offset 4, key table 12, filter 1.2, norm
        /// and checksum 8.
        const ENTRY_BYTES: usize = 58;
        let index = &self.0.index;
        let pages = (index.layout.pages.len() + index.layout.vector_pages.len()) * 24;
        // The decoded footer is about three times its bytes.
        index.entries.ids.len()
            + index.entries.len() as usize * ENTRY_BYTES
            + pages
            + index.layout.tail.len() * 4
    }

    fn check_rows(&self, range: Range<u64>) -> Result<Range<u32>> {
        if range.end > u64::from(self.rows()) || range.start > range.end {
            let expected = format!("inside 0..{}", self.rows());
            return Err(SegmentError::invalid(
                "a range of records",
                format!("{range:?}"),
                expected,
            ));
        }
        Ok(range.start as u32..range.end as u32)
    }
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("id", &self.0.meta.id)
            .field("rows", &self.rows())
            .field("entries", &self.entries())
            .finish()
    }
}

/// Parses off the I/O threads: 80 MB, a million records, take some 50 ms.
async fn parse(bytes: Bytes) -> Result<Index> {
    let parsed = tokio::task::spawn_blocking(move || Index::parse(&bytes)).await;
    parsed.map_err(SegmentError::worker)?
}

/// The index, if it is the one of this segment and collection.
fn checked(index: Index, meta: &SegmentMeta, schema: &SegmentSchema) -> Result<Index> {
    let of_index = (
        index.id,
        index.schema,
        index.entries.rows,
        index.entries.deletes,
        index.entries.hash,
        index.layout.file_bytes,
    );
    let data_bytes = meta.require(DATA_FILE)?.bytes;
    let of_commit = (
        meta.id,
        *schema,
        meta.rows,
        meta.deletes,
        meta.hash,
        data_bytes,
    );
    if of_index != of_commit {
        let message = format!("{of_index:?}; the commit says {of_commit:?}");
        return Err(SegmentError::corrupt(INDEX_FILE, "stats", 0, message));
    }
    Ok(index)
}
