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
//!             at most one half block of 16 rows (codes, a × 16, b × 16)
//!             rest: codes row by row, then a, then b
//!             zeros to the next boundary
//! ```
//! A *slot* is a row's place in this order, from 0 on. Where rows of the segment
//! lie in list order, slot = ordinal and no ordinals are stored. Rows that do not fill
//! a block: from eight on they become a half block, with what is beyond it row by row,
//! and from 24 on a padded block. Looking up 16 rows costs what counting the bits of six
//! costs, but padding below eight would defeat segments whose lists are shorter still.
//! Format 1 had no half blocks and padded a block from sixteen rows on.
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
pub use writer::{EncodedRows, build_lists, build_lists_as};

use vexlake_distance::{BLOCK_ROWS, HALF_ROWS, block_bytes, code_bytes, half_bytes};

/// The format that this program writes.
pub const LISTS_FORMAT: u32 = 2;
/// The oldest that it reads, and derives again where an index of that time is lost.
pub const LISTS_FORMAT_MIN: u32 = 1;

/// Rows beyond the last block, or half block, that are worth another one with padding:
/// at most twice the memory of its rows.
pub(crate) const PADDED_ROWS_MIN: usize = 8;

/// Bytes of a row in the rest: its code and two factors.
pub(crate) fn rest_row_bytes(code_dim: usize) -> usize {
    code_bytes(code_dim) + 2 * size_of::<f32>()
}

/// How the rows of one list lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) blocks: usize,
    pub(crate) has_half: bool,
    pub(crate) rest: usize,
}

impl Shape {
    #[inline]
    pub(crate) fn of(format: u32, rows: usize) -> Self {
        let (blocks, rest) = (rows / BLOCK_ROWS, rows % BLOCK_ROWS);
        let padded = match format {
            LISTS_FORMAT_MIN => HALF_ROWS,
            _ => HALF_ROWS + PADDED_ROWS_MIN,
        };
        if rest >= padded {
            return Self {
                blocks: blocks + 1,
                has_half: false,
                rest: 0,
            };
        }
        let has_half = format > LISTS_FORMAT_MIN && rest >= PADDED_ROWS_MIN;
        Self {
            blocks,
            has_half,
            rest: if has_half {
                rest.saturating_sub(HALF_ROWS)
            } else {
                rest
            },
        }
    }

    /// Bytes of a list of this shape.
    pub(crate) fn bytes(&self, code_dim: usize) -> usize {
        let bytes = self.blocks * block_bytes(code_dim)
            + usize::from(self.has_half) * half_bytes(code_dim)
            + self.rest * rest_row_bytes(code_dim);
        bytes.next_multiple_of(crate::bytes::ALIGN)
    }
}
