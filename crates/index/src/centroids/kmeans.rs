//! Lloyd's k-means over vectors in the space, with lists kept near one size.
//!
//! 1. Centroids start as distinct rows of the sample, by the seed.
//! 2. Each round assigns every row to the nearest centroid (by the centroids' own
//!    codes, then exactly) and moves each centroid to the mean of its rows.
//! 3. After every round but the last few, a list of more than `OVERSIZE` times the
//!    mean gets a second centroid, taken from the smallest list: both start on
//!    either side of the large list's mean and the next rounds settle them. Time
//!    per query grows with the squares of list sizes, and so does its P99.
//!
//! Invariant: the result depends on the sample and the seed, not on threads: rows
//! are added up in their order, each centroid by one thread.

use super::{Centroids, parallel};
use crate::space::Space;

/// Lists larger than this times the mean are split.
const OVERSIZE: f32 = 1.8;
/// Lists smaller than this times the mean give their centroid away.
const UNDERSIZE: f32 = 0.5;
/// Rounds at the end that move centroids without splitting.
const SETTLING_ROUNDS: usize = 3;
/// How far the two halves of a split start from the mean, relative to it and to
/// one of the list's rows.
const SPLIT_STEP: f32 = 0.1;

/// Answers count × code_dim floats. `sample` holds vectors in the space; `count` is
/// at most their number, at least 1.
pub(super) fn kmeans(
    space: &Space,
    sample: &[f32],
    count: usize,
    rounds: usize,
    seed: u64,
    threads: usize,
) -> Vec<f32> {
    let dim = space.code_dim();
    let mut centroids = Vec::with_capacity(count * dim);
    for row in distinct_rows(sample.len() / dim, count, seed) {
        centroids.extend_from_slice(&sample[row * dim..][..dim]);
    }
    for round in 0..rounds {
        let assigned = assign(space, &centroids, sample, threads);
        let members = Members::new(&assigned, count);
        move_centroids(&mut centroids, &members, sample, dim, threads);
        if round + SETTLING_ROUNDS < rounds {
            split_large_lists(&mut centroids, &members, sample, dim);
        }
    }
    centroids
}

/// The nearest centroid of each row.
fn assign(space: &Space, centroids: &[f32], sample: &[f32], threads: usize) -> Vec<u32> {
    let round = Centroids::new(0, space.clone(), centroids.to_vec(), Vec::new(), Vec::new());
    round.assign(sample, threads)
}

/// Row numbers by list, ascending within each.
pub(super) struct Members {
    rows: Vec<u32>,
    starts: Vec<u32>,
}

impl Members {
    pub(super) fn new(assigned: &[u32], count: usize) -> Self {
        let mut starts = vec![0u32; count + 1];
        assigned
            .iter()
            .for_each(|list| starts[*list as usize + 1] += 1);
        (0..count).for_each(|list| starts[list + 1] += starts[list]);
        let mut next = starts.clone();
        let mut rows = vec![0; assigned.len()];
        for (row, list) in assigned.iter().enumerate() {
            let place = &mut next[*list as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Self { rows, starts }
    }

    pub(super) fn of(&self, list: usize) -> &[u32] {
        &self.rows[self.starts[list] as usize..self.starts[list + 1] as usize]
    }
}

/// Moves each centroid to the mean of its rows; one without rows stays.
fn move_centroids(
    centroids: &mut [f32],
    members: &Members,
    sample: &[f32],
    dim: usize,
    threads: usize,
) {
    let means = parallel::map(threads, centroids.len() / dim, |list| {
        let rows = members.of(list);
        let mut mean = vec![0.0f32; dim];
        for row in rows {
            let row = &sample[*row as usize * dim..][..dim];
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x);
        }
        let share = 1.0 / rows.len().max(1) as f32;
        mean.iter_mut().for_each(|mean| *mean *= share);
        (!rows.is_empty()).then_some(mean)
    });
    for (centroid, mean) in centroids.chunks_exact_mut(dim).zip(means) {
        if let Some(mean) = mean {
            centroid.copy_from_slice(&mean);
        }
    }
}

/// Gives the smallest lists' centroids to the largest lists.
fn split_large_lists(centroids: &mut [f32], members: &Members, sample: &[f32], dim: usize) {
    let count = centroids.len() / dim;
    let mean = members.rows.len() as f32 / count as f32;
    let mut by_size: Vec<usize> = (0..count).collect();
    by_size.sort_by_key(|list| (members.of(*list).len(), *list));
    let (mut small, mut large) = (0, count - 1);
    while small < large {
        let (from, to) = (by_size[small], by_size[large]);
        let size = members.of(to).len();
        if (members.of(from).len() as f32) > UNDERSIZE * mean
            || (size as f32) < OVERSIZE * mean
            || size < 2
        {
            break;
        }
        // Both halves lie on the line through the mean and one of its rows.
        let row = members.of(to)[size / 2] as usize;
        for i in 0..dim {
            let centre = centroids[to * dim + i];
            let step = SPLIT_STEP * (sample[row * dim + i] - centre);
            centroids[to * dim + i] = centre - step;
            centroids[from * dim + i] = centre + step;
        }
        (small, large) = (small + 1, large - 1);
    }
}

/// `count` different row numbers below `rows`, by the seed: Floyd's method, sorted.
fn distinct_rows(rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut chosen = std::collections::BTreeSet::new();
    let mut state = seed;
    for last in rows - count..rows {
        let row = (super::train::next_random(&mut state) % (last as u64 + 1)) as usize;
        if !chosen.insert(row) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}
