//! One version of a collection's centroids: what says which list a row belongs to
//! and which lists a query looks at.
//!
//! Centroids lie in the [`Space`] (rotated), as rows and queries do there. Finding
//! the nearest of thousands by full vectors would cost more than scanning the
//! lists; they therefore have 1-bit codes of their own, around the origin:
//! 1. bounds of all centroids by FastScan;
//! 2. distances of those whose bound is small: exact for a row, from bytes for a
//!    query (`bytes.rs`), which asks for many lists and not for one;
//! 3. the nearest by those.
//!
//! A row's list is the nearest centroid exactly, but for the bound's confidence
//! (assigning to the second nearest costs nothing but a little recall). For the
//! inner product rows are assigned by distance too, and queries choose by product.

mod bytes;
mod codec;
mod kmeans;
mod measure;
mod parallel;
mod split;
mod train;

pub use codec::CENTROIDS_FORMAT;
pub use split::{SplitOptions, split};
pub use train::{TrainOptions, train, train_in};

use crate::IndexError;
use crate::lists::EncodedRows;
use crate::rabitq::{Factors, encode};
use crate::space::Space;
use bytes::{ByteCentroids, ByteVector};
use vexlake_distance::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, Kernels, Line, LookupTable, Metric, block_bytes, code_bytes,
    limit_of_smallest, pack_block,
};

/// In the parent map: this centroid comes from none of the version before.
const NO_PARENT: u32 = u32::MAX;

/// Standard deviations of the bound when rows look for their list: one in 700 true
/// nearest lies beyond, and then only where another is almost as near.
const ASSIGN_CONFIDENCE: f32 = 3.0;

/// Of the centroids of smallest bound, those whose exact distance sets the limit
/// for all others when a row looks for its list.
const ASSIGN_FIRST: usize = 4;

/// One in so many chosen lists comes first.
const NEAR_SHARE: usize = 8;

/// See the module.
#[derive(Clone, Debug)]
pub struct Centroids {
    version: u128,
    space: Space,
    count: usize,
    /// count × code_dim, in the space.
    rotated: Vec<f32>,
    /// The list of the version before that each came from, or [`NO_PARENT`].
    parents: Vec<u32>,
    /// (share of true neighbours found, lists looked at) as measured at training;
    /// both ascending.
    recall_curve: Vec<(f32, u32)>,
    /// Blocks of codes around the origin; the last one is padded.
    blocks: Vec<u8>,
    spread: f32,
    bytes: ByteCentroids,
    /// |c + origin|² of each: for the inner product only.
    own_squares: Vec<f32>,
}

/// A list that a query looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The centroid's number.
    pub list: u32,
    /// The centroid's key: what it adds to its rows' estimates.
    pub key: f32,
    /// |q − c|, by which estimates err.
    pub gap: f32,
}

/// Buffers of choosing and assigning, reused from vector to vector.
#[derive(Clone, Debug, Default)]
pub struct ChooseScratch {
    bounds: Vec<f32>,
    positions: Vec<u32>,
    query: ByteVector,
}

impl Centroids {
    /// From centroids in the space (count × code_dim floats).
    pub(crate) fn new(
        version: u128,
        space: Space,
        rotated: Vec<f32>,
        parents: Vec<u32>,
        recall_curve: Vec<(f32, u32)>,
    ) -> Self {
        let dim = space.code_dim();
        let count = rotated.len() / dim;
        let origin = vec![0.0; dim];
        // Centroids are looked for by distance whatever the metric.
        let around = space.by_distance();
        let mut blocks = Vec::new();
        let mut codes = vec![0; BLOCK_ROWS * code_bytes(dim)];
        let mut spread = 0.0f32;
        for chunk in rotated.chunks(BLOCK_ROWS * dim) {
            let start = blocks.len();
            blocks.resize(start + block_bytes(dim), 0);
            let block = &mut blocks[start..];
            let mut factors = Vec::with_capacity(BLOCK_ROWS);
            let rows = chunk.len() / dim;
            for (centroid, code) in chunk
                .chunks_exact(dim)
                .zip(codes.chunks_exact_mut(code_bytes(dim)))
            {
                factors.push(encode(&around, centroid, &origin, code));
            }
            let (packed, bytes) = block.split_at_mut(block_bytes(dim) - BLOCK_FACTOR_BYTES);
            pack_block(&codes[..rows * code_bytes(dim)], code_bytes(dim), packed);
            for (row, Factors { a, b, spread: own }) in factors.into_iter().enumerate() {
                bytes[4 * row..][..4].copy_from_slice(&a.to_le_bytes());
                bytes[4 * (BLOCK_ROWS + row)..][..4].copy_from_slice(&b.to_le_bytes());
                spread = spread.max(own);
            }
        }
        let bytes = ByteCentroids::new(&rotated, dim);
        let own_squares = match space.metric() {
            Metric::InnerProduct => rotated
                .chunks_exact(dim)
                .map(|centroid| space.own_square(centroid))
                .collect(),
            _ => Vec::new(),
        };
        Self {
            version,
            space,
            count,
            rotated,
            parents,
            recall_curve,
            blocks,
            spread,
            bytes,
            own_squares,
        }
    }

