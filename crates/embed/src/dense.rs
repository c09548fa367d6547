//! The little dense algebra that a randomised SVD needs: tall blocks of f32 rows, small square f64.
//!
//! Everything is deterministic whatever the number of threads: sums over all rows are taken in blocks
//! of a fixed size, and the blocks are added in order.

use rayon::prelude::*;

/// Rows summed by one task. 512 rows × 288 floats are 576 KiB: fits a core's second-level cache.
const BLOCK_ROWS: usize = 512;
/// Added to the diagonal before a Cholesky factorisation, relative to its mean: keeps columns that
/// depend on others from dividing by zero, and is far below what the SVD keeps.
const RIDGE: f64 = 1e-10;
/// Jacobi rotations converge quadratically; 6 to 9 sweeps are usual up to a few hundred columns.
const JACOBI_SWEEPS_MAX: usize = 30;
/// Off-diagonal mass, relative to the whole, at which the eigenvalues are good to f32.
const JACOBI_DONE: f64 = 1e-18;

/// A dense matrix in rows of f32.
#[derive(Clone, Debug)]
pub struct Dense {
    values: Vec<f32>,
    width: usize,
}

impl Dense {
    /// All zeros.
    pub fn zeros(rows: usize, width: usize) -> Dense {
        Dense {
            values: vec![0.0; rows * width],
            width,
        }
    }

    /// Takes `values` as rows of `width`.
    pub fn from_rows(width: usize, values: Vec<f32>) -> Dense {
        debug_assert_eq!(values.len() % width, 0);
        Dense { values, width }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    /// All values, row after row.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Rows to be written in parallel.
    pub fn par_rows_mut(&mut self) -> impl IndexedParallelIterator<Item = &mut [f32]> {
        self.values.par_chunks_exact_mut(self.width)
    }

    /// selfᵀ · self.
    pub fn gram(&self) -> Square {
        let width = self.width;
        let blocks: Vec<Square> = self
            .values
            .par_chunks(BLOCK_ROWS * width)
            .map(|block| {
                let mut sum = Square::zeros(width);
                for row in block.chunks_exact(width) {
                    for (i, &left) in row.iter().enumerate() {
                        let left = f64::from(left);
                        for (sum, &right) in sum.row_mut(i)[i..].iter_mut().zip(&row[i..]) {
                            *sum += left * f64::from(right);
                        }
                    }
                }
                sum
            })
            .collect();
        let mut gram = Square::zeros(width);
        for block in blocks {
            for (sum, value) in gram.values.iter_mut().zip(block.values) {
                *sum += value;
            }
        }
        for i in 0..width {
            for j in 0..i {
                gram.values[i * width + j] = gram.values[j * width + i];
            }
        }
        gram
    }

    /// self · right.
    pub fn times(&self, right: &Dense) -> Dense {
        let mut product = Dense::zeros(self.values.len() / self.width, right.width);
        product
            .par_rows_mut()
            .zip(self.values.par_chunks_exact(self.width))
            .for_each(|(sum, row)| {
                for (i, &left) in row.iter().enumerate() {
                    for (sum, right) in sum.iter_mut().zip(right.row(i)) {
                        *sum += left * right;
                    }
                }
            });
        product
    }

    /// Replaces the columns by orthonormal ones that span the same space: with the Cholesky factor
    /// RᵀR = selfᵀself, self · R⁻¹ (CholeskyQR). One pass loses digits where columns are nearly
    /// dependent; a second on the result restores them (Yamamoto et al., 2015).
    pub fn orthonormalise(&self) -> Dense {
        let inverse = self.gram().cholesky_inverse();
        self.times(&inverse)
    }
}

/// A small square matrix in rows of f64.
#[derive(Clone, Debug)]
pub struct Square {
    values: Vec<f64>,
    size: usize,
}

impl Square {
    /// All zeros.
    pub fn zeros(size: usize) -> Square {
        Square {
            values: vec![0.0; size * size],
            size,
        }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..][..self.size]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.values[row * self.size..][..self.size]
    }

    /// R⁻¹ of the Cholesky factorisation self = RᵀR, for a symmetric matrix without negative eigenvalues.
    fn cholesky_inverse(&self) -> Dense {
        let n = self.size;
        let ridge = RIDGE * (0..n).map(|i| self.row(i)[i]).sum::<f64>() / n as f64;
        // Lower triangular L = Rᵀ, row by row.
        let mut lower = Square::zeros(n);
        for i in 0..n {
            for j in 0..=i {
                let dot: f64 = lower.row(i)[..j]
                    .iter()
                    .zip(&lower.row(j)[..j])
                    .map(|(a, b)| a * b)
                    .sum();
                let rest = self.row(i)[j] - dot;
                lower.values[i * n + j] = match i == j {
                    // Rounding can leave a dependent column below zero; the ridge is its floor. A
                    // ridge of zero means that all columns are zero, which any factor keeps.
                    true if ridge > 0.0 => (rest + ridge).max(ridge).sqrt(),
                    true => 1.0,
                    false => rest / lower.row(j)[j],
                };
            }
        }
        // L⁻¹ by forward substitution, column c at a time; R⁻¹ is its transpose, so column c is row c.
        let mut inverse = vec![0.0f32; n * n];
        let mut column = vec![0.0f64; n];
        for c in 0..n {
            for i in c..n {
                let known: f64 = lower.row(i)[c..i]
                    .iter()
                    .zip(&column[c..i])
                    .map(|(a, b)| a * b)
                    .sum();
                let right = if i == c { 1.0 } else { 0.0 };
                column[i] = (right - known) / lower.row(i)[i];
                inverse[c * n + i] = column[i] as f32;
            }
        }
        Dense::from_rows(n, inverse)
    }

