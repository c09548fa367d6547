//! NEON: four lanes. It has no masked load, so tails go through an array.

#![allow(
    unused_unsafe,
    reason = "NEON is part of the aarch64 baseline, where its intrinsics are safe to call"
)]

use crate::arch::generic::{Vector, kernel_table};
use core::arch::aarch64::*;

kernel_table!("neon", F32x4, "neon");

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
