//! Inverted lists of one segment: the rows of each centroid as FastScan blocks, the
//! rest row by row.
//!
//! Object (little-endian, sections on 64-byte boundaries):
//! ```text
//! header    magic "VXLL", format u32, centroid version u128, code_dim u32,
//!           lists u32, rows u32, has_ordinals u32, crc32c of the header
//! directory per list that has rows: list u32, rows u32, spread f32, crc32c u32;
//!           ascending by list; crc32c of the directory
//! ordinals  (has_ordinals = 1) row ordinal u32 per slot; crc32c of the ordinals
//! lists     per directory entry:
//!             blocks of 32 rows (codes, a × 32, b × 32)
//!             rest: codes row by row, then a, then b
//!             zeros to the next boundary
//! ```
//! A *slot* is a row's place in this order, from 0 on. Where rows of the segment
//! lie in list order, slot = ordinal and no ordinals are stored. Sixteen and more
//! rows that do not fill a block become a padded one: beyond that, look-ups for 32
//! rows cost less than counting bits for each; below it, padding would defeat
//! segments whose lists are short.
//!
//! Offsets follow from the rows of each list, so a reader that has the head (all
//! before the lists) fetches any list by one range and checks it by its checksum.

mod head;
mod list;
mod merge;
mod writer;

pub(crate) use head::LISTS_MAX;
pub use head::{ListEntry, ListsHead};
pub use list::{List, Rest};
pub use merge::{MergeInput, Merged, merge_lists};
pub use writer::{EncodedRows, build_lists};

use vexlake_distance::{BLOCK_ROWS, block_bytes, code_bytes};

/// The format that this program writes, and the only one it reads.
pub const LISTS_FORMAT: u32 = 1;

/// Rows that are worth a padded block: 32 rows of a block cost what about six cost
/// by counting bits, but a padded block is up to twice the memory of its rows.
pub(crate) const PADDED_ROWS_MIN: usize = BLOCK_ROWS / 2;

/// Bytes of a row in the rest: its code and two factors.
pub(crate) fn rest_row_bytes(code_dim: usize) -> usize {
    code_bytes(code_dim) + 2 * size_of::<f32>()
}

/// How many blocks, and how many rows in the rest.
pub(crate) fn shape_of(rows: usize) -> (usize, usize) {
    let (blocks, rest) = (rows / BLOCK_ROWS, rows % BLOCK_ROWS);
    if rest >= PADDED_ROWS_MIN {
        (blocks + 1, 0)
    } else {
        (blocks, rest)
    }
}

/// Bytes of a list of so many rows.
pub(crate) fn list_bytes(code_dim: usize, rows: usize) -> usize {
    let (blocks, rest) = shape_of(rows);
    let bytes = blocks * block_bytes(code_dim) + rest * rest_row_bytes(code_dim);
    bytes.next_multiple_of(crate::bytes::ALIGN)
}
