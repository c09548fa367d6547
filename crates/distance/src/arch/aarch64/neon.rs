//! NEON: four lanes. It has no masked load, so tails go through an array.

#![allow(
    unused_unsafe,
    reason = "NEON is part of the aarch64 baseline, where its intrinsics are safe to call"
)]

use super::{neon_codes, neon_select};
use crate::arch::generic::{Vector, kernel_table};
use core::arch::aarch64::*;

kernel_table!("neon", F32x4, "neon", neon_codes, neon_select);

#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

impl Vector for F32x4 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller runs on a CPU with NEON.
        Self(unsafe { vdupq_n_f32(0.0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller provides 4 readable floats; the load needs no more
        // than f32's own alignment.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn load_tail(from: *const f32, n: usize) -> Self {
        debug_assert!(n < 4);
        let mut lanes = [0.0f32; 4];
        // SAFETY: n < 4 floats are readable by the caller's promise and fit the
        // array, which is then read whole.
        Self(unsafe {
            core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
            vld1q_f32(lanes.as_ptr())
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller provides room for 4 floats; the store is unaligned.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with NEON.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn hadamard_lanes(self) -> Self {
        const ODD: [u32; 4] = [0, 1 << 31, 0, 1 << 31];
        const UPPER: [u32; 4] = [0, 0, 1 << 31, 1 << 31];
        // SAFETY: as above. In each step a lane adds its partner to itself, or
        // to its own negation where it is the upper of the two.
        unsafe {
            let flip = |x: float32x4_t, signs: &[u32; 4]| {
                let signs = vld1q_u32(signs.as_ptr());
                vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), signs))
            };
            let x = vaddq_f32(vrev64q_f32(self.0), flip(self.0, &ODD));
            Self(vaddq_f32(vextq_f32::<2>(x, x), flip(x, &UPPER)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller runs on a CPU with NEON.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { vabsq_f32(self.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { vaddvq_f32(self.0) }
    }
}
