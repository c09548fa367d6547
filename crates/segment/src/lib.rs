//! Segments: immutable files of records, open to every Parquet reader, with an
//! index file beside them that makes single vectors addressable.
//!
//! ```text
//! seg/<ulid>/data.parquet     records: id, vector, attrs, times, position
//! seg/<ulid>/deletes.parquet  keys deleted; only where there are any
//! seg/<ulid>/index.vxi        page map, checksums, key filter, keys and entries by page,
//!                             inverted lists of 1-bit codes
//! ```
//! How it is put together:
//! 1. [`SegmentWriter`] takes records and deletes, writes the Parquet files in
//!    bounded slices, then derives the index; [`upload`] makes them durable.
//! 2. [`SegmentReader`] reads the head of the index and everything else by ranges:
//!    keys and entries by index page, vectors straight from their Parquet pages
//!    without decoding, attributes by page. Pages and blocks share one bounded cache.
//! 3. [`rebuild_index`] derives the same index from Parquet and, for lists, centroids.
//!
//! **Checksums.** parquet-rs writes none, so we keep our own, and nothing reaches
//! a decoder unchecked: vectors by a CRC32C per row as they enter the cache, all
//! other pages by a CRC32C per page, the Parquet footer by its copy in the index,
//! resident index sections by a CRC32C each, and whole files by the CRC32C in
//! [`SegmentMeta`] wherever a whole file is read. Per page and not per row,
//! because what must be kept from damage is the decoder: a page that matches its
//! checksum is the page that was written.
//!
//! **Ordinals.** Records are 0..rows, deletes rows..rows+deletes; u32.
//!
//! Left out on purpose: which row is newest or hidden (lsm decides), commits.

#[cfg(target_endian = "big")]
compile_error!("the files are little endian and read in place");

mod cache;
mod columns;
mod entries;
mod error;
mod hash;
mod index;
mod meta;
mod pages;
mod reader;
mod rebuild;
mod record;
mod writer;

pub use cache::{BlockCache, CacheStats, ReadCounts, Reads, VectorBlock};
pub use error::{SegmentError, SegmentErrorKind};
pub use hash::{EntryHash, key_hash};
pub use meta::{DATA_FILE, DELETES_FILE, FileMeta, INDEX_FILE, SegmentMeta, SegmentSchema};
pub use reader::{EntryBatch, FilterColumns, Found, Passed, RowBatch, SegmentReader};
pub use rebuild::rebuild_index;
pub use record::{ATTRS_BYTES_MAX, DIM_MAX, Delete, ID_BYTES_MAX, Position, Row};
pub use writer::{Built, SegmentWriter, upload};
