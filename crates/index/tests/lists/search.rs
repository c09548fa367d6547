//! Search through lists: what it finds, what it looks at, and what it refuses.

use std::collections::HashSet;

use vexlake_index::IndexError;

use super::*;

#[test]
fn should_equal_brute_force_where_every_list_and_row_is_looked_at() {
    for metric in METRICS {
        for (dim, rows) in [(1, 40), (3, 200), (64, 333), (100, 500), (768, 120)] {
            let built = Built::new(metric, dim, clumps(dim, rows, 7, dim as u64), 9);
            let queries = clumps(dim, 10, 5, 99);
            for query in queries.chunks_exact(dim) {
                for k in [1, 10, rows, rows + 5] {
                    let found = built.search(query, everything(k), usize::MAX, None);
                    let exact = built.exact(query, k, &|_| false);
                    assert_same(&found, &exact, &format!("{} {dim} {k}", metric.name()));
                }
            }
        }
    }
}

#[test]
fn should_find_most_of_the_nearest_by_looking_at_few_rows() {
    for metric in METRICS {
        let built = Built::new(metric, 128, clumps(128, 6000, 60, 5), 60);
        let queries = clumps(128, 6060, 60, 5).split_off(6000 * 128);
        let (mut found, mut wanted) = (0, 0);
        for query in queries.chunks_exact(128) {
            let effort = Effort {
                confidence: 2.0,
                ..Effort::for_k(10)
            };
            let near = built.search(query, effort, 6, None);
            let exact = built.exact(query, 10, &|_| false);
            let exact: HashSet<u64> = exact.iter().map(|x| x.1).collect();
            wanted += exact.len();
            found += near.iter().filter(|x| exact.contains(&x.1)).count();
        }
        let recall = found as f64 / wanted as f64;
        assert!(recall >= 0.97, "{}: {recall}", metric.name());
    }
}

#[test]
fn should_find_every_row_of_lists_of_every_length() {
    for count in 1..=80 {
        let built = Built::new(Metric::L2, 64, clumps(64, count, 1, count as u64), 1);
        let found = built.search(&[0.5; 64], everything(count), 1, None);
        let exact = built.exact(&[0.5; 64], count, &|_| false);
        assert_same(&found, &exact, &format!("{count} rows"));
        let hidden = built.segment.head.by_slot(&[0xaaaa_aaaa_aaaa_aaaa; 2]);
        let found = built.search(&[0.5; 64], everything(count), 1, Some(&hidden));
        let exact = built.exact(&[0.5; 64], count, &|row| row % 2 == 1);
        assert_same(&found, &exact, &format!("half of {count} rows"));
    }
}

#[test]
fn should_never_answer_a_hidden_row_and_find_all_others() {
    let built = Built::new(Metric::L2, 70, clumps(70, 900, 4, 1), 5);
    let query = &clumps(70, 1, 1, 77)[..];
    let patterns: [fn(u32) -> bool; 4] = [|_| true, |_| false, |row| row % 3 == 0, |row| row > 10];
    for pattern in patterns {
        let mut by_ordinal = vec![0u64; 900usize.div_ceil(64)];
        for row in (0..900).filter(|row| pattern(*row)) {
            by_ordinal[row as usize / 64] |= 1 << (row % 64);
        }
        let hidden = built.segment.head.by_slot(&by_ordinal);
        let found = built.search(query, everything(1000), usize::MAX, Some(&hidden));
        let exact = built.exact(query, 1000, &pattern);
        assert_same(&found, &exact, "masked");
        assert!(found.iter().all(|(_, row)| !pattern(*row as u32)));
    }
}

#[test]
fn should_keep_the_true_key_above_nearly_every_bound() {
    // At three deviations one row in 700 may lie below its bound; look at them all
    // through a search that trusts bounds, and compare with one that does not.
    for metric in METRICS {
        for dim in [16, 128, 768] {
            let built = Built::new(metric, dim, clumps(dim, 3000, 20, 8), 20);
            let queries = clumps(dim, 3020, 20, 8).split_off(3000 * dim);
            let mut missed = 0;
            for query in queries.chunks_exact(dim) {
                let effort = Effort {
                    k: 10,
                    rerank_max: usize::MAX,
                    confidence: 3.0,
                };
                let found = built.search(query, effort, usize::MAX, None);
                let exact = built.exact(query, 10, &|_| false);
                let rows: HashSet<u64> = found.iter().map(|x| x.1).collect();
                missed += exact.iter().filter(|x| !rows.contains(&x.1)).count();
            }
            assert!(missed <= 1, "{} {dim}: {missed} of 200", metric.name());
        }
    }
}

