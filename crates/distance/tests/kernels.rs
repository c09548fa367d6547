//! Every kernel of every instruction set this CPU has, against an f64 reference.

use proptest::prelude::*;
use vexlake_distance::{KERNEL_NAMES, Kernels, kernels, kernels_named};

/// Floats of slack before a slice, so that starts fall on every 4-byte offset of
/// a 64-byte line.
const STARTS: [usize; 5] = [0, 1, 3, 7, 13];

fn tables() -> Vec<&'static Kernels> {
    KERNEL_NAMES.into_iter().filter_map(kernels_named).collect()
}

fn dims() -> impl Iterator<Item = usize> {
    (0..=130).chain([768, 1000, 1536])
}

/// A cheap, seeded stream of floats in [−1, 1).
fn floats(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

type Reference = fn(f64, f64) -> f64;
const DOT: Reference = |x, y| x * y;
const L2: Reference = |x, y| (x - y) * (x - y);
const L1: Reference = |x, y| (x - y).abs();

/// The exact sum, and the sum of the terms' magnitudes, by which errors scale.
fn reference(term: Reference, a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = || {
        a.iter()
            .zip(b)
            .map(|(x, y)| term(f64::from(*x), f64::from(*y)))
    };
    (terms().sum(), terms().map(f64::abs).sum())
}

#[track_caller]
fn assert_near(actual: f32, (exact, magnitude): (f64, f64), what: &str) {
    let actual = f64::from(actual);
    if exact.is_nan() || exact.is_infinite() {
        assert!(
            actual == exact || (actual.is_nan() && exact.is_nan()),
            "{what}: {actual} instead of {exact}"
        );
        return;
    }
    // 2⁻²⁴ per rounding, at most dim / lanes + log2(lanes) roundings deep;
    // 1536 / 8 + 8 = 200 of them, each relative to the magnitudes summed.
    let bound = magnitude * 200.0 * 2f64.powi(-24) + 1e-30;
    assert!(
        (actual - exact).abs() <= bound,
        "{what}: {actual} instead of {exact}"
    );
}

fn assert_all(table: &Kernels, a: &[f32], b: &[f32], what: &str) {
    let what = format!("{} {what}", table.name);
    assert_near((table.dot)(a, b), reference(DOT, a, b), &what);
    assert_near((table.l2)(a, b), reference(L2, a, b), &what);
    assert_near((table.l1)(a, b), reference(L1, a, b), &what);
    let (squares, _) = reference(DOT, a, a);
    assert_near((table.norm)(a), (squares.sqrt(), squares.sqrt()), &what);
    let (sum, magnitude) = reference(|x, _| x, a, a);
    let magnitude = magnitude.max(a.iter().map(|x| f64::from(x.abs())).sum());
    assert_near((table.sum)(a), (sum, magnitude), &what);
}

#[test]
fn should_choose_one_table_and_always_have_the_scalar_one() {
    assert!(std::ptr::eq(kernels(), kernels()));
    assert!(kernels_named("scalar").is_some());
    assert!(kernels_named("mmx").is_none());
    assert_eq!(kernels().name, tables()[0].name);
    println!("kernels: {:?}", tables());
}

#[test]
fn should_match_the_f64_reference_for_every_dimension_and_start() {
    for table in tables() {
        for dim in dims() {
            for start in STARTS {
                let (a, b) = (
                    floats(dim as u64 + 1, start + dim),
                    floats(dim as u64 + 7, start + dim),
                );
                assert_all(
                    table,
                    &a[start..],
                    &b[start..],
                    &format!("dim {dim} start {start}"),
                );
            }
        }
    }
}

#[test]
fn should_read_no_float_beyond_the_slices() {
    for table in tables() {
        for dim in dims() {
            // A NaN right before and after each slice poisons any read outside.
            let guard = |seed| {
                let mut all = vec![f32::NAN];
                all.extend(floats(seed, dim));
                all.extend([f32::NAN; 16]);
                all
            };
            let (a, b) = (guard(3), guard(4));
            assert_all(table, &a[1..=dim], &b[1..=dim], &format!("dim {dim}"));
        }
    }
}

#[test]
fn should_carry_nan_and_infinity_from_any_place() {
    for table in tables() {
        for dim in dims().filter(|dim| *dim > 0) {
            for at in [0, dim / 3, dim / 2, dim - 1] {
                for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let (mut a, mut b) = (floats(5, dim), floats(6, dim));
                    a[at] = odd;
                    assert_all(table, &a, &b, &format!("dim {dim} a[{at}] = {odd}"));
                    b[at] = odd;
                    assert_all(table, &a, &b, &format!("dim {dim} both[{at}] = {odd}"));
                }
            }
        }
    }
}

