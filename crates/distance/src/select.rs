//! The limit below which the smallest n of many values lie, by counting.
//!
//! A heap or a sort moves values about; counting how many lie below a guess reads
//! them once, sixteen at a time. The guess halves an interval, first by where the
//! counts suggest, then by the middle: some six passes for thousands of values.

use crate::kernels::Kernels;

/// Passes of counting. Halving the order of all floats takes 32 at most.
const PASSES_MAX: usize = 40;

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
    let (mut low, mut high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    let (mut below, mut within) = (0, (kernels.count_le)(values, high));
    if within < n {
        return f32::INFINITY;
    }
    // Invariant: count(≤ high) = within ≥ n; fewer than n values are < low or
    // count(≤ low) = below < n once low has moved.
    for pass in 0..PASSES_MAX {
        if within <= n + slack || low >= high {
            break;
        }
        let guess = guess(low, high, below, within, n + slack / 2, pass);
        let count = (kernels.count_le)(values, guess);
        if count >= n {
            if guess >= high {
                break;
            }
            (high, within) = (guess, count);
        } else {
            if guess <= low && pass > 0 {
                break;
            }
            (low, below) = (guess, count);
        }
    }
    high
}

/// Between low and high: by the counts at first, by the middle in turn, so that
/// neither a skew nor a crowd of equal values can keep the interval wide.
fn guess(low: f32, high: f32, below: usize, within: usize, wanted: usize, pass: usize) -> f32 {
    let share = if pass % 3 == 2 {
        0.5
    } else {
        (wanted - below) as f32 / (within - below) as f32
    };
    // Each end is weighed by itself: high − low may overflow.
    let between = low * (1.0 - share) + high * share;
    between.clamp(low, high)
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
                    // Whatever is beyond n + slack is equal to what is within, or so
                    // near that floats at this size cannot be told apart by halving.
                    let ties = sorted.iter().filter(|x| **x <= sorted[(n + slack).min(sorted.len()) - 1]).count();
                    prop_assert!(count <= ties.max(n + slack) || limit.abs() > 1e30 || sorted[0].abs() > 1e30 || sorted[sorted.len() - 1] > 1e30,
                        "{count} within of {n} + {slack}");
                }
            }
        }
    }
}
