//! AVX-512F: sixteen lanes, tails by mask registers. The table as a whole asks
//! for what Ice Lake and Zen 4 brought (see `kernels_named`).

use super::{avx512_codes, avx512_select};
use crate::arch::generic::{Vector, kernel_table};
use core::arch::x86_64::*;

kernel_table!(
    "avx512",
    F32x16,
    "avx512f,avx512bw,avx512vl",
    avx512_codes,
    avx512_select
);

#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

impl Vector for F32x16 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller runs on a CPU with AVX-512F.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller provides 16 readable floats; the load is unaligned.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_tail(from: *const f32, n: usize) -> Self {
        debug_assert!(n < 16);
        // SAFETY: lanes whose mask bit is clear are neither read nor faulted on;
        // the caller provides n readable floats.
        Self(unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller provides room for 16 floats; the store is unaligned.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with AVX-512F.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn hadamard_lanes(self) -> Self {
        // SAFETY: as above. In each step a lane adds its partner to itself, or
        // is subtracted from it where it is the upper of the two.
        unsafe {
            let x = self.0;
            let y = _mm512_permute_ps::<0b10_11_00_01>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(y, x), 0xaaaa, y, x);
            let y = _mm512_permute_ps::<0b01_00_11_10>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(y, x), 0xcccc, y, x);
            let y = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(y, x), 0xf0f0, y, x);
            let y = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            Self(_mm512_mask_sub_ps(_mm512_add_ps(y, x), 0xff00, y, x))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with AVX-512F.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn sum_each([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: as above; AVX-512F implies AVX2.
        unsafe { super::avx2::sum_each([a.halved(), b.halved(), c.halved(), d.halved()]) }
    }

    #[inline(always)]
    unsafe fn prefetch_two(at: *const f32) {
        // SAFETY: a prefetch of two cache lines never faults, whatever the address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(16).cast());
        }
    }
}

impl F32x16 {
    /// The upper half added to the lower.
    ///
    /// # Safety
    /// The CPU has AVX-512F.
    #[inline(always)]
    unsafe fn halved(self) -> __m256 {
        // SAFETY: the caller vouches for AVX-512F.
        unsafe {
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm256_castpd_ps(high))
        }
    }
}
