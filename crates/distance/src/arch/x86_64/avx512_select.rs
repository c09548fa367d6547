//! Selection by compare masks and compress, int8 products by VNNI.

use core::arch::x86_64::*;

/// f32 or u32 lanes of a register.
const LANES: usize = 16;

/// See [`crate::Kernels::count_le`].
pub(super) fn count_le(values: &[f32], limit: f32) -> usize {
    // SAFETY: reachable only through the table, which `kernels_named` hands out
    // after it detected these features.
    unsafe { count_of(values, limit) }
}

#[target_feature(enable = "avx512f,popcnt")]
fn count_of(values: &[f32], limit: f32) -> usize {
    let limit = _mm512_set1_ps(limit);
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut count = 0;
    for sixteen in whole {
        // SAFETY: sixteen readable floats.
        let lanes = unsafe { _mm512_loadu_ps(sixteen.as_ptr()) };
        count += _mm512_cmp_ps_mask::<_CMP_LE_OQ>(lanes, limit).count_ones();
    }
    count as usize + crate::arch::scalar_select::count_le(rest, _mm512_cvtss_f32(limit))
}

/// See [`crate::Kernels::positions_le`].
pub(super) fn positions_le(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    assert!(positions.len() >= values.len(), "room for every position");
    // SAFETY: as above.
    unsafe { positions_of(values, limit, positions) }
}

#[target_feature(enable = "avx512f,popcnt")]
fn positions_of(values: &[f32], limit: f32, positions: &mut [u32]) -> usize {
    let bound = _mm512_set1_ps(limit);
    let first = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut found = 0;
    for (turn, sixteen) in whole.iter().enumerate() {
        // SAFETY: sixteen readable floats.
        let lanes = unsafe { _mm512_loadu_ps(sixteen.as_ptr()) };
        let within = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(lanes, bound);
        if within != 0 {
            let base = turn * LANES;
            let at = _mm512_add_epi32(first, _mm512_set1_epi32(base as i32));
            // SAFETY: found ≤ base, and base + 16 ≤ values.len() ≤ positions.len():
            // a full store fits, and what it writes beyond `found` is not answered.
            // (Compressing straight to memory is far slower on Zen 4.)
            unsafe {
                let to = positions.as_mut_ptr().add(found).cast();
                _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(within, at));
            }
            found += within.count_ones() as usize;
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
    // SAFETY: as above; the lengths are equal.
    unsafe { dot_of(a, b) }
}

/// VNNI multiplies unsigned by signed bytes: a + 128 stands for a, and 128 · Σ b
/// is taken off at the end. Four products a lane: 4 · 255 · 128 · (65,536 / 64) =
/// 134 million, far from i32's end.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot_of(a: &[i8], b: &[i8]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let ones = _mm512_set1_epi8(1);
    let mut sum = _mm512_setzero_si512();
    let mut sum_b = _mm512_setzero_si512();
    let mut at = 0;
    while at < a.len() {
        let mask = u64::MAX >> (64 - (a.len() - at).min(64));
        // SAFETY: masked lanes are neither read nor faulted on; a tail's lanes
        // are 0 in b, so that they add nothing.
        let (x, y) = unsafe {
            (
                _mm512_maskz_loadu_epi8(mask, a.as_ptr().add(at)),
                _mm512_maskz_loadu_epi8(mask, b.as_ptr().add(at)),
            )
        };
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(x, flip), y);
        sum_b = _mm512_dpbusd_epi32(sum_b, ones, y);
        at += 64;
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, _mm512_slli_epi32::<7>(sum_b)))
}
