//! A query prepared once for many scans: the metric, the vector, its norm.
//!
//! Cosine divides by both norms, which are factors beside the vectors and never
//! baked into them. Three cases need care, and all are decided here only:
//! - a zero vector has no direction: its distance to everything is 1;
//! - where |q|·|v| leaves f32's comfortable range, the f32 dot product of a cosine
//!   has overflowed or vanished, so that one row is computed again in f64;
//! - so is an inner product that overflowed on its way: its parts may cancel, and
//!   ∞ − ∞ would lose the row.
//!
//! A key that f32 cannot hold is infinite: such a row comes last, or first by inner
//! product.

use vexlake_distance::{Kernels, Metric, kernels};

/// |q|·|v| between these bounds keeps the f32 dot product meaningful: above, a
/// partial sum may overflow (dim · max|qᵢvᵢ| ≤ |q|·|v| · √dim, 1e34 · 256 <
/// 3e38 for dim 65,536); below, products become subnormal (1e-30 / 65,536 is
/// 1.5e-35, still normal).
const NORMS_PRODUCT_MIN: f32 = 1e-30;
const NORMS_PRODUCT_MAX: f32 = 1e34;

/// One query vector under one metric.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// How rows are compared with the vector.
    pub metric: Metric,
    /// The query's floats; rows must have the same dimension.
    pub vector: &'a [f32],
    norm: f32,
    kernels: &'static Kernels,
}

impl<'a> Query<'a> {
    /// Prepares a query with the widest kernels of this CPU. O(dim).
    pub fn new(metric: Metric, vector: &'a [f32]) -> Self {
        Self::with_kernels(metric, vector, kernels())
    }

    /// As [`Query::new`] with the kernels of the caller's choice, for tests and
    /// benches.
    pub fn with_kernels(metric: Metric, vector: &'a [f32], kernels: &'static Kernels) -> Self {
        let norm = (kernels.norm)(vector);
        Self {
            metric,
            vector,
            norm,
            kernels,
        }
    }

    /// |q|.
    pub fn norm(&self) -> f32 {
        self.norm
    }

    /// The number of floats in the query and in every row.
    pub fn dim(&self) -> usize {
        self.vector.len()
    }

    /// The key of one row; `norm` = |row| is looked at by cosine only. Panics
    /// where the row's dimension differs.
    pub fn key(&self, row: &[f32], norm: f32) -> f32 {
        match self.metric {
            Metric::L2 => (self.kernels.l2)(self.vector, row),
            Metric::Manhattan => (self.kernels.l1)(self.vector, row),
            Metric::InnerProduct => self.product_key((self.kernels.dot)(self.vector, row), row),
            Metric::Cosine => self.cosine_key((self.kernels.dot)(self.vector, row), row, norm),
        }
    }

    /// Keys of contiguous rows: `rows.len() == dim · keys.len()`, and as many
    /// norms as keys where the metric is cosine.
    pub(crate) fn keys(&self, rows: &[f32], norms: &[f32], keys: &mut [f32]) {
        match self.metric {
            Metric::L2 => (self.kernels.l2_rows)(self.vector, rows, keys),
            Metric::Manhattan => (self.kernels.l1_rows)(self.vector, rows, keys),
            Metric::InnerProduct => {
                (self.kernels.dot_rows)(self.vector, rows, keys);
                for (key, row) in keys.iter_mut().zip(self.rows_of(rows)) {
                    *key = self.product_key(*key, row);
                }
            }
            Metric::Cosine => {
                (self.kernels.dot_rows)(self.vector, rows, keys);
                for ((key, norm), row) in keys.iter_mut().zip(norms).zip(self.rows_of(rows)) {
                    *key = self.cosine_key(*key, row, *norm);
                }
            }
        }
    }

