//! The flat scan against brute force in f64, for each metric, masked or not.

use proptest::prelude::*;
use std::cell::RefCell;
use vexlake_distance::{KERNEL_NAMES, Metric, TopK, kernels, kernels_named};
use vexlake_index::{Query, scan};

#[derive(Debug, Clone)]
struct Case {
    dim: usize,
    query: Vec<f32>,
    rows: Vec<f32>,
    hidden: Option<Vec<bool>>,
    k: usize,
    base: u64,
}

/// Small integers: dot, L2 and L1 are then exact in f32, so answers must agree
/// to the last id; collisions and zero vectors are frequent.
fn case() -> impl Strategy<Value = Case> {
    (1usize..40, 0usize..200, 0usize..30, any::<u32>()).prop_flat_map(|(dim, count, k, base)| {
        let float = || (-3i8..=3).prop_map(f32::from);
        let mask = prop::option::of(prop::collection::vec(any::<bool>(), count));
        let rows = prop::collection::vec(float(), dim * count);
        (prop::collection::vec(float(), dim), rows, mask).prop_map(move |(query, rows, hidden)| {
            Case {
                dim,
                query,
                rows,
                hidden,
                k,
                base: u64::from(base),
            }
        })
    })
}

fn exact_key(metric: Metric, query: &[f32], row: &[f32]) -> f64 {
    let pairs = || {
        query
            .iter()
            .zip(row)
            .map(|(q, v)| (f64::from(*q), f64::from(*v)))
    };
    let dot: f64 = pairs().map(|(q, v)| q * v).sum();
    match metric {
        Metric::InnerProduct => -dot,
        Metric::L2 => pairs().map(|(q, v)| (q - v) * (q - v)).sum(),
        Metric::Manhattan => pairs().map(|(q, v)| (q - v).abs()).sum(),
        Metric::Cosine => {
            let q: f64 = pairs().map(|(q, _)| q * q).sum();
            let v: f64 = pairs().map(|(_, v)| v * v).sum();
            if q == 0.0 || v == 0.0 {
                1.0
            } else {
                (1.0 - dot / (q.sqrt() * v.sqrt())).clamp(0.0, 2.0)
            }
        }
    }
}

fn brute_force(metric: Metric, case: &Case) -> Vec<(f64, u64)> {
    let mut all: Vec<(f64, u64)> = case
        .rows
        .chunks_exact(case.dim)
        .enumerate()
        .filter(|(row, _)| !case.hidden.as_ref().is_some_and(|hidden| hidden[*row]))
        .map(|(row, values)| {
            (
                exact_key(metric, &case.query, values),
                case.base + row as u64,
            )
        })
        .collect();
    all.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
    all
}

fn scanned(query: &Query<'_>, case: &Case) -> Vec<(f32, u64)> {
    let norms: Vec<f32> = case
        .rows
        .chunks_exact(case.dim)
        .map(|row| (kernels().norm)(row))
        .collect();
    let mut top = TopK::new(case.k);
    let is_hidden = |row: u32| {
        case.hidden
            .as_ref()
            .is_some_and(|hidden| hidden[row as usize])
    };
    let hidden: Option<&dyn Fn(u32) -> bool> = case.hidden.as_ref().map(|_| &is_hidden as _);
    scan(query, &case.rows, &norms, hidden, case.base, &mut top);
    top.into_sorted()
}

proptest! {
    #[test]
    fn should_find_what_brute_force_finds_for_every_metric_and_instruction_set(case in case()) {
        for metric in Metric::ALL {
            let exact = brute_force(metric, &case);
            for kernels in KERNEL_NAMES.into_iter().filter_map(kernels_named) {
                let query = Query::with_kernels(metric, &case.query, kernels);
                let found = scanned(&query, &case);
                prop_assert_eq!(found.len(), exact.len().min(case.k));
                for (place, (key, id)) in found.iter().enumerate() {
                    let what = format!("{} {} place {place}", metric.name(), kernels.name);
                    if metric == Metric::Cosine {
                        // Equal angles round apart, so ids may trade places: the key
                        // must be the place's, and the id must really have it.
                        prop_assert!((f64::from(*key) - exact[place].0).abs() < 1e-5, "{}", what);
                        let own = exact.iter().find(|(_, other)| other == id).expect("a visible row");
                        prop_assert!((f64::from(*key) - own.0).abs() < 1e-5, "{}", what);
                    } else {
                        prop_assert_eq!((f64::from(*key), *id), exact[place], "{}", what);
                    }
                }
            }
        }
    }
}

#[test]
fn should_ask_the_mask_once_per_row() {
    let rows = vec![1.0f32; 200];
    for pattern in [
        |_| false,
        |_| true,
        |row| row % 2 == 0,
        |row: u32| row % 7 < 3,
    ] {
        let asked = RefCell::new(vec![]);
        let hidden = |row: u32| {
            asked.borrow_mut().push(row);
            pattern(row)
        };
        let mut top = TopK::new(1000);
        scan(
            &Query::new(Metric::L2, &[1.0, 1.0]),
            &rows,
            &[],
            Some(&hidden),
            0,
            &mut top,
        );
        assert_eq!(asked.into_inner(), (0..100).collect::<Vec<_>>());
        let visible: Vec<u64> = (0..100)
            .filter(|row| !pattern(*row))
            .map(u64::from)
            .collect();
        assert_eq!(
            top.into_sorted()
                .into_iter()
                .map(|(_, id)| id)
                .collect::<Vec<_>>(),
            visible
        );
    }
}

#[test]
fn should_never_answer_a_row_whose_key_is_nan() {
    let rows = [1.0, f32::NAN, 1.0, 2.0];
    for metric in Metric::ALL {
        let mut top = TopK::new(10);
        scan(
            &Query::new(metric, &[1.0, 1.0]),
            &rows,
            &[f32::NAN, 2.2],
            None,
            5,
            &mut top,
        );
        assert_eq!(
            top.into_sorted()
                .iter()
                .map(|(_, id)| *id)
                .collect::<Vec<_>>(),
            [6]
        );
    }
}

#[test]
fn should_scan_nothing_from_no_rows() {
    let mut top = TopK::new(3);
    scan(
        &Query::new(Metric::Cosine, &[1.0; 9]),
        &[],
        &[],
        None,
        0,
        &mut top,
    );
    assert!(top.is_empty());
}

#[test]
fn should_prefer_the_smaller_id_among_equal_keys_in_whatever_order_parts_are_scanned() {
    let rows = [1.0f32; 12];
    for bases in [[0, 100], [100, 0]] {
        let mut top = TopK::new(3);
        for base in bases {
            scan(
                &Query::new(Metric::L2, &[1.0, 2.0]),
                &rows,
                &[],
                None,
                base,
                &mut top,
            );
        }
        assert_eq!(top.into_sorted(), [(1.0, 0), (1.0, 1), (1.0, 2)]);
    }
}

#[test]
fn should_answer_rows_so_far_away_that_their_key_is_infinite() {
    let rows = [3e38f32, -3e38, 1.0, 1.0];
    let mut top = TopK::new(5);
    scan(
        &Query::new(Metric::L2, &[0.0, 0.0]),
        &rows,
        &[],
        None,
        0,
        &mut top,
    );
    assert_eq!(top.into_sorted(), [(2.0, 1), (f32::INFINITY, 0)]);
}
