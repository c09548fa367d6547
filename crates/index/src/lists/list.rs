//! One list over borrowed bytes: its blocks and its rest.

use super::shape_of;
use vexlake_distance::{BLOCK_ROWS, block_bytes, block_factors, code_bytes, unpack_row};

/// See the module. Lengths were checked when it was opened.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    bytes: &'a [u8],
    code_dim: usize,
    rows: usize,
}

/// The rows of a list that fill no block.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    /// Codes, row by row.
    pub codes: &'a [u8],
    /// a of each row, then b of each row: f32 little-endian.
    pub factors: &'a [u8],
    /// How many rows.
    pub rows: usize,
}

impl<'a> List<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], code_dim: usize, rows: usize) -> Self {
        Self {
            bytes,
            code_dim,
            rows,
        }
    }

    /// Rows of the list.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All of its bytes.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of its blocks, one after the other; the last may be padded.
    #[inline]
    pub fn blocks(&self) -> &'a [u8] {
        &self.bytes[..shape_of(self.rows).0 * block_bytes(self.code_dim)]
    }

    /// The rows after the blocks.
    #[inline]
    pub fn rest(&self) -> Rest<'a> {
        let (blocks, rows) = shape_of(self.rows);
        let bytes = &self.bytes[blocks * block_bytes(self.code_dim)..];
        let (codes, bytes) = bytes.split_at(rows * code_bytes(self.code_dim));
        Rest {
            codes,
            factors: &bytes[..8 * rows],
            rows,
        }
    }

    /// Writes one row's code and answers its factors a and b.
    pub fn row(&self, row: usize, code: &mut [u8]) -> (f32, f32) {
        assert!(row < self.rows, "a row beyond the list");
        let blocks = self.blocks();
        let block = block_bytes(self.code_dim);
        if row / BLOCK_ROWS < blocks.len() / block {
            let block = &blocks[row / BLOCK_ROWS * block..][..block];
            let codes = &block[..BLOCK_ROWS * code.len()];
            unpack_row(codes, row % BLOCK_ROWS, code);
            return block_factors(block, row % BLOCK_ROWS);
        }
        let rest = self.rest();
        let row = row - blocks.len() / block * BLOCK_ROWS;
        code.copy_from_slice(&rest.codes[row * code.len()..][..code.len()]);
        rest.factors_of(row)
    }
}

impl Rest<'_> {
    /// The factors a and b of one row.
    #[inline]
    pub fn factors_of(&self, row: usize) -> (f32, f32) {
        let floats = self.factors.as_chunks::<4>().0;
        (
            f32::from_le_bytes(floats[row]),
            f32::from_le_bytes(floats[self.rows + row]),
        )
    }
}