    fn rows_of<'r>(&self, rows: &'r [f32]) -> std::slice::ChunksExact<'r, f32> {
        rows.chunks_exact(self.dim().max(1))
    }

    #[inline]
    fn product_key(&self, dot: f32, row: &[f32]) -> f32 {
        if dot.is_finite() {
            return -dot;
        }
        self.product_key_in_f64(row)
    }

    /// 65,536 products of 1e77 at most: far from f64's end.
    #[cold]
    fn product_key_in_f64(&self, row: &[f32]) -> f32 {
        let pairs = self.vector.iter().zip(row);
        let dot: f64 = pairs.map(|(q, v)| f64::from(*q) * f64::from(*v)).sum();
        -dot as f32
    }

    #[inline]
    fn cosine_key(&self, dot: f32, row: &[f32], norm: f32) -> f32 {
        let norms = self.norm * norm;
        if (NORMS_PRODUCT_MIN..=NORMS_PRODUCT_MAX).contains(&norms) {
            // Rounding may leave [0, 2] by some 1e-7. clamp keeps a NaN.
            return (1.0 - dot / norms).clamp(0.0, 2.0);
        }
        self.cosine_key_in_f64(row)
    }

    /// Zero vectors, and norms so far from 1 that f32 products lose their range.
    #[cold]
    fn cosine_key_in_f64(&self, row: &[f32]) -> f32 {
        let (mut dot, mut query, mut other) = (0.0f64, 0.0f64, 0.0f64);
        for (q, v) in self.vector.iter().zip(row) {
            let (q, v) = (f64::from(*q), f64::from(*v));
            dot += q * v;
            query += q * q;
            other += v * v;
        }
        if query == 0.0 || other == 0.0 {
            return 1.0;
        }
        (1.0 - dot / (query.sqrt() * other.sqrt())).clamp(0.0, 2.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::Query;
    use vexlake_distance::Metric;

    #[test]
    fn should_give_a_zero_vector_the_cosine_distance_one() {
        let zero = [0.0f32; 5];
        let row = [1.0f32, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(Query::new(Metric::Cosine, &zero).key(&row, 7.4), 1.0);
        assert_eq!(Query::new(Metric::Cosine, &row).key(&zero, 0.0), 1.0);
        assert_eq!(Query::new(Metric::Cosine, &zero).key(&zero, 0.0), 1.0);
    }

    #[test]
    fn should_not_lose_the_angle_of_very_long_or_very_short_vectors() {
        let kernels = vexlake_distance::kernels();
        for scale in [1e-37f32, 1e-22, 1.0, 1e20, 1e37] {
            let query = [scale, 0.0, scale];
            let row = [scale, 0.0, 0.0];
            let norm = (kernels.norm)(&row);
            let key = Query::new(Metric::Cosine, &query).key(&row, norm);
            let expected = 1.0 - 0.5f32.sqrt();
            assert!((key - expected).abs() < 1e-6, "scale {scale}: {key}");
        }
    }

    #[test]
    fn should_not_lose_an_inner_product_whose_parts_overflow() {
        let (far, near) = (f32::INFINITY, f32::NEG_INFINITY);
        for (row, key) in [
            ([1e30, 1e30, 2.0], -2.0),
            ([1e30, 1.0, 0.0], near),
            ([1.0, 1e30, 0.0], far),
            ([0.0, 0.0, 3.0], -3.0),
        ] {
            let query = Query::new(Metric::InnerProduct, &[1e30, -1e30, 1.0]);
            assert_eq!(query.key(&row, 0.0), key, "{row:?}");
            let mut keys = [0.0];
            query.keys(&row, &[], &mut keys);
            assert_eq!(keys, [key], "{row:?}");
        }
    }

    #[test]
    fn should_keep_nan_a_nan_so_that_it_never_enters_a_result() {
        let query = [f32::NAN, 1.0];
        for metric in Metric::ALL {
            assert!(Query::new(metric, &query).key(&[1.0, 1.0], 1.4).is_nan());
        }
    }
}
