//! The exact answers, and how difficult they make a data set.
//!
//! Computed once by the flat scan of this crate and kept beside the data; local
//! intrinsic dimension and relative contrast follow from the distances.

use super::Failure;
use std::path::Path;
use vexlake_distance::{Metric, TopK, kernels};
use vexlake_index::{Query, scan};

/// Neighbours kept per query: what LID over 100 needs.
const NEIGHBOURS: usize = 100;
/// Rows of the base per turn of the scan: 256 × 3 KiB lie in the L2 cache.
const BLOCK_ROWS: usize = 256;
/// Rows whose distance to a query stands for the mean distance.
const MEAN_ROWS: usize = 1000;

/// The nearest rows of every query.
pub struct Truth {
    rows: Vec<u32>,
}

impl Truth {
    pub fn new(
        directory: &Path,
        metric: Metric,
        base: &[f32],
        norms: &[f32],
        queries: &[f32],
        dim: usize,
        threads: usize,
    ) -> Result<Self, Failure> {
        let path = directory.join(format!("truth-{}.u32", metric.name()));
        let count = queries.len() / dim;
        if let Ok(bytes) = std::fs::read(&path)
            && bytes.len() == count * NEIGHBOURS * 4
        {
            let rows = bytes.as_chunks().0.iter().map(|x| u32::from_le_bytes(*x));
            return Ok(Self {
                rows: rows.collect(),
            });
        }
        let part = count.div_ceil(threads.max(1)) * dim;
        let tops: Vec<TopK> = std::thread::scope(|scope| {
            let parts = queries
                .chunks(part)
                .map(|queries| scope.spawn(move || nearest(metric, base, norms, queries, dim)));
            let running: Vec<_> = parts.collect();
            let joined = running.into_iter();
            joined
                .flat_map(|part| part.join().expect("no panic"))
                .collect()
        });
        let rows = tops.into_iter().flat_map(TopK::into_sorted);
        let rows: Vec<u32> = rows.map(|(_, row)| row as u32).collect();
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        std::fs::write(path, bytes)?;
        Ok(Self { rows })
    }

    /// The rows nearest to one query, nearest first.
    pub fn of(&self, query: usize) -> &[u32] {
        &self.rows[query * NEIGHBOURS..][..NEIGHBOURS]
    }

    /// Medians over the queries of LID over 100 and 10 neighbours (maximum
    /// likelihood) and of the contrast: mean distance over that of neighbour 1, 10
    /// and 100. Euclidean, as published.
    pub fn difficulty(&self, base: &[f32], queries: &[f32], dim: usize) -> String {
        let mut figures: [Vec<f64>; 5] = Default::default();
        let rows = base.len() / dim;
        for (number, query) in queries.chunks_exact(dim).enumerate() {
            let distance =
                |row: usize| f64::from((kernels().l2)(query, &base[row * dim..][..dim])).sqrt();
            let near: Vec<f64> = self
                .of(number)
                .iter()
                .map(|row| distance(*row as usize))
                .collect();
            let some = (0..MEAN_ROWS).map(|at| distance(at * rows / MEAN_ROWS));
            let mean = some.sum::<f64>() / MEAN_ROWS as f64;
            let lid = |k: usize| {
                let logs: f64 = near[..k - 1].iter().map(|d| (d / near[k - 1]).ln()).sum();
                -((k - 1) as f64) / logs
            };
            let all = [
                lid(100),
                lid(10),
                mean / near[0],
                mean / near[9],
                mean / near[99],
            ];
            figures
                .iter_mut()
                .zip(all)
                .for_each(|(figures, figure)| figures.push(figure));
        }
        let [lid100, lid10, rc1, rc10, rc100] = figures.map(|mut figures| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        });
        format!(
            "{{\"lid100\":{lid100:.1},\"lid10\":{lid10:.1},\"rc1\":{rc1:.2},\"rc10\":{rc10:.2},\"rc100\":{rc100:.2}}}"
        )
    }
}

fn nearest(metric: Metric, base: &[f32], norms: &[f32], queries: &[f32], dim: usize) -> Vec<TopK> {
    let queries = queries.chunks_exact(dim);
    let queries: Vec<Query<'_>> = queries.map(|query| Query::new(metric, query)).collect();
    let mut tops = vec![TopK::new(NEIGHBOURS); queries.len()];
    let blocks = base.chunks(BLOCK_ROWS * dim).zip(norms.chunks(BLOCK_ROWS));
    for (block, (rows, norms)) in blocks.enumerate() {
        for (query, top) in queries.iter().zip(&mut tops) {
            scan(query, rows, norms, None, (block * BLOCK_ROWS) as u64, top);
        }
    }
    tops
}