    /// Eigenvalues in descending order and their unit eigenvectors as rows, of a symmetric matrix, by
    /// cyclic Jacobi rotations (Golub & Van Loan, Matrix Computations, 8.5).
    pub fn eigen(mut self) -> (Vec<f64>, Square) {
        let n = self.size;
        let mut vectors = Square::zeros(n);
        for i in 0..n {
            vectors.values[i * n + i] = 1.0;
        }
        let whole: f64 = self.values.iter().map(|value| value * value).sum();
        for _ in 0..JACOBI_SWEEPS_MAX {
            let off: f64 = (0..n)
                .flat_map(|i| self.row(i)[i + 1..].iter())
                .map(|v| v * v)
                .sum();
            if off <= JACOBI_DONE * whole {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    self.rotate(&mut vectors, p, q);
                }
            }
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| self.row(b)[b].total_cmp(&self.row(a)[a]));
        let eigenvalues = order.iter().map(|&i| self.row(i)[i]).collect();
        let sorted = order
            .iter()
            .flat_map(|&i| vectors.row(i))
            .copied()
            .collect();
        (
            eigenvalues,
            Square {
                values: sorted,
                size: n,
            },
        )
    }

    /// One rotation that makes entry (p, q) zero; rows of `vectors` follow.
    fn rotate(&mut self, vectors: &mut Square, p: usize, q: usize) {
        let n = self.size;
        let (app, aqq, apq) = (self.row(p)[p], self.row(q)[q], self.row(p)[q]);
        if apq == 0.0 {
            return;
        }
        let theta = (aqq - app) / (2.0 * apq);
        let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
        let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
        let sine = tangent * cosine;
        rotate_rows(&mut self.values, n, p, q, cosine, sine);
        // The matrix stays symmetric: columns p and q are copies of the rows, but for the crossing.
        for i in (0..n).filter(|&i| i != p && i != q) {
            self.values[i * n + p] = self.values[p * n + i];
            self.values[i * n + q] = self.values[q * n + i];
        }
        self.values[p * n + p] = app - tangent * apq;
        self.values[q * n + q] = aqq + tangent * apq;
        self.values[p * n + q] = 0.0;
        self.values[q * n + p] = 0.0;
        rotate_rows(&mut vectors.values, n, p, q, cosine, sine);
    }

    /// The first `count` rows as columns of f32, each times its factor.
    pub fn rows_as_columns(&self, count: usize, factors: &[f64]) -> Dense {
        let mut columns = Dense::zeros(self.size, count);
        for (j, factor) in factors.iter().enumerate().take(count) {
            for i in 0..self.size {
                columns.values[i * count + j] = (self.row(j)[i] * factor) as f32;
            }
        }
        columns
    }
}

fn rotate_rows(values: &mut [f64], n: usize, p: usize, q: usize, cosine: f64, sine: f64) {
    // p < q: the split hands out both rows at once.
    let (head, tail) = values.split_at_mut(q * n);
    for (x, y) in head[p * n..][..n].iter_mut().zip(&mut tail[..n]) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn random_matrix(rows: usize, width: usize, seed: u64) -> Dense {
        let mut random = Random::new(seed);
        Dense::from_rows(
            width,
            (0..rows * width)
                .map(|_| random.unit() as f32 - 0.5)
                .collect(),
        )
    }

    #[test]
    fn should_orthonormalise_columns_in_two_passes() {
        let mut block = random_matrix(1500, 20, 7);
        // Two nearly equal columns are the hard case.
        for row in block.values.chunks_exact_mut(20) {
            row[1] = row[0] + row[1] * 1e-2;
        }
        let gram = block.orthonormalise().orthonormalise().gram();
        for i in 0..20 {
            for j in 0..20 {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!(
                    (gram.row(i)[j] - expected).abs() < 1e-4,
                    "{i} {j}: {}",
                    gram.row(i)[j]
                );
            }
        }
    }

    #[test]
    fn should_survive_dependent_and_empty_columns() {
        let mut block = random_matrix(300, 4, 3);
        for row in block.values.chunks_exact_mut(4) {
            row[2] = row[0];
            row[3] = 0.0;
        }
        let orthonormal = block.orthonormalise().orthonormalise();
        assert!(orthonormal.values.iter().all(|value| value.is_finite()));
        let zeros = Dense::zeros(5, 3);
        assert_eq!(zeros.orthonormalise().values, zeros.values);
    }

    #[test]
    fn should_find_eigenvalues_and_vectors() {
        let gram = random_matrix(100, 30, 5).gram();
        let (values, vectors) = gram.clone().eigen();
        assert!(
            values.windows(2).all(|pair| pair[0] >= pair[1]),
            "descending"
        );
        for (value, vector) in values.iter().zip(vectors.values.chunks_exact(30)) {
            for i in 0..30 {
                let product: f64 = gram.row(i).iter().zip(vector).map(|(a, b)| a * b).sum();
                assert!((product - value * vector[i]).abs() < 1e-8, "A·v = λ·v");
            }
        }
    }

    #[test]
    fn should_not_depend_on_the_number_of_threads() {
        let block = random_matrix(5000, 16, 9);
        let single = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .expect("a pool");
        let many = rayon::ThreadPoolBuilder::new()
            .num_threads(4)
            .build()
            .expect("a pool");
        let gram = |pool: &rayon::ThreadPool| pool.install(|| block.gram().values);
        assert_eq!(gram(&single), gram(&many));
    }
}
