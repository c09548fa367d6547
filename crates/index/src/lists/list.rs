//! One list over borrowed bytes: its blocks, its half block and its rest.

use super::{Shape, rest_row_bytes};
use vexlake_distance::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, HALF_FACTOR_BYTES, HALF_ROWS, block_bytes, code_bytes,
    factors_of, half_bytes, unpack_half_row, unpack_row,
};

/// See the module. Lengths were checked when it was opened.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    bytes: &'a [u8],
    code_dim: usize,
    rows: usize,
    shape: Shape,
}

/// The rows of a list that fill no block.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    /// All of the below.
    pub bytes: &'a [u8],
    /// Codes, row by row.
    pub codes: &'a [u8],
    /// a of each row, then b of each row: f32 little-endian.
    pub factors: &'a [u8],
    /// How many rows.
    pub rows: usize,
}

impl<'a> List<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], code_dim: usize, rows: usize, shape: Shape) -> Self {
        Self {
            bytes,
            code_dim,
            rows,
            shape,
        }
    }

    /// Rows of the list.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// All of its bytes.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of its blocks, one after the other; the last may be padded.
    #[inline]
    pub fn blocks(&self) -> &'a [u8] {
        &self.bytes[..self.shape.blocks * block_bytes(self.code_dim)]
    }

    /// The bytes of its half block, which may be padded; none where it has none.
    #[inline]
    pub fn half(&self) -> &'a [u8] {
        let bytes = &self.bytes[self.shape.blocks * block_bytes(self.code_dim)..];
        &bytes[..usize::from(self.shape.has_half) * half_bytes(self.code_dim)]
    }

    /// The rows after the blocks and the half block.
    #[inline]
    pub fn rest(&self) -> Rest<'a> {
        let bytes = &self.bytes[self.blocks().len() + self.half().len()..];
        let bytes = &bytes[..self.shape.rest * rest_row_bytes(self.code_dim)];
        Rest::new(bytes, self.code_dim, self.shape.rest)
    }

    /// Writes one row's code and answers its factors a and b.
    pub fn row(&self, row: usize, code: &mut [u8]) -> (f32, f32) {
        assert!(row < self.rows, "a row beyond the list");
        if row < self.shape.blocks * BLOCK_ROWS {
            let block = block_bytes(self.code_dim);
            let block = &self.blocks()[row / BLOCK_ROWS * block..][..block];
            let (codes, factors) = block.split_at(block.len() - BLOCK_FACTOR_BYTES);
            unpack_row(codes, row % BLOCK_ROWS, code);
            return factors_of(factors, BLOCK_ROWS, row % BLOCK_ROWS);
        }
        let row = row - self.shape.blocks * BLOCK_ROWS;
        let half = self.half();
        if !half.is_empty() && row < HALF_ROWS {
            let (codes, factors) = half.split_at(half.len() - HALF_FACTOR_BYTES);
            unpack_half_row(codes, row, code);
            return factors_of(factors, HALF_ROWS, row);
        }
        let rest = self.rest();
        let row = row + rest.rows - (self.rows - self.shape.blocks * BLOCK_ROWS);
        code.copy_from_slice(&rest.codes[row * code.len()..][..code.len()]);
        rest.factors_of(row)
    }
}

impl<'a> Rest<'a> {
    /// From the bytes of so many rows.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], code_dim: usize, rows: usize) -> Self {
        let (codes, factors) = bytes.split_at(rows * code_bytes(code_dim));
        Self {
            bytes,
            codes,
            factors,
            rows,
        }
    }

    /// The factors a and b of one row.
    #[inline]
    pub fn factors_of(&self, row: usize) -> (f32, f32) {
        factors_of(self.factors, self.rows, row)
    }
}