#[test]
fn should_look_at_few_rows_exactly_when_bounds_settle_the_answer() {
    let built = Built::new(Metric::L2, 768, clumps(768, 2000, 10, 2), 10);
    let mut search = Search::default();
    let query = &built.rows[..768];
    built.run(&mut search, query, Effort::for_k(10), 10, None);
    let counts = search.counts();
    assert_eq!(counts.scanned, 2000);
    assert_eq!(counts.lists, built.segment.head.entries().len() as u64);
    assert!(counts.reranked >= 10 && counts.reranked < 250, "{counts:?}");
}

#[test]
fn should_never_look_at_more_rows_than_allowed() {
    // Equal rows have equal bounds: nothing can tell them apart.
    let built = Built::new(Metric::L2, 64, vec![1.0; 64 * 5000], 4);
    let query = [0.5; 64];
    let mut search = Search::default();
    for (rerank_max, allowed) in [(1, 10), (10, 10), (333, 333), (9999, 5000)] {
        let effort = Effort {
            k: 10,
            rerank_max,
            confidence: 3.0,
        };
        built.run(&mut search, &query, effort, 4, None);
        assert_eq!(search.counts().reranked, allowed);
        assert_eq!(search.finish().len(), 10);
    }
}

#[test]
fn should_serve_zero_huge_tiny_and_single_vectors() {
    let dim = 5;
    let odd: [[f32; 5]; 6] = [
        [0.0; 5],
        [1e15; 5],
        [1e-30; 5],
        [3e38, 0.0, 0.0, 0.0, 0.0],
        [1.0, -1.0, 1.0, -1.0, 1.0],
        [0.0; 5],
    ];
    for metric in METRICS {
        for count in 1..=odd.len() {
            let rows: Vec<f32> = odd[..count].concat();
            let built = Built::new(metric, dim, rows, 3);
            for query in [[0.0; 5], [1.0; 5], [1e-30; 5]] {
                let found = built.search(&query, everything(10), usize::MAX, None);
                let exact = built.exact(&query, 10, &|_| false);
                assert_same(&found, &exact, &format!("{} {count}", metric.name()));
            }
        }
    }
}

#[test]
fn should_find_the_near_among_many_rows_too_long_for_codes() {
    // Ten times as many of them as a search may look at exactly.
    let (dim, near) = (16, 2000);
    let mut rows = clumps(dim, near + 3000, 20, 4);
    for (n, row) in rows.chunks_exact_mut(dim).enumerate().skip(near) {
        let scale = [1e17, 1e20, 1e30][n % 3];
        row.iter_mut().for_each(|x| *x *= scale);
    }
    let built = Built::new(Metric::L2, dim, rows, 20);
    for query in clumps(dim, 20, 20, 4).chunks_exact(dim) {
        let found = built.search(query, Effort::for_k(10), 20, None);
        assert!(found.iter().all(|(_, row)| *row < near as u64), "{found:?}");
    }
    // Nothing is lost where all are wanted, and the longest come last.
    let query = &built.rows[..dim];
    let found = built.search(query, everything(5000), usize::MAX, None);
    assert_same(&found, &built.exact(query, 5000, &|_| false), "all of them");
}

#[test]
fn should_refuse_what_codes_cannot_serve_with_a_reason() {
    let train_l1 = train(Metric::Manhattan, 2, &[1.0; 8], &options(2));
    assert!(matches!(train_l1, Err(IndexError::BeyondCodes(_))));
    assert!(matches!(
        train(Metric::L2, 0, &[], &options(2)),
        Err(IndexError::BeyondCodes(_))
    ));
    assert!(matches!(
        train(Metric::L2, 2, &[], &options(2)),
        Err(IndexError::BeyondCodes(_))
    ));
    let nans = train(Metric::L2, 2, &[f32::NAN; 8], &options(2));
    assert!(matches!(nans, Err(IndexError::BeyondCodes(_))));
    assert!(matches!(
        train(Metric::L2, 3, &[1.0; 8], &options(2)),
        Err(IndexError::Mismatch { .. })
    ));
    let built = Built::new(Metric::L2, 3, clumps(3, 30, 2, 1), 2);
    let space = built.centroids.space();
    let mut search = Search::default();
    for query in [[f32::NAN; 3], [f32::INFINITY; 3], [1e30; 3]] {
        let refused = search.begin(space, &query, Effort::for_k(1));
        assert!(matches!(refused, Err(IndexError::BeyondCodes(_))));
    }
    let refused = search.begin(space, &[1.0; 4], Effort::for_k(1));
    assert!(matches!(refused, Err(IndexError::Mismatch { .. })));
}
