//! The sections of `index.vxi` and what is in each. n = entries, r = records.
//!
//! ```text
//! lazy
//!  5 row checksums       u32 × r, CRC32C of each vector's little-endian bytes; pages of 256
//! 13 entry pages         ids, positions and event times of 256 entries each, see pages.rs
//! 14 key pages           hashes and ordinals of 1,024 keys each, by hash, see pages.rs
//! 19 lists               the lists object of crates/index from the end of its head on
//! 21 attribute columns   columns of crates/index, one of a field and chunk after another
//! resident
//!  1 stats               80 B: entry hash u128, log time min and max i64, data.parquet
//!                        bytes u64, tail offset u64, records u32, deletes u32, dim u32,
//!                        metric u32 (0 cosine, 1 l2, 2 ip, 3 l1), zeros
//!  2 vector pages        16 B each: values offset u64, first row u32, rows u32
//!  3 pages               24 B each: offset u64, column u32, first row u32, bytes u32, crc32c u32
//!  4 parquet tail        data.parquet from the tail offset to its end
//! 15 row checksum pages  crc32c u32 × pages of 5
//! 16 entry directory     starts in 13 u64 × (pages + 1), crc32c u32 × pages
//! 17 key fences          first hashes u64 × pages of 14, crc32c u32 × pages
//! 20 lists head          the head of the lists object: centroid version, list directory
//! 22 attribute directory where the columns in 21 begin, see attributes.rs
//! 18 key filter          xorf's BinaryFuse16: descriptor 20 B, fingerprints u16; empty = no filter
//! ```
//! 19 and 20 are there where the segment has lists; slots are ordinals.
//! 6 to 12 belonged to format 1 and are not given again.

use super::container::Kind;
use vexlake_distance::Metric;

pub(super) const STATS: Kind = (1, "stats");
pub(super) const VECTOR_PAGES: Kind = (2, "vector pages");
pub(super) const PAGES: Kind = (3, "pages");
pub(super) const TAIL: Kind = (4, "parquet tail");
pub(super) const ROW_CHECKSUMS: Kind = (5, "row checksums");
pub(super) const ENTRY_PAGES: Kind = (13, "entry pages");
pub(super) const KEY_PAGES: Kind = (14, "key pages");
pub(super) const ROW_CHECKSUM_PAGES: Kind = (15, "row checksum pages");
pub(super) const ENTRY_DIRECTORY: Kind = (16, "entry directory");
pub(super) const KEY_FENCES: Kind = (17, "key fences");
pub(super) const KEY_FILTER: Kind = (18, "key filter");
pub(super) const LISTS: Kind = (19, "lists");
pub(super) const LISTS_HEAD: Kind = (20, "lists head");
pub(super) const ATTRIBUTE_COLUMNS: Kind = (21, "attribute columns");
pub(super) const ATTRIBUTE_DIRECTORY: Kind = (22, "attribute directory");

pub(super) const STATS_BYTES: usize = 80;
pub(super) const VECTOR_PAGE_BYTES: usize = 16;
pub(super) const PAGE_BYTES: usize = 24;
/// Numbers of metrics in the file; the place in this array.
pub(super) const METRICS: [Metric; 4] = [
    Metric::Cosine,
    Metric::L2,
    Metric::InnerProduct,
    Metric::Manhattan,
];
