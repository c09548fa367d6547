//! Codes without lists: what a scan by them finds and spares.

use std::collections::HashSet;

use vexlake_index::{CodedQuery, CodedRows, Space};

use super::*;

/// Rows, their norms and codes in the space around their mean.
struct Chunk {
    space: Space,
    rows: Vec<f32>,
    norms: Vec<f32>,
    codes: CodedRows,
}

fn chunk(metric: Metric, dim: usize, rows: Vec<f32>) -> Chunk {
    let count = rows.len() / dim;
    let norms: Vec<f32> = rows.chunks_exact(dim).map(kernels().norm).collect();
    let mut mean = vec![0.0; dim];
    for (row, norm) in rows.chunks_exact(dim).zip(&norms) {
        let scale = if metric == Metric::Cosine {
            norm.max(1e-9)
        } else {
            1.0
        };
        let parts = mean.iter_mut().zip(row);
        parts.for_each(|(mean, x)| *mean += x / scale / count as f32);
    }
    let space = Space::new(metric, 7, mean).expect("a space");
    let codes = CodedRows::build(&space, &rows);
    Chunk {
        space,
        rows,
        norms,
        codes,
    }
}

impl Chunk {
    /// The nearest k by codes and exactly, and how many were compared exactly by the first.
    fn both(&self, query: &[f32], k: usize, hidden: &dyn Fn(u32) -> bool) -> [Vec<(f32, u64)>; 2] {
        self.counted(query, k, hidden).0
    }

    fn counted(
        &self,
        query: &[f32],
        k: usize,
        hidden: &dyn Fn(u32) -> bool,
    ) -> ([Vec<(f32, u64)>; 2], u64) {
        let query = Query::new(self.space.metric(), query);
        let (mut by_code, mut exact) = (TopK::new(k), TopK::new(k));
        let mut coded = CodedQuery::new(&self.space, &query, f32::INFINITY).expect("within codes");
        let rows = (&self.rows[..], &self.norms[..]);
        let compared = coded.scan(&self.codes, rows, hidden, 0, &mut by_code);
        scan(&query, rows.0, rows.1, Some(hidden), 0, &mut exact);
        ([by_code.into_sorted(), exact.into_sorted()], compared)
    }
}

fn ids(found: &[(f32, u64)]) -> HashSet<u64> {
    found.iter().map(|hit| hit.1).collect()
}

#[test]
fn should_equal_the_exact_scan_where_all_rows_are_wanted_and_none_hidden_is_answered() {
    for metric in METRICS {
        for (dim, rows) in [(1, 40), (3, 33), (64, 32), (100, 500), (768, 85)] {
            let chunk = chunk(metric, dim, clumps(dim, rows, 7, dim as u64));
            for query in clumps(dim, 5, 5, 99).chunks_exact(dim) {
                let [found, exact] = chunk.both(query, rows, &|row| row % 3 == 1);
                let what = format!("{} {dim}", metric.name());
                assert_eq!(exact.len(), rows - (rows + 1) / 3, "{what}");
                assert_same(&found, &exact, &what);
            }
        }
    }
}

#[test]
fn should_find_nearly_all_of_the_nearest_by_comparing_few_rows() {
    for metric in METRICS {
        // Far from zero, so that the origin counts.
        let all: Vec<f32> = clumps(128, 4100, 40, 5).iter().map(|x| x + 2.0).collect();
        let (rows, queries) = all.split_at(4000 * 128);
        let chunk = chunk(metric, 128, rows.to_vec());
        let (mut found, mut wanted, mut compared) = (0, 0, 0);
        for query in queries.chunks_exact(128) {
            let ([near, exact], looked_at) = chunk.counted(query, 10, &|_| false);
            wanted += exact.len();
            found += ids(&near).intersection(&ids(&exact)).count();
            compared += looked_at;
        }
        let recall = found as f64 / wanted as f64;
        assert!(recall >= 0.995, "{}: {recall}", metric.name());
        let share = compared as f64 / (100 * 4000) as f64;
        assert!(share <= 0.2, "{}: compared {share}", metric.name());
    }
}

#[test]
fn should_compare_rows_that_have_no_code_where_they_may_be_the_nearest() {
    for (metric, nearest) in [(Metric::InnerProduct, true), (Metric::L2, false)] {
        let mut chunk = chunk(metric, 64, clumps(64, 40, 4, 1));
        chunk.rows[64 * 20..64 * 21].fill(3e18);
        chunk.codes = CodedRows::build(&chunk.space, &chunk.rows);
        let [found, exact] = chunk.both(&[1.0; 64], 3, &|_| false);
        assert_eq!(ids(&found), ids(&exact));
        assert_eq!(ids(&found).contains(&20), nearest);
    }
}
