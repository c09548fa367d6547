//! The fast Walsh–Hadamard transform over any vector register.
//!
//! 1. One pass multiplies by the signs and transforms within each register.
//! 2. Each further pass takes two strides at once, so that a float is loaded and
//!    stored half as often; the last pass takes one stride where they are odd.
//!
//! Invariant: strides run upwards and every sum adds the same two floats as the
//! reference does, without fused operations: all instruction sets give the same
//! bits, which codes on disk rely on.

use crate::arch::generic::Vector;
use crate::codes::assert_transformable;

/// x ← H · (signs ∘ x), not normalised.
///
/// # Safety
/// The CPU has V's features. Panics unless both slices have the same length, a
/// power of two no less than [`crate::CODE_DIM_STEP`].
#[inline(always)]
pub(crate) unsafe fn transform<V: Vector>(signs: &[f32], x: &mut [f32]) {
    assert_transformable(signs, x);
    let n = x.len();
    let (signs, x) = (signs.as_ptr(), x.as_mut_ptr());
    // SAFETY: n is a multiple of 64, hence of LANES; every load and store below
    // covers LANES floats at an index ≤ n − LANES; the caller vouches for the
    // features.
    unsafe {
        for i in (0..n).step_by(V::LANES) {
            let flipped = V::load(x.add(i)).mul(V::load(signs.add(i)));
            flipped.hadamard_lanes().store(x.add(i));
        }
        let mut stride = V::LANES;
        while 4 * stride <= n {
            for group in (0..n).step_by(4 * stride) {
                for i in (group..group + stride).step_by(V::LANES) {
                    let (at_a, at_b) = (x.add(i), x.add(i + stride));
                    let (at_c, at_d) = (x.add(i + 2 * stride), x.add(i + 3 * stride));
                    let (a, b) = (V::load(at_a), V::load(at_b));
                    let (c, d) = (V::load(at_c), V::load(at_d));
                    let (sum_ab, diff_ab) = (a.add(b), a.sub(b));
                    let (sum_cd, diff_cd) = (c.add(d), c.sub(d));
                    sum_ab.add(sum_cd).store(at_a);
                    diff_ab.add(diff_cd).store(at_b);
                    sum_ab.sub(sum_cd).store(at_c);
                    diff_ab.sub(diff_cd).store(at_d);
                }
            }
            stride *= 4;
        }
        if stride < n {
            for i in (0..stride).step_by(V::LANES) {
                let (low, high) = (x.add(i), x.add(i + stride));
                let (a, b) = (V::load(low), V::load(high));
                a.add(b).store(low);
                a.sub(b).store(high);
            }
        }
    }
}
