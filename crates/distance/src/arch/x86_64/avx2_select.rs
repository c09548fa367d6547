//! Selection by compare masks, int8 products by widening multiply-adds.

use core::arch::x86_64::*;

/// f32 lanes of a register.
const LANES: usize = 8;

/// See [`crate::Kernels::count_le`].
pub(super) fn count_le(values: &[f32], limit: f32) -> usize {
    // SAFETY: reachable only through the table, which `kernels_named` hands out
    // after it detected these features.
    unsafe { count_of(values, limit) }
}

#[target_feature(enable = "avx2,popcnt")]
fn count_of(values: &[f32], limit: f32) -> usize {
    let (whole, rest) = values.as_chunks::<LANES>();
    let count: u32 = whole
        .iter()
        .map(|eight| within(eight, limit).count_ones())
        .sum();
    count as usize + crate::arch::scalar_select::count_le(rest, limit)
}

/// Bit i set where lane i is at most the limit.
#[target_feature(enable = "avx2")]
#[inline]
fn within(eight: &[f32; LANES], limit: f32) -> u32 {
    // SAFETY: eight readable floats.
    let lanes = unsafe { _mm256_loadu_ps(eight.as_ptr()) };
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(lanes, _mm256_set1_ps(limit))) as u32
}

/// See [`crate::Kernels::positions_le`].
pub(super) fn positions_le(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    assert!(positions.len() >= values.len(), "room for every position");
    // SAFETY: as above.
    unsafe { positions_of(values, limit, positions) }
}

#[target_feature(enable = "avx2,popcnt,bmi1")]
fn positions_of(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut found = 0;
    for (turn, eight) in whole.iter().enumerate() {
        let mut within = within(eight, limit);
        while within != 0 {
            positions[found] = turn as u32 * LANES as u32 + within.trailing_zeros();
            found += 1;
            within &= within - 1;
        }
    }
    let base = whole.len() * LANES;
    for (i, value) in rest.iter().enumerate() {
        positions[found] = (base + i) as u32;
        found += usize::from(*value <= limit);
    }
    found
}

/// See [`crate::Kernels::dot_i8`].
pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    // SAFETY: as above.
    unsafe { dot_of(a, b) }
}

#[target_feature(enable = "avx2")]
fn dot_of(a: &[i8], b: &[i8]) -> i32 {
    let (a_whole, a_rest) = a.as_chunks::<16>();
    let (b_whole, b_rest) = b.as_chunks::<16>();
    let mut sum = _mm256_setzero_si256();
    for (x, y) in a_whole.iter().zip(b_whole) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(widen(x), widen(y)));
    }
    lanes_of(sum).iter().sum::<i32>() + crate::arch::scalar_select::dot_i8(a_rest, b_rest)
}

#[target_feature(enable = "avx2")]
#[inline]
fn widen(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: sixteen readable bytes; the load is unaligned.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[target_feature(enable = "avx2")]
#[inline]
fn lanes_of(sum: __m256i) -> [i32; 8] {
    let mut lanes = [0; 8];
    // SAFETY: room for eight i32; the store is unaligned.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    lanes
}
