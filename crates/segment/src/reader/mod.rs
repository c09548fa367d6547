//! Reading a segment: the head of the index in memory, everything else by ranges.
//!
//! 1. `open` reads the head of `index.vxi` in one request. Where it is missing or
//!    damaged, the index is derived from the Parquet files, and the segment serves.
//! 2. Index pages come through the [`BlockCache`] (`pages.rs`): keys, ids, positions and
//!    times (`entries.rs`). A page that turns out damaged or missing is mended the same
//!    way, once.
//! 3. Vectors come in blocks or one by one through the same cache (`vectors.rs`, `rows.rs`),
//!    lists of codes by page (`lists.rs`), what filters ask by column (`columns.rs`), the text
//!    of attributes by page (`attrs.rs`), whole records for merges (`batch.rs`).
//!    `warm.rs` reads ahead of who searches.
//!
//! Invariant: no byte of `data.parquet` or of an index page is used before its checksum
//! matched.

mod attrs;
mod batch;
mod columns;
mod entries;
mod lists;
mod pages;
mod rows;
mod vectors;
mod warm;

pub use batch::RowBatch;
pub use columns::{FilterColumns, Passed};
pub use entries::{EntryBatch, Found};

use crate::cache::BlockCache;
use crate::error::{Result, SegmentError, SegmentErrorKind};
use crate::index::Head;
use crate::meta::{DATA_FILE, INDEX_FILE, SegmentMeta, SegmentSchema};
use crate::rebuild::rebuild_index;
use attrs::AttrsPages;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use tokio::sync::OnceCell;
use ulid::Ulid;
use vectors::Block;
#[cfg(test)]
pub(crate) use vectors::plan_blocks;
use vexlake_index::Centroids;
use vexlake_store::Store;

/// An open segment. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct SegmentReader(Arc<Inner>);

struct Inner {
    store: Store,
    meta: SegmentMeta,
    head: Head,
    /// The whole index, derived from Parquet once the stored one proved damaged.
    rebuilt: OnceCell<Bytes>,
    blocks: Vec<Block>,
    cache: BlockCache,
    /// What the lists belong to: for deriving them again.
    centroids: Option<Arc<Centroids>>,
    attrs: OnceLock<AttrsPages>,
}

impl SegmentReader {
    /// Opens a segment from a store scoped to `seg/<ulid>`. One ranged read of the end
    /// of `index.vxi`; a missing or damaged one is derived again from the Parquet
    /// files (then [`SegmentReader::is_rebuilt`]), for which a segment with lists needs
    /// its `centroids`. Fails with Corrupt where the
    /// files contradict the commit's `meta` or the collection's `schema`.
    pub async fn open(
        store: Store,
        meta: &SegmentMeta,
        schema: &SegmentSchema,
        cache: BlockCache,
        centroids: Option<Arc<Centroids>>,
    ) -> Result<Self> {
        let (head, rebuilt) = match read_head(&store, meta, schema).await {
            Ok(head) => (head, None),
            Err(error) if is_damage(&error) => {
                let bytes = rebuild_index(&store, meta, schema, centroids.as_ref()).await?;
                let head = parse_head(bytes.clone(), bytes.len() as u64).await?;
                (checked(head, meta, schema)?, Some(bytes))
            }
            Err(error) => return Err(error),
        };
        Ok(Self(Arc::new(Inner {
            blocks: vectors::plan_blocks(&head),
            store,
            meta: meta.clone(),
            head,
            rebuilt: OnceCell::new_with(rebuilt),
            cache,
            centroids,
            attrs: OnceLock::new(),
        })))
    }

    /// What the commit says about this segment.
    pub fn meta(&self) -> &SegmentMeta {
        &self.0.meta
    }

    /// Dimension and metric.
    pub fn schema(&self) -> &SegmentSchema {
        &self.0.head.schema
    }