    /// The identity of this version; lists name it.
    pub fn version(&self) -> u128 {
        self.version
    }

    /// Where the centroids lie.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The lists that held a share of the true nearest of rows held out at training;
    /// all where the share was not reached. A search finds a little less: see
    /// `measure.rs`.
    pub fn probes_for(&self, recall: f32) -> usize {
        let point = self.recall_curve.iter().find(|(share, _)| *share >= recall);
        point.map_or(self.count, |(_, probes)| *probes as usize)
    }

    /// The measured (share of true neighbours, lists) pairs.
    pub fn recall_curve(&self) -> &[(f32, u32)] {
        &self.recall_curve
    }

    /// One centroid in the space.
    #[inline]
    pub fn rotated(&self, list: u32) -> &[f32] {
        let dim = self.space.code_dim();
        &self.rotated[list as usize * dim..][..dim]
    }

    /// Bounds of the distances (cosine: half of them) from a vector in the space to
    /// all centroids, by codes.
    fn bounds(&self, table: &LookupTable, square: f32, confidence: f32, bounds: &mut Vec<f32>) {
        let dim = self.space.code_dim();
        let scale = match self.space.metric() {
            Metric::InnerProduct => 1.0,
            _ => self.space.key_scale(),
        };
        let error = (self.spread * self.spread * square + table.residue().powi(2)).sqrt();
        let line = Line {
            add: scale * square,
            shift: table.offset() + confidence * error,
            scale: table.scale(),
        };
        bounds.resize(self.count.next_multiple_of(BLOCK_ROWS), 0.0);
        let block_bounds = self.space.kernels().block_bounds;
        let blocks = self.blocks.chunks_exact(block_bytes(dim));
        for (block, bounds) in blocks.zip(bounds.as_chunks_mut::<BLOCK_ROWS>().0) {
            block_bounds(table.table(), block, &line, f32::INFINITY, block, bounds);
        }
        bounds.truncate(self.count);
    }

    /// |x − c|² of a vector in the space.
    #[inline]
    fn square_to(&self, x: &[f32], list: u32) -> f32 {
        (self.space.kernels().l2)(x, self.rotated(list))
    }

    /// The nearest centroid of a vector in the space, and |x − c|².
    pub fn nearest(
        &self,
        x: &[f32],
        table: &mut LookupTable,
        scratch: &mut ChooseScratch,
    ) -> (u32, f32) {
        let kernels = self.space.kernels();
        table.build(kernels, x);
        self.bounds(
            table,
            (kernels.dot)(x, x),
            ASSIGN_CONFIDENCE,
            &mut scratch.bounds,
        );
        let ChooseScratch {
            bounds, positions, ..
        } = scratch;
        positions.resize(self.count, 0);
        let scale = match self.space.metric() {
            Metric::InnerProduct => 1.0,
            _ => self.space.key_scale(),
        };
        let mut best = (0, f32::INFINITY);
        let mut looked = f32::NEG_INFINITY;
        // First the few of smallest bound, then whatever the best of them leaves.
        for turn in 0..2 {
            let limit = if turn == 0 {
                limit_of_smallest(kernels, bounds, ASSIGN_FIRST, ASSIGN_FIRST)
            } else {
                best.1 * scale
            };
            let found = (kernels.positions_le)(bounds, limit, positions);
            for list in &positions[..found] {
                if bounds[*list as usize] > looked {
                    let square = self.square_to(x, *list);
                    if square < best.1 || (square == best.1 && *list < best.0) {
                        best = (*list, square);
                    }
                }
            }
            looked = limit;
        }
        best
    }

    /// The nearest centroid of each of many vectors in the space.
    fn assign(&self, rows: &[f32], threads: usize) -> Vec<u32> {
        let dim = self.space.code_dim();
        let parts = parallel::map_chunks(threads, rows, dim, |rows| {
            let (mut table, mut scratch) = (LookupTable::default(), ChooseScratch::default());
            let rows = rows.chunks_exact(dim);
            rows.map(|row| self.nearest(row, &mut table, &mut scratch).0)
                .collect::<Vec<u32>>()
        });
        parts.concat()
    }

