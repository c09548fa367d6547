//! AVX2 with FMA: eight lanes, tails by `vmaskmov`.

use super::{avx2_codes, avx2_select};
use crate::arch::generic::{Vector, kernel_table};
use core::arch::x86_64::*;

kernel_table!("avx2", F32x8, "avx2,fma", avx2_codes, avx2_select);

#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// `TAIL_MASKS[8 − n..]` has its first n lanes set: the mask of an n-float tail.
static TAIL_MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Vector for F32x8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller runs on a CPU with AVX2 and FMA.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller provides 8 readable floats; the load is unaligned.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_tail(from: *const f32, n: usize) -> Self {
        debug_assert!(n < 8);
        // SAFETY: n < 8, so the mask lies inside TAIL_MASKS; lanes whose mask is
        // clear are not read, and the caller provides n readable floats.
        Self(unsafe {
            let mask = _mm256_loadu_si256(TAIL_MASKS.as_ptr().add(8 - n).cast());
            _mm256_maskload_ps(from, mask)
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller provides room for 8 floats; the store is unaligned.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with AVX2 and FMA.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn hadamard_lanes(self) -> Self {
        // SAFETY: as above. In each step a lane adds its partner to itself, or
        // to its own negation where it is the upper of the two.
        unsafe {
            let odd = _mm256_setr_ps(0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0);
            let pairs = _mm256_setr_ps(0.0, 0.0, -0.0, -0.0, 0.0, 0.0, -0.0, -0.0);
            let halves = _mm256_setr_ps(0.0, 0.0, 0.0, 0.0, -0.0, -0.0, -0.0, -0.0);
            let x = self.0;
            let x = _mm256_add_ps(_mm256_permute_ps::<0b10_11_00_01>(x), _mm256_xor_ps(x, odd));
            let x = _mm256_add_ps(
                _mm256_permute_ps::<0b01_00_11_10>(x),
                _mm256_xor_ps(x, pairs),
            );
            let swapped = _mm256_permute2f128_ps::<1>(x, x);
            Self(_mm256_add_ps(swapped, _mm256_xor_ps(x, halves)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with AVX2 and FMA.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above. Clears the sign bits.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above. 8 → 4 → 2 → 1 lanes.
        unsafe {
            let four = _mm_add_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
            _mm_cvtss_f32(one)
        }
    }

    #[inline(always)]
    unsafe fn sum_each(four: [Self; 4]) -> [f32; 4] {
        // SAFETY: as above.
        unsafe { sum_each([four[0].0, four[1].0, four[2].0, four[3].0]) }
    }

    #[inline(always)]
    unsafe fn prefetch_two(at: *const f32) {
        // SAFETY: a prefetch of one cache line never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
}

/// The sum of each of four registers by three horizontal adds: within each half,
/// pairs of a and b, of c and d, then pairs of those; then the halves.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn sum_each([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let mut sums = [0.0; 4];
    // SAFETY: the caller vouches for AVX2; `sums` has room for four floats.
    unsafe {
        let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let low = _mm256_castps256_ps128(halves);
        let high = _mm256_extractf128_ps::<1>(halves);
        _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(low, high));
    }
    sums
}