    /// Whether `index.vxi` proved missing or damaged, at `open` or later, and this reader
    /// works from one derived from Parquet; [`rebuild_index`](crate::rebuild_index) gives
    /// the bytes to put back.
    pub fn is_rebuilt(&self) -> bool {
        self.0.rebuilt.initialized()
    }

    /// Records; their ordinals are 0..rows.
    pub fn rows(&self) -> u32 {
        self.0.head.rows
    }

    /// Records and deletes; deletes have the ordinals rows..entries.
    pub fn entries(&self) -> u32 {
        self.0.head.entries()
    }

    /// Whether an ordinal is a delete's.
    pub fn is_delete(&self, ordinal: u32) -> bool {
        ordinal >= self.rows()
    }

    /// Bytes that this reader holds in memory, near enough for a budget; what the cache
    /// holds not included.
    pub fn memory_bytes(&self) -> usize {
        let Inner {
            head,
            rebuilt,
            attrs,
            blocks,
            ..
        } = &*self.0;
        head.memory_bytes()
            + blocks.len() * size_of::<Block>()
            + rebuilt.get().map_or(0, Bytes::len)
            + attrs
                .get()
                .map_or(0, |pages| pages.memory_bytes(head.layout.tail.len()))
    }

    fn check_rows(&self, range: Range<u64>) -> Result<Range<u32>> {
        check_range("a range of records", range, self.rows())
    }
}

fn check_range(what: &'static str, range: Range<u64>, end: u32) -> Result<Range<u32>> {
    if range.end > u64::from(end) || range.start > range.end {
        let expected = format!("inside 0..{end}");
        return Err(SegmentError::invalid(what, format!("{range:?}"), expected));
    }
    Ok(range.start as u32..range.end as u32)
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

/// Whether deriving the index again may help.
fn is_damage(error: &SegmentError) -> bool {
    matches!(
        error.kind(),
        SegmentErrorKind::NotFound | SegmentErrorKind::Corrupt
    )
}

async fn read_head(store: &Store, meta: &SegmentMeta, schema: &SegmentSchema) -> Result<Head> {
    let file_bytes = meta.require(INDEX_FILE)?.bytes;
    let Some(head_at) = file_bytes
        .checked_sub(meta.index_head_bytes)
        .filter(|_| meta.index_head_bytes > 0)
    else {
        let message = format!("a head of {} bytes", meta.index_head_bytes);
        return Err(SegmentError::corrupt(INDEX_FILE, "head", 0, message));
    };
    let head = head_at..file_bytes;
    let mut read = store
        .get_ranges(INDEX_FILE, std::slice::from_ref(&head))
        .await?;
    let head = read.pop().unwrap_or_default();
    checked(parse_head(head, file_bytes).await?, meta, schema)
}

/// Parses off the I/O threads: 23 MB, ten million entries, take some milliseconds.
async fn parse_head(end: Bytes, file_bytes: u64) -> Result<Head> {
    let parsed = tokio::task::spawn_blocking(move || Head::parse(&end, file_bytes)).await;
    parsed.map_err(SegmentError::worker)?
}

/// The head, if it is the one of this segment and collection.
fn checked(head: Head, meta: &SegmentMeta, schema: &SegmentSchema) -> Result<Head> {
    let of_index = (
        head.id,
        head.schema,
        head.rows,
        head.deletes,
        head.hash,
        head.layout.file_bytes,
        head.lists
            .as_ref()
            .map(|lists| Ulid::from(lists.head.version())),
    );
    let data_bytes = meta.require(DATA_FILE)?.bytes;
    let of_commit = (
        meta.id,
        *schema,
        meta.rows,
        meta.deletes,
        meta.hash,
        data_bytes,
        meta.centroids,
    );
    if of_index != of_commit {
        let message = format!("{of_index:?}; the commit says {of_commit:?}");
        return Err(SegmentError::corrupt(INDEX_FILE, "stats", 0, message));
    }
    Ok(head)
}
