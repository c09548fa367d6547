//! Training one version of centroids from a sample.
//!
//! 1. The origin is the sample's mean (of unit vectors for cosine), unless an
//!    earlier version has fixed it: the space stays for an incarnation's life.
//! 2. Some rows are held out as queries; k-means runs over the rest.
//! 3. The held-out rows measure how many lists hold the true nearest
//!    (`measure.rs`); that curve is kept and gives the default probe count.

use super::{Centroids, NO_PARENT, kmeans, measure, parallel};
use crate::IndexError;
use crate::space::Space;
use vexlake_distance::Metric;

/// Rows held out as queries at most: a share measured on 256 · 10 neighbours errs
/// by less than 0.3 points at .98.
const HELD_OUT_MAX: usize = 256;
/// At least so many rows remain to train on for each one that is held out.
const TRAINED_PER_HELD_OUT: usize = 20;

/// How to train.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// Identity of the version.
    pub version: u128,
    /// Lists wanted; fewer where the sample has fewer rows.
    pub lists: usize,
    /// Rounds of k-means.
    pub rounds: usize,
    /// Seed of the rotation, of the start and of what is held out.
    pub seed: u64,
    /// Threads at most.
    pub threads: usize,
}

/// Trains the first version of a collection. `sample` is contiguous rows of `dim`
/// floats, as received; rows that codes cannot serve are passed over.
pub fn train(
    metric: Metric,
    dim: usize,
    sample: &[f32],
    options: &TrainOptions,
) -> Result<Centroids, IndexError> {
    if dim == 0 {
        return Err(IndexError::BeyondCodes("the dimension"));
    }
    let space = Space::new(metric, options.seed, mean_of(metric, dim, sample)?)?;
    train_in(space, sample, options)
}

/// Trains a later version in the space of the first.
pub fn train_in(
    space: Space,
    sample: &[f32],
    options: &TrainOptions,
) -> Result<Centroids, IndexError> {
    let code_dim = space.code_dim();
    let mut rotated = enter_all(&space, sample, options.threads)?;
    let held_out = held_out_of(rotated.len() / code_dim);
    let queries = hold_out(&mut rotated, code_dim, held_out, options.seed);
    let count = options.lists.clamp(1, rotated.len() / code_dim);
    let centroids = kmeans::kmeans(
        &space,
        &rotated,
        count,
        options.rounds,
        options.seed,
        options.threads,
    );
    let parents = vec![NO_PARENT; count];
    let untested = Centroids::new(options.version, space, centroids, parents, Vec::new());
    let curve = measure::recall_curve(&untested, &rotated, &queries, options.threads);
    Ok(Centroids {
        recall_curve: curve,
        ..untested
    })
}

/// Rows of a sample, as received, brought into the space; those that codes cannot serve are
/// passed over.
pub(super) fn enter_all(
    space: &Space,
    sample: &[f32],
    threads: usize,
) -> Result<Vec<f32>, IndexError> {
    let (dim, code_dim) = (space.dim(), space.code_dim());
    if !sample.len().is_multiple_of(dim) {
        return Err(IndexError::Mismatch {
            what: "floats of whole rows",
            found: sample.len() as u64,
            expected: (sample.len() / dim * dim) as u64,
        });
    }
    let parts = parallel::map_chunks(threads, sample, dim, |rows| {
        let mut rotated = Vec::with_capacity(rows.len() / dim * code_dim);
        let mut x = vec![0.0; code_dim];
        for row in rows.chunks_exact(dim) {
            if space.enter(row, &mut x) {
                rotated.extend_from_slice(&x);
            }
        }
        rotated
    });
    let rotated = parts.concat();
    if rotated.is_empty() {
        return Err(IndexError::BeyondCodes("a sample without usable rows"));
    }
    Ok(rotated)
}

/// How many of some rows to hold out.
pub(super) fn held_out_of(rows: usize) -> usize {
    HELD_OUT_MAX.min(rows / (TRAINED_PER_HELD_OUT + 1))
}

/// The mean of usable rows; for cosine of their directions.
fn mean_of(metric: Metric, dim: usize, sample: &[f32]) -> Result<Vec<f32>, IndexError> {
    let plain = Space::new(metric, 0, vec![0.0; dim])?;
    let mut sums = vec![0.0f64; dim];
    let mut rows = 0u32;
    for row in sample.chunks_exact(dim) {
        let norm = (plain.kernels().norm)(row);
        let scale = match metric {
            Metric::Cosine if norm > 0.0 => 1.0 / f64::from(norm),
            _ => 1.0,
        };
        if norm <= crate::space::NORM_MAX {
            rows += 1;
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += f64::from(*x) * scale;
            }
        }
    }
    let share = 1.0 / f64::from(rows.max(1));
    Ok(sums.into_iter().map(|sum| (sum * share) as f32).collect())
}

/// Takes `count` rows out of the sample, by the seed: each changes places with the
/// last one, which is then cut off.
pub(super) fn hold_out(sample: &mut Vec<f32>, dim: usize, count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed ^ 0x5bd1_e995;
    let mut held = Vec::with_capacity(count * dim);
    for _ in 0..count {
        let last = sample.len() / dim - 1;
        let row = (next_random(&mut state) % (last as u64 + 1)) as usize;
        held.extend_from_slice(&sample[row * dim..][..dim]);
        sample.copy_within(last * dim.., row * dim);
        sample.truncate(last * dim);
    }
    held
}

/// The next number of a seed's stream (SplitMix64).
pub(super) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
