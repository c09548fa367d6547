//! The space in which lists and codes live: rotated, centred, and for cosine of
//! unit length. One per incarnation of a collection, for its whole life.
//!
//! A vector x is scaled to unit length (cosine only), the origin is taken off, the
//! rest is rotated. Distances are kept, so centroids, rows and queries need only
//! ever meet here. The origin is the mean of the first training sample: without
//! it a common offset would use up the query's few bits per coordinate.
//!
//! Keys are those of [`Metric`]: L2 |q−o|², cosine ½|q−o|² of unit vectors (which
//! is 1 − cos), inner product −⟨q, o⟩.

use crate::IndexError;
use vexlake_distance::{Kernels, Metric, Rotation, kernels};

/// The longest vector that codes serve: its square and sums of squares stay far
/// from f32's end (1e32 · 4 < 3e38). Longer rows have no code: see
/// [`Factors::of_too_long`](crate::Factors::of_too_long). Longer queries scan exactly.
pub const NORM_MAX: f32 = 1e16;

/// The dimension that codes serve at most: the same as a collection's.
pub const DIM_MAX: usize = 65_536;

/// See the module.
#[derive(Clone, Debug)]
pub struct Space {
    metric: Metric,
    seed: u64,
    origin: Vec<f32>,
    rotation: Rotation,
    rotated_origin: Vec<f32>,
    kernels: &'static Kernels,
}

impl Space {
    /// The space of vectors of `origin.len()` floats. Manhattan has none: its
    /// distances do not survive a rotation.
    pub fn new(metric: Metric, seed: u64, origin: Vec<f32>) -> Result<Self, IndexError> {
        Self::with_kernels(metric, seed, origin, kernels())
    }

    /// As [`Space::new`] with the kernels of the caller's choice, for tests.
    pub fn with_kernels(
        metric: Metric,
        seed: u64,
        origin: Vec<f32>,
        kernels: &'static Kernels,
    ) -> Result<Self, IndexError> {
        if metric == Metric::Manhattan {
            return Err(IndexError::BeyondCodes("the metric l1"));
        }
        if origin.is_empty() || origin.len() > DIM_MAX {
            return Err(IndexError::BeyondCodes("the dimension"));
        }
        if !origin_fits(kernels, &origin) {
            return Err(IndexError::BeyondCodes("an origin so far away"));
        }
        let rotation = Rotation::new(origin.len(), seed);
        let mut rotated_origin = origin.clone();
        rotated_origin.resize(rotation.code_dim(), 0.0);
        rotation.apply(kernels, &mut rotated_origin);
        Ok(Self {
            metric,
            seed,
            origin,
            rotation,
            rotated_origin,
            kernels,
        })
    }

    /// The collection's metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The rotation's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What is taken off every vector.
    pub fn origin(&self) -> &[f32] {
        &self.origin
    }

    /// Floats of a vector as received.
    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Floats of a vector in this space, bits of a code: a multiple of 64.
    pub fn code_dim(&self) -> usize {
        self.rotation.code_dim()
    }

    /// The kernels that this space computes with.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// What a squared distance is multiplied by to give a key.
    pub(crate) fn key_scale(&self) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::InnerProduct => 0.5,
            Metric::L2 | Metric::Manhattan => 1.0,
        }
    }

    /// The same space with keys that are distances.
    pub(crate) fn by_distance(&self) -> Self {
        let metric = match self.metric {
            Metric::InnerProduct => Metric::L2,
            other => other,
        };
        Self {
            metric,
            ..self.clone()
        }
    }

    /// x + origin, of a vector in this space.
    pub(crate) fn own(&self, rotated: &[f32]) -> Vec<f32> {
        let pairs = rotated.iter().zip(&self.rotated_origin);
        pairs.map(|(x, o)| x + o).collect()
    }

    /// |x + origin|² of a vector in this space: the square of its own length.
    pub(crate) fn own_square(&self, rotated: &[f32]) -> f32 {
        let pairs = rotated.iter().zip(&self.rotated_origin);
        pairs.map(|(x, o)| (x + o) * (x + o)).sum()
    }

    /// ⟨x, y + origin⟩ of two vectors in this space.
    pub(crate) fn dot_with_own(&self, x: &[f32], y: &[f32]) -> f32 {
        (self.kernels.dot)(x, y) + (self.kernels.dot)(x, &self.rotated_origin)
    }

    /// Writes the vector in this space's coordinates into `out` (`code_dim`
    /// floats). False where it is too long or not finite: `out` is then zero.
    pub fn enter(&self, vector: &[f32], out: &mut [f32]) -> bool {
        assert_eq!(vector.len(), self.dim(), "a vector of another dimension");
        let norm = (self.kernels.norm)(vector);
        // Also false for NaN.
        if !(norm <= NORM_MAX || (self.metric == Metric::Cosine && norm < f32::INFINITY)) {
            out.fill(0.0);
            return false;
        }
        let (body, padding) = out.split_at_mut(vector.len());
        padding.fill(0.0);
        if self.metric == Metric::Cosine && norm > 0.0 {
            // Divided, not multiplied by 1 / norm: that would overflow for the
            // shortest vectors.
            for ((out, x), origin) in body.iter_mut().zip(vector).zip(&self.origin) {
                *out = x / norm - origin;
            }
        } else {
            for ((out, x), origin) in body.iter_mut().zip(vector).zip(&self.origin) {
                *out = x - origin;
            }
        }
        self.rotation.apply(self.kernels, out);
        true
    }
}

/// Also false where the norm is NaN.
fn origin_fits(kernels: &Kernels, origin: &[f32]) -> bool {
    (kernels.norm)(origin) <= NORM_MAX
}