    /// The list of the version before that a list came from: itself where it was not
    /// split. None of a training, which makes all anew.
    pub fn parent(&self, list: u32) -> Option<u32> {
        let parent = self.parents.get(list as usize).copied();
        parent.filter(|parent| *parent != NO_PARENT)
    }

    /// The `probes` lists nearest to a query in the space: the nearest eighth first,
    /// the others by number; a sort would cost as much as all else here. `table` was
    /// built from the query. O(centroids / 32 blocks + probes · dim).
    pub fn choose(
        &self,
        x: &[f32],
        table: &LookupTable,
        probes: usize,
        scratch: &mut ChooseScratch,
        chosen: &mut Vec<Chosen>,
    ) {
        let kernels = self.space.kernels();
        let probes = probes.min(self.count);
        let square = (kernels.dot)(x, x);
        self.bounds(table, square, 0.0, &mut scratch.bounds);
        let ChooseScratch {
            bounds,
            positions,
            query,
        } = scratch;
        positions.resize(self.count, 0);
        query.set(x, square);
        if !self.own_squares.is_empty() {
            for (bound, own) in bounds.iter_mut().zip(&self.own_squares) {
                *bound = 0.5 * (*bound - own);
            }
        }
        // Codes may misjudge a list by a few places: some more are looked at.
        let looked_at = probes + probes / 8 + 8;
        let limit = limit_of_smallest(kernels, bounds, looked_at, looked_at / 8);
        let found = (kernels.positions_le)(bounds, limit, positions);
        let own_query = match self.space.metric() {
            Metric::InnerProduct => self.space.own_square(x),
            _ => 0.0,
        };
        chosen.clear();
        chosen.extend(positions[..found].iter().map(|list| {
            let square = self
                .bytes
                .square_to(kernels.dot_i8, query, *list)
                .unwrap_or_else(|| self.square_to(x, *list));
            let key = match self.own_squares.get(*list as usize) {
                Some(own) => 0.5 * (square - own_query - own),
                None => square * self.space.key_scale(),
            };
            Chosen {
                list: *list,
                key,
                gap: square.sqrt(),
            }
        }));
        keep_nearest(kernels, chosen, probes, bounds);
        // Rows of the nearest lists set a limit that rejects most of the others'.
        let first = probes.div_ceil(NEAR_SHARE);
        if first < chosen.len() {
            chosen.select_nth_unstable_by(first, order);
            chosen[first..].sort_unstable_by_key(|chosen| chosen.list);
        }
    }

    /// Encodes rows (contiguous, as received) with `threads` threads: the same rows
    /// give the same bytes for any number of them.
    pub fn encode(&self, rows: &[f32], threads: usize) -> Result<EncodedRows, IndexError> {
        let dim = self.space.dim();
        if !rows.len().is_multiple_of(dim) {
            return Err(IndexError::Mismatch {
                what: "floats of whole rows",
                found: rows.len() as u64,
                expected: (rows.len() / dim * dim) as u64,
            });
        }
        let parts = parallel::map_chunks(threads, rows, dim, |rows| self.encode_part(rows));
        let mut all = EncodedRows::default();
        parts.into_iter().for_each(|part| all.append(part));
        Ok(all)
    }

    fn encode_part(&self, rows: &[f32]) -> EncodedRows {
        let bytes = code_bytes(self.space.code_dim());
        let mut x = vec![0.0; self.space.code_dim()];
        let mut table = LookupTable::default();
        let mut scratch = ChooseScratch::default();
        let mut encoded = EncodedRows::default();
        for row in rows.chunks_exact(self.space.dim()) {
            let start = encoded.codes.len();
            encoded.codes.resize(start + bytes, 0);
            let (list, factors) = if self.space.enter(row, &mut x) {
                let (list, _) = self.nearest(&x, &mut table, &mut scratch);
                let code = &mut encoded.codes[start..];
                (list, encode(&self.space, &x, self.rotated(list), code))
            } else {
                (0, Factors::of_too_long(&self.space, row))
            };
            encoded.lists.push(list);
            encoded.factors.push(factors);
        }
        encoded
    }
}

/// By key, then by number.
fn order(a: &Chosen, b: &Chosen) -> std::cmp::Ordering {
    a.key.total_cmp(&b.key).then(a.list.cmp(&b.list))
}

/// Keeps the `wanted` smallest keys; `keys` is a buffer.
fn keep_nearest(kernels: &Kernels, chosen: &mut Vec<Chosen>, wanted: usize, keys: &mut Vec<f32>) {
    keys.clear();
    keys.extend(chosen.iter().map(|chosen| chosen.key));
    let limit = limit_of_smallest(kernels, keys, wanted, 0);
    chosen.retain(|chosen| chosen.key <= limit);
    // Equal keys at the limit: the first of them stay.
    chosen.truncate(wanted);
}
