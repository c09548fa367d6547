//! RaBitQ: one bit per dimension and two floats per row, from which a query
//! estimates its key with a bound on the error.
//!
//! With c the list's centroid, r = o − c the rotated residual of row o, s = sign r:
//! 1. x = s/√d keeps u = ⟨x, r/|r|⟩ of the residual's direction; for any v
//!    ⟨r, v⟩ ≈ |r|² / ⟨s, r⟩ · ⟨s, v⟩ is unbiased over rotations.
//! 2. |q−o|² = |q−c|² + |r|² − 2⟨r, q−c⟩ gives
//!    est = a + |q−c|² − b·⟨s, q⟩, b = 2|r|²/⟨s, r⟩, a = |r|² + b·⟨s, c⟩:
//!    the centroid's part lies in `a`, so ⟨s, q⟩ needs one table per query, shared
//!    by all lists and segments. Cosine takes half of all of it. For the inner
//!    product −⟨q, o⟩ = −⟨q, c⟩ − ⟨r, c⟩ − ⟨r, q−c⟩ gives the same form with
//!    b = |r|²/⟨s, r⟩, a = b·⟨s, c⟩ − ⟨r, c⟩, and −⟨q, c⟩ for |q−c|².
//! 3. The part of x across r is √(1−u²) =: spread long and meets q−c at random:
//!    ⟨s, q−c⟩ errs by spread · |q−c| · √(d/(d−1)) as one standard deviation. That
//!    is the same scale as b's: a list keeps the largest spread of its rows, and
//!    a bound costs no byte per row.
//!
//! Source: Gao and Long, "RaBitQ" (SIGMOD 2024); folding the centroid into the
//! factors follows its authors' library and faiss.

use crate::space::{NORM_MAX, Space};
use vexlake_distance::{CodeSums, Metric};

/// What goes with a row's bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// The row's part of the key.
    pub a: f32,
    /// What ⟨s, q⟩ is multiplied by; never negative.
    pub b: f32,
    /// √(1−u²), 0..=1: one standard deviation of the error, relative to |q−c|.
    pub spread: f32,
}

impl Factors {
    /// Factors of a row that codes cannot tell anything about: its bound lies below
    /// every limit, so it is always looked at exactly.
    pub const UNBOUNDED: Factors = Factors {
        a: f32::MIN,
        b: 0.0,
        spread: 0.0,
    };

    /// Factors of a row that is too long for the space. By L2 it is far from every query
    /// that codes serve, and how far at least is its bound: without it such rows would
    /// take the exact looks of those that are near. By inner product it may as well be
    /// the first.
    pub fn of_too_long(space: &Space, row: &[f32]) -> Factors {
        if space.metric() != Metric::L2 {
            return Self::UNBOUNDED;
        }
        let longest = f64::from(NORM_MAX);
        let gap = f64::from((space.kernels().norm)(row)) - longest;
        // What is added for the list is |q−c|²: query, origin and centroid are no longer
        // than `longest`, the last around the origin, so 4 · `longest` bounds |q−c|.
        let least = gap * gap - (4.0 * longest).powi(2);
        if least <= 0.0 {
            return Self::UNBOUNDED;
        }
        Factors {
            // A little less, for rounding; finite with what is added.
            a: (0.999 * least).min(f64::from(f32::MAX) / 2.0) as f32,
            b: 0.0,
            spread: 0.0,
        }
    }
}

/// Writes the bits of a row's residual and answers its factors. `row` and
/// `centroid` lie in the space; `code` has `code_dim / 8` bytes. O(dim).
pub fn encode(space: &Space, row: &[f32], centroid: &[f32], code: &mut [u8]) -> Factors {
    let dim = space.code_dim();
    assert!(row.len() == dim && centroid.len() == dim && code.len() == dim / 8);
    let CodeSums {
        square,
        sum,
        signed_centroid,
    } = (space.kernels().code_of)(row, centroid, code);
    if square == 0.0 {
        return at_centroid();
    }
    let ratio = square / sum;
    let kept = sum / (square * dim as f32).sqrt();
    let spread = (1.0 - kept * kept).clamp(0.0, 1.0).sqrt();
    let (a, b) = match space.metric() {
        Metric::InnerProduct => {
            let own = space.dot_with_own(row, centroid) - space.dot_with_own(centroid, centroid);
            (ratio * signed_centroid - own, ratio)
        }
        _ => {
            let b = 2.0 * ratio * space.key_scale();
            (square * space.key_scale() + b * signed_centroid, b)
        }
    };
    if a.is_finite() && b.is_finite() && spread.is_finite() {
        Factors { a, b, spread }
    } else {
        Factors::UNBOUNDED
    }
}

/// A row on its centroid: the key is the centroid's own.
fn at_centroid() -> Factors {
    Factors {
        a: 0.0,
        b: 0.0,
        spread: 0.0,
    }
}
