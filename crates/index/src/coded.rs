//! Codes of rows whose vectors lie beside them in memory, in the order in which they came:
//! full chunks of a memtable.
//!
//! 1. [`CodedRows::build`] codes rows around the space's origin. They have arrived in any
//!    order, so no centroid is near all of them, and a mean of their own is hardly nearer
//!    than the mean of the whole collection, which the origin is.
//! 2. A [`CodedQuery`] bounds the keys of a block of rows; those within the k-th key so far are
//!    compared exactly, there and then. Nothing has to be read for that, so no pool of
//!    candidates stands between the two, and the bound may be generous ([`CONFIDENCE`]).
//!
//! Rows beyond the last whole block are padded: a chunk has one such block.

use vexlake_distance::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, Kernels, Line, LookupTable, Metric, TopK, block_bytes,
    code_bytes, pack_block,
};

use crate::rabitq::{Factors, encode};
use crate::space::Space;
use crate::{IndexError, Query};

/// Standard deviations of the error below an estimate at which a row is given up: one row in
/// 700 of those at the very limit. An exact look costs 50 ns here, not a read.
const CONFIDENCE: f32 = 3.0;

/// See the module.
#[derive(Clone, Debug)]
pub struct CodedRows {
    blocks: Vec<u8>,
    spread: f32,
}

impl CodedRows {
    /// Codes of contiguous rows of `space.dim()` floats. O(rows · dim).
    pub fn build(space: &Space, vectors: &[f32]) -> Self {
        let code_dim = space.code_dim();
        let (origin, mut rotated) = (vec![0.0; code_dim], vec![0.0; code_dim]);
        let row_bytes = code_bytes(code_dim);
        let mut coded = Self {
            blocks: Vec::new(),
            spread: 0.0,
        };
        let mut codes = vec![0; BLOCK_ROWS * row_bytes];
        for rows in vectors.chunks(BLOCK_ROWS * space.dim()) {
            let start = coded.blocks.len();
            coded.blocks.resize(start + block_bytes(code_dim), 0);
            let block = &mut coded.blocks[start..];
            let (packed, factors) = block.split_at_mut(block.len() - BLOCK_FACTOR_BYTES);
            let (of_a, of_b) = factors.split_at_mut(BLOCK_FACTOR_BYTES / 2);
            codes.fill(0);
            let places = codes.chunks_exact_mut(row_bytes);
            for ((row, code), number) in rows.chunks_exact(space.dim()).zip(places).zip(0..) {
                let factors = match space.enter(row, &mut rotated) {
                    true => encode(space, &rotated, &origin, code),
                    false => Factors::of_too_long(space, row),
                };
                coded.spread = coded.spread.max(factors.spread);
                let at: std::ops::Range<usize> = 4 * number..4 * number + 4;
                of_a[at.clone()].copy_from_slice(&factors.a.to_le_bytes());
                of_b[at].copy_from_slice(&factors.b.to_le_bytes());
            }
            pack_block(&codes, row_bytes, packed);
        }
        coded
    }

    /// Bytes that codes of `rows` rows of `dim` floats take, but for padding.
    pub fn bytes_of(rows: usize, dim: usize) -> usize {
        let code_dim = dim.next_multiple_of(vexlake_distance::CODE_DIM_STEP);
        rows * block_bytes(code_dim) / BLOCK_ROWS
    }
}

/// A query over coded rows.
pub struct CodedQuery<'a> {
    query: &'a Query<'a>,
    kernels: &'static Kernels,
    table: LookupTable,
    /// The origin's key, and how far the query lies from it.
    key: f32,
    gap: f32,
    limit: f32,
    bounds: [f32; BLOCK_ROWS],
}

impl<'a> CodedQuery<'a> {
    /// A query for rows whose keys are no greater than `limit`, as far as anybody knows before
    /// the scan.
    ///
    /// # Errors
    /// `BeyondCodes` where rows must be scanned exactly instead.
    pub fn new(space: &Space, query: &'a Query<'a>, limit: f32) -> Result<Self, IndexError> {
        let mut rotated = vec![0.0; space.code_dim()];
        if !space.enter(query.vector, &mut rotated) {
            return Err(IndexError::BeyondCodes("the query's length"));
        }
        let kernels = space.kernels();
        let mut table = LookupTable::default();
        table.build(kernels, &rotated);
        let square = (kernels.dot)(&rotated, &rotated);
        let key = match space.metric() {
            // −⟨q + origin, origin⟩, as for any other centroid.
            Metric::InnerProduct => {
                -space.dot_with_own(&space.own(&vec![0.0; rotated.len()]), &rotated)
            }
            _ => square * space.key_scale(),
        };
        Ok(Self {
            query,
            kernels,
            table,
            key,
            gap: square.sqrt(),
            limit,
            bounds: [0.0; BLOCK_ROWS],
        })
    }

    /// As [`scan`](crate::scan) does with all rows, with those that may be among the nearest.
    /// Answers how many were compared exactly.
    pub fn scan(
        &mut self,
        coded: &CodedRows,
        (rows, norms): (&[f32], &[f32]),
        hidden: &dyn Fn(u32) -> bool,
        base: u64,
        top: &mut TopK,
    ) -> u64 {
        let dim = self.query.dim();
        let count = rows.len() / dim;
        let (error, residue) = (coded.spread * self.gap, self.table.residue());
        let line = Line {
            add: self.key,
            shift: self.table.offset() + CONFIDENCE * (error * error + residue * residue).sqrt(),
            scale: self.table.scale(),
        };
        let bytes = self.table.table().len() + BLOCK_FACTOR_BYTES;
        let mut compared = 0;
        for (number, block) in coded.blocks.chunks_exact(bytes).enumerate() {
            let first = number * BLOCK_ROWS;
            let (table, limit) = (self.table.table(), self.limit.min(top.worst()));
            let bounds = &mut self.bounds;
            let within = (self.kernels.block_bounds)(table, block, &line, limit, block, bounds);
            let in_block = (count - first).min(BLOCK_ROWS);
            let mut left = within & (u32::MAX >> (BLOCK_ROWS - in_block));
            while left != 0 {
                let row = first + left.trailing_zeros() as usize;
                left &= left - 1;
                // The limit may have come nearer within the block.
                if self.bounds[row - first] > top.worst() || hidden(row as u32) {
                    continue;
                }
                let norm = norms.get(row).copied().unwrap_or_default();
                let key = self.query.key(&rows[row * dim..(row + 1) * dim], norm);
                compared += 1;
                if key <= top.worst() {
                    top.push(key, base + row as u64);
                }
            }
        }
        compared
    }
}