#[test]
fn should_give_each_row_what_the_pair_kernel_gives() {
    for table in tables() {
        for dim in dims().filter(|dim| *dim > 0) {
            for count in (0..=9).chain([64]) {
                let start = STARTS[count % STARTS.len()];
                let query = floats(11, start + dim);
                let mut rows = floats(12, start + dim * count);
                if count > 2 {
                    rows[start + 2 * dim] = f32::NAN;
                }
                let (query, rows) = (&query[start..], &rows[start..]);
                let kernels: [(_, _, Reference); 3] = [
                    (table.dot_rows, "dot", DOT),
                    (table.l2_rows, "l2", L2),
                    (table.l1_rows, "l1", L1),
                ];
                for (kernel, name, term) in kernels {
                    let mut out = vec![f32::MAX; count];
                    kernel(query, rows, &mut out);
                    for (row, out) in out.iter().enumerate() {
                        let what = format!("{} {name} dim {dim} row {row} of {count}", table.name);
                        assert_near(
                            *out,
                            reference(term, query, &rows[row * dim..(row + 1) * dim]),
                            &what,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn should_keep_the_norm_of_very_large_and_very_small_vectors() {
    for table in tables() {
        for scale in [1e-38f32, 1e-25, 1e-18, 1.0, 1e18, 1e30] {
            for dim in [1, 3, 16, 100] {
                let a: Vec<f32> = vec![scale; dim];
                let exact = f64::from(scale) * (dim as f64).sqrt();
                let actual = f64::from((table.norm)(&a));
                assert!(
                    (actual - exact).abs() <= exact * 1e-6,
                    "{} {scale}: {actual}",
                    table.name
                );
            }
        }
        assert_eq!((table.norm)(&[0.0; 20]), 0.0);
        assert_eq!((table.norm)(&[]), 0.0);
    }
}

#[test]
fn should_panic_on_shapes_that_do_not_fit_rather_than_read_beyond() {
    std::panic::set_hook(Box::new(|_| {}));
    for table in tables() {
        let pairs = [table.dot, table.l2, table.l1];
        for pair in pairs {
            assert!(std::panic::catch_unwind(|| pair(&[1.0; 9], &[1.0; 8])).is_err());
        }
        for rows in [table.dot_rows, table.l2_rows, table.l1_rows] {
            assert!(
                std::panic::catch_unwind(|| rows(&[1.0; 4], &[1.0; 15], &mut [0.0; 4])).is_err()
            );
        }
    }
    let _ = std::panic::take_hook();
}

proptest! {
    #[test]
    fn should_agree_between_instruction_sets_on_small_integers(
        (a, b) in (0usize..300).prop_flat_map(|dim| {
            let side = || prop::collection::vec((-64i8..64).prop_map(f32::from), dim);
            (side(), side())
        }),
    ) {
        // Sums of small integers are exact in f32, whatever the order of adding.
        for table in tables() {
            prop_assert_eq!(f64::from((table.dot)(&a, &b)), reference(DOT, &a, &b).0);
            prop_assert_eq!(f64::from((table.l2)(&a, &b)), reference(L2, &a, &b).0);
            prop_assert_eq!(f64::from((table.l1)(&a, &b)), reference(L1, &a, &b).0);
        }
    }
}
