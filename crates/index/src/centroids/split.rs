//! A later version by splitting the lists that grew, leaving all others alone.
//!
//! 1. The sample says how large each list of the version before has become.
//! 2. A list of [`GROWN`] times the rows that are aimed at, or more, gives way to as many
//!    as it needs: k-means over its own rows of the sample. The first takes its number, the
//!    others come at the end, so that every other list keeps its number and its centroid.
//! 3. Rows held out measure the new version as a training does (`measure.rs`).
//!
//! The parent map says where each list comes from. It costs what the grown lists cost:
//! their rows by their parts, not all rows by all centroids.
//!
//! Left out on purpose: lists that shrank stay (an empty one costs a query one comparison
//! by code), and rows near a split list stay where they are.

use super::train::{enter_all, held_out_of, hold_out};
use super::{Centroids, kmeans, measure, parallel};
use crate::IndexError;

/// Rows of a list, as a multiple of those aimed at, from which on it is split: two halves
/// of it are then nearer to the aim than the whole.
const GROWN: f64 = 1.5;
/// Rows of the sample that each part has at least: fewer say nothing about its place.
const SAMPLE_ROWS_PER_PART: usize = 8;

/// How to split.
#[derive(Clone, Debug)]
pub struct SplitOptions {
    /// Identity of the version.
    pub version: u128,
    /// Rows of the collection, of which the sample is a part.
    pub rows: u64,
    /// Rows of a list that are aimed at.
    pub rows_per_list: u64,
    /// Rounds of k-means.
    pub rounds: usize,
    /// Seed of the starts and of what is held out.
    pub seed: u64,
    /// Threads at most.
    pub threads: usize,
}

/// Splits what has grown in a version of centroids. `sample` is contiguous rows of `dim`
/// floats, as received, drawn from the whole collection.
pub fn split(
    before: &Centroids,
    sample: &[f32],
    options: &SplitOptions,
) -> Result<Centroids, IndexError> {
    let (space, dim) = (before.space(), before.space().code_dim());
    let mut rotated = enter_all(space, sample, options.threads)?;
    let rows = rotated.len() / dim;
    let queries = hold_out(&mut rotated, dim, held_out_of(rows), options.seed);
    let lists = before.assign(&rotated, options.threads);
    let members = kmeans::Members::new(&lists, before.count());
    let scale = options.rows as f64 / (rotated.len() / dim).max(1) as f64;
    let aim = options.rows_per_list.max(1) as f64;
    let parts_of = |list: usize| {
        let sampled = members.of(list).len();
        let grown = sampled as f64 * scale / aim;
        let parts = (grown.round() as usize).min(sampled / SAMPLE_ROWS_PER_PART);
        (grown >= GROWN && parts > 1).then_some(parts)
    };
    let grown: Vec<(usize, usize)> = (0..before.count())
        .filter_map(|list| Some((list, parts_of(list)?)))
        .collect();
    let split = parallel::map(options.threads, grown.len(), |place| {
        let (list, parts) = grown[place];
        let own = members.of(list).iter();
        let own: Vec<f32> = own
            .flat_map(|row| &rotated[*row as usize * dim..][..dim])
            .copied()
            .collect();
        let seed = options.seed ^ list as u64;
        kmeans::kmeans(space, &own, parts, options.rounds, seed, 1)
    });
    let mut centroids: Vec<f32> = before.rotated.clone();
    let mut parents: Vec<u32> = (0..before.count() as u32).collect();
    for ((list, _), parts) in grown.iter().zip(split) {
        let (first, others) = parts.split_at(dim);
        centroids[list * dim..][..dim].copy_from_slice(first);
        centroids.extend_from_slice(others);
        parents.resize(centroids.len() / dim, *list as u32);
    }
    let untested = Centroids::new(
        options.version,
        space.clone(),
        centroids,
        parents,
        Vec::new(),
    );
    let curve = measure::recall_curve(&untested, &rotated, &queries, options.threads);
    Ok(Centroids {
        recall_curve: curve,
        ..untested
    })
}
