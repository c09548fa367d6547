//! Truncated SVD by random projection (Halko, Martinsson & Tropp, "Finding structure with randomness",
//! 2011, algorithms 4.4 and 5.1).
//!
//! 1. Y = A·Ω, Ω of random signs: a few more columns than wanted span nearly the leading space.
//! 2. Power iterations Y ← A·(Aᵀ·Y), orthonormalised in between, turn them into it.
//! 3. With Q orthonormal, Z = AᵀQ; the eigenvectors W of ZᵀZ rotate it: right singular vectors are
//!    Z·W·Σ⁻¹, singular values the roots of the eigenvalues.

use crate::dense::Dense;
use crate::random::Random;
use crate::sparse::Sparse;

/// Columns beyond the wanted ones; Halko et al. advise 5 to 10 and more where the spectrum is flat,
/// and that of text is.
const OVERSAMPLING: usize = 32;
/// Power iterations: Halko et al. find one or two enough where the spectrum falls slowly.
const POWER_ITERATIONS: usize = 2;
/// Singular values below this share of the largest are rounding: the corpus has no such dimension.
const SINGULAR_MIN: f64 = 1e-5;

/// The leading right singular vectors of a matrix.
pub struct RightSpace {
    /// Descending; 0 where the matrix has no further dimension.
    pub singular: Vec<f64>,
    /// One row per column of the matrix, one column per singular value; columns have unit length.
    pub vectors: Dense,
}

/// The `wanted` leading right singular vectors. The same seed gives the same result.
pub fn right_space(matrix: &Sparse, wanted: usize, seed: u64) -> RightSpace {
    let transposed = matrix.transposed();
    let columns = wanted + OVERSAMPLING;
    let mut y = matrix.times(&random_signs(matrix.width(), columns, seed));
    for _ in 0..POWER_ITERATIONS {
        y = matrix.times(&transposed.times(&y.orthonormalise()));
    }
    let z = transposed.times(&y.orthonormalise().orthonormalise());
    let (eigenvalues, rotation) = z.gram().eigen();
    let largest = eigenvalues
        .first()
        .copied()
        .unwrap_or_default()
        .max(0.0)
        .sqrt();
    let singular: Vec<f64> = eigenvalues[..wanted]
        .iter()
        .map(|value| value.max(0.0).sqrt())
        .map(|value| {
            if value > SINGULAR_MIN * largest {
                value
            } else {
                0.0
            }
        })
        .collect();
    let inverse: Vec<f64> = singular
        .iter()
        .map(|&value| if value > 0.0 { 1.0 / value } else { 0.0 })
        .collect();
    RightSpace {
        vectors: z.times(&rotation.rows_as_columns(wanted, &inverse)),
        singular,
    }
}

fn random_signs(rows: usize, width: usize, seed: u64) -> Dense {
    let mut random = Random::new(seed);
    let signs = (0..rows * width).map(|_| if random.bits() >> 63 == 0 { 1.0 } else { -1.0 });
    Dense::from_rows(width, signs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of known rank: row r is a mix of `rank` sparse patterns with falling weights.
    fn low_rank(rows: usize, width: usize, rank: usize) -> Sparse {
        let mut random = Random::new(1);
        let patterns: Vec<Vec<f32>> = (0..rank)
            .map(|_| (0..width).map(|_| random.unit() as f32 - 0.5).collect())
            .collect();
        let mut matrix = Sparse::new(width);
        for _ in 0..rows {
            let weights: Vec<f32> = (0..rank)
                .map(|i| (random.unit() as f32 - 0.5) * 0.8f32.powi(i as i32))
                .collect();
            let value = |column: usize| {
                patterns
                    .iter()
                    .zip(&weights)
                    .map(|(pattern, weight)| pattern[column] * weight)
                    .sum()
            };
            matrix.push((0..width).map(|column| (column as u32, value(column))));
        }
        matrix
    }

    #[test]
    fn should_keep_the_length_of_rows_of_a_low_rank_matrix() {
        let matrix = low_rank(300, 80, 6);
        let space = right_space(&matrix, 8, 3);
        assert!(
            space.singular[5] > 0.0 && space.singular[6] == 0.0,
            "{:?}",
            space.singular
        );
        let projected = matrix.times(&space.vectors);
        for row in 0..matrix.rows() {
            let whole: f32 = matrix.row(row).map(|(_, value)| value * value).sum();
            let kept: f32 = projected.row(row).iter().map(|value| value * value).sum();
            assert!(
                (kept / whole - 1.0).abs() < 1e-3,
                "row {row}: {kept} of {whole}"
            );
        }
    }

    #[test]
    fn should_give_the_same_vectors_for_the_same_seed() {
        let matrix = low_rank(200, 50, 10);
        let first = right_space(&matrix, 5, 1);
        let again = right_space(&matrix, 5, 1);
        assert_eq!(first.vectors.into_values(), again.vectors.into_values());
        let other = right_space(&matrix, 5, 2);
        let off = first
            .singular
            .iter()
            .zip(&other.singular)
            .map(|(a, b)| (a - b).abs() / a);
        assert!(
            off.fold(0.0, f64::max) < 1e-3,
            "another seed finds the same values"
        );
    }
}
