//! The limit below which the smallest n of many values lie, by counting.
//!
//! A heap or a sort moves values about; counting how many lie below a guess reads
//! them once, sixteen at a time. Guesses go by where the counts suggest, and every
//! third halves the floats that are left, by their order and not by their size: a
//! single huge value would otherwise keep the interval wide. Some six passes for
//! thousands of values.

use crate::kernels::Kernels;

/// Lanes of comparisons: what one AVX-512 register holds.
const LANES: usize = 16;

/// Every third pass halves what is left of the 2³² floats: 33 of them always end.
const PASSES_MAX: usize = 3 * 33;

/// A limit such that at least `n` values are ≤ it, and at most `n + slack` unless
/// equal values stand in the way. +∞ where fewer than `n` values are comparable.
/// O(values · passes).
pub fn limit_of_smallest(kernels: &Kernels, values: &[f32], n: usize, slack: usize) -> f32 {
    if n == 0 {
        return f32::NEG_INFINITY;
    }
    if n >= values.len() {
        return f32::INFINITY;
    }
    let (least, most) = extremes(values);
    // Invariant: below < n values are ≤ low, within ≥ n are ≤ high; both ends are
    // places in the order of floats, so that an end can lie before the least value.
    let (mut low, mut high) = (order_of(least) - 1, order_of(most));
    let (mut below, mut within) = (0, (kernels.count_le)(values, most));
    if within < n {
        return f32::INFINITY;
    }
    for pass in 0..PASSES_MAX {
        if within <= n + slack || i64::from(high) - i64::from(low) <= 1 {
            break;
        }
        let guess = if pass % 3 == 2 {
            low.midpoint(high)
        } else {
            let share = (n + slack / 2 - below) as f32 / (within - below) as f32;
            // Each end is weighed by itself: their difference may overflow.
            let between = from_order(low) * (1.0 - share) + from_order(high) * share;
            order_of(between).clamp(low + 1, high - 1)
        };
        let count = (kernels.count_le)(values, from_order(guess));
        if count >= n {
            (high, within) = (guess, count);
        } else {
            (low, below) = (guess, count);
        }
    }
    from_order(high)
}

/// The least and the largest value, NaN aside; by lanes, since a single chain of
/// comparisons would wait for each one.
fn extremes(values: &[f32]) -> (f32, f32) {
    let mut least = [f32::INFINITY; LANES];
    let mut most = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut last = [f32::NAN; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for chunk in whole.iter().chain([&last]) {
        for lane in 0..LANES {
            // Comparisons with NaN fail and keep what was there.
            let value = chunk[lane];
            least[lane] = if value < least[lane] {
                value
            } else {
                least[lane]
            };
            most[lane] = if value > most[lane] {
                value
            } else {
                most[lane]
            };
        }
    }
    (
        least.into_iter().fold(f32::INFINITY, f32::min),
        most.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// The place of a float among all floats: its bits, with negative ones reversed.
fn order_of(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    if bits < 0 { i32::MIN - bits } else { bits }
}

/// The float at a place.
fn from_order(order: i32) -> f32 {
    f32::from_bits(if order < 0 { i32::MIN - order } else { order } as u32)
}

#[cfg(test)]
mod tests {
    use super::limit_of_smallest;
    use crate::kernels::{KERNEL_NAMES, kernels_named};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn should_enclose_n_values_and_few_more(
            values in prop::collection::vec(prop_oneof![
                8 => (-1000i32..1000).prop_map(|x| x as f32 / 7.0),
                1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(-3.0e38f32), 1 => Just(3.0e38f32),
            ], 0..400),
            n in 0usize..420,
            slack in 0usize..20,
        ) {
            for kernels in KERNEL_NAMES.into_iter().filter_map(kernels_named) {
                let limit = limit_of_smallest(kernels, &values, n, slack);
                let count = values.iter().filter(|value| **value <= limit).count();
                let comparable = values.iter().filter(|value| !value.is_nan()).count();
                prop_assert!(count >= n.min(comparable), "{} within of {n}", count);
                let mut sorted: Vec<f32> = values.iter().copied().filter(|x| !x.is_nan()).collect();
                sorted.sort_by(f32::total_cmp);
                if n > 0 && n < sorted.len() {
                    // Only values equal to the last one within may be too many.
                    let last = sorted[(n + slack).min(sorted.len()) - 1];
                    let ties = sorted.iter().filter(|x| **x <= last).count();
                    prop_assert!(count <= ties.max(n + slack), "{count} within of {n} + {slack}");
                }
            }
        }
    }
}
