//! How many lists a query must look at: measured on rows held out of training.
//!
//! 1. The true nearest `NEIGHBOURS` of each held-out row in the training sample, by
//!    an exact scan.
//! 2. The place of each neighbour's list in the order in which the query would
//!    look at lists.
//! 3. The share of all neighbours found by looking at p lists, for a ladder of p.
//!
//! What it leaves out: the neighbours that codes and their bounds lose, and how far
//! held-out rows stand for real queries. A held-out row with near duplicates in the
//! sample finds them in its own list, which flatters the curve: on sets of a fifth
//! duplicates the count measured for .98 gave .971 and .977 of all neighbours.

use super::{Centroids, ChooseScratch, parallel};
use vexlake_distance::{LookupTable, Metric, TopK};

/// Neighbours per held-out row.
const NEIGHBOURS: usize = 10;
/// Rungs of the ladder: each is a tenth more lists than the one before, so that
/// 2²⁴ lists have 180.
const RUNG: f32 = 1.1;
/// Rows per call of the row kernel: 192 KiB of 768 dimensions stay in the L2 cache while
/// every query of a part looks at them.
const BATCH: usize = 64;
/// Queries that pass over the sample together. One at a time is bound by memory: on
/// 200,000 × 768 it took nine of the twenty CPU-seconds of a training.
const QUERIES: usize = 32;

pub(super) fn recall_curve(
    centroids: &Centroids,
    sample: &[f32],
    queries: &[f32],
    threads: usize,
) -> Vec<(f32, u32)> {
    let dim = centroids.space.code_dim();
    if queries.is_empty() {
        return Vec::new();
    }
    let lists = centroids.assign(sample, threads);
    let parts: Vec<&[f32]> = queries.chunks(QUERIES * dim).collect();
    let places = parallel::map(threads, parts.len(), |part| {
        let queries = parts[part].chunks_exact(dim);
        let tops = nearest_rows(centroids, sample, queries.clone());
        let places = queries.zip(tops);
        places
            .flat_map(|(query, top)| places_of_neighbours(centroids, &lists, query, top))
            .collect::<Vec<u32>>()
    });
    let mut places: Vec<u32> = places.concat();
    places.sort_unstable();
    let mut curve: Vec<(f32, u32)> = Vec::new();
    let mut probes = 1u32;
    loop {
        let found = places.partition_point(|place| *place < probes);
        let share = found as f32 / places.len().max(1) as f32;
        if curve.last().is_none_or(|(last, _)| *last < share) {
            curve.push((share, probes));
        }
        if probes as usize >= centroids.count() || share >= 1.0 {
            return curve;
        }
        let next = (probes as f32 * RUNG).ceil() as u32;
        probes = next.min(centroids.count() as u32);
    }
}

/// The true nearest rows of each query.
fn nearest_rows<'a>(
    centroids: &Centroids,
    sample: &[f32],
    queries: impl Iterator<Item = &'a [f32]>,
) -> Vec<TopK> {
    let space = &centroids.space;
    let dim = space.code_dim();
    let kernels = space.kernels();
    let is_product = space.metric() == Metric::InnerProduct;
    // ⟨q, o⟩ as received is ⟨q' + origin, o'⟩ up to a constant of the query.
    let asked: Vec<Vec<f32>> = queries
        .map(|query| {
            if is_product {
                space.own(query)
            } else {
                query.to_vec()
            }
        })
        .collect();
    let mut tops = vec![TopK::new(NEIGHBOURS); asked.len()];
    let mut keys = [0.0f32; BATCH];
    for (batch, rows) in sample.chunks(BATCH * dim).enumerate() {
        let keys = &mut keys[..rows.len() / dim];
        for (query, top) in asked.iter().zip(&mut tops) {
            if is_product {
                (kernels.dot_rows)(query, rows, keys);
                keys.iter_mut().for_each(|key| *key = -*key);
            } else {
                (kernels.l2_rows)(query, rows, keys);
            }
            for (row, key) in keys.iter().enumerate() {
                if *key <= top.worst() {
                    top.push(*key, (batch * BATCH + row) as u64);
                }
            }
        }
    }
    tops
}

/// Where the lists of a query's true neighbours come in its order of lists.
fn places_of_neighbours(
    centroids: &Centroids,
    lists: &[u32],
    query: &[f32],
    nearest: TopK,
) -> Vec<u32> {
    let (mut table, mut scratch) = (LookupTable::default(), ChooseScratch::default());
    let mut chosen = Vec::new();
    table.build(centroids.space.kernels(), query);
    centroids.choose(query, &table, centroids.count(), &mut scratch, &mut chosen);
    chosen.sort_unstable_by(super::order);
    let mut place = vec![0; centroids.count()];
    for (at, chosen) in chosen.iter().enumerate() {
        place[chosen.list as usize] = at as u32;
    }
    let found = nearest.into_sorted().into_iter();
    found
        .map(|(_, row)| place[lists[row as usize] as usize])
        .collect()
}
