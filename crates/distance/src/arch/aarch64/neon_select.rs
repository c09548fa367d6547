//! Selection and int8 products with NEON. Compiled where its target is installed.

#![allow(
    unused_unsafe,
    reason = "NEON is part of the aarch64 baseline, where its intrinsics are safe to call"
)]

use crate::arch::scalar_select;
use core::arch::aarch64::*;

/// See [`crate::Kernels::count_le`].
pub(super) fn count_le(values: &[f32], limit: f32) -> usize {
    let (whole, rest) = values.as_chunks::<4>();
    // A lane counts to u32's end, far beyond the length of any slice it meets.
    // SAFETY: each load reads the four floats of its chunk.
    let count = unsafe {
        let bound = vdupq_n_f32(limit);
        let mut counts = vdupq_n_u32(0);
        for four in whole {
            // A lane within the limit is all ones: minus one.
            counts = vsubq_u32(counts, vcleq_f32(vld1q_f32(four.as_ptr()), bound));
        }
        vaddvq_u32(counts)
    };
    count as usize + scalar_select::count_le(rest, limit)
}

/// See [`crate::Kernels::positions_le`]. NEON has no compress: the branch-free
/// loop of the reference is as good.
pub(super) fn positions_le(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    scalar_select::positions_le(values, limit, positions)
}

/// See [`crate::Kernels::dot_i8`].
pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    let (a_whole, a_rest) = a.as_chunks::<16>();
    let (b_whole, b_rest) = b.as_chunks::<16>();
    // SAFETY: each load reads the sixteen bytes of its chunk.
    let sum = unsafe {
        let mut sum = vdupq_n_s32(0);
        for (x, y) in a_whole.iter().zip(b_whole) {
            let (x, y) = (vld1q_s8(x.as_ptr()), vld1q_s8(y.as_ptr()));
            sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(y)));
            sum = vpadalq_s16(sum, vmull_high_s8(x, y));
        }
        vaddvq_s32(sum)
    };
    sum + scalar_select::dot_i8(a_rest, b_rest)
}
