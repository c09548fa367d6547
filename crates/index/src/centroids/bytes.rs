//! Centroids as bytes: distances to a hundred of them, from a quarter of the memory.
//!
//! A centroid is cᵢ ≈ scale · nᵢ with nᵢ in −127..=127, a query likewise, and
//! |x−c|² = |x|² + |c|² − 2⟨x, c⟩ takes only the product from bytes. Rounding makes
//! ⟨x, c⟩ err by some 0.0003 · |x|·|c| at 768 dimensions; what 1-bit codes say of
//! rows errs by some 0.05 · |x−c|². So bytes are trusted while |x−c|² is no less
//! than [`TRUST`] · |x|·|c|, and floats are read where a query lies close to a
//! centroid that is far from the origin.

/// See the module: an error of 2 · 0.0003 / 0.05, about one in a hundred of |x−c|².
const TRUST: f32 = 0.05;

/// The largest magnitude of a byte.
const BYTE_MAX: f32 = 127.0;

/// All centroids of a version.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteCentroids {
    bytes: Vec<i8>,
    scales: Vec<f32>,
    squares: Vec<f32>,
}

/// One vector in the space, quantised likewise.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteVector {
    bytes: Vec<i8>,
    scale: f32,
    square: f32,
}

impl ByteVector {
    /// `square` is |x|².
    pub(super) fn set(&mut self, x: &[f32], square: f32) {
        self.bytes.resize(x.len(), 0);
        self.scale = quantise(x, &mut self.bytes);
        self.square = square;
    }
}

impl ByteCentroids {
    pub(super) fn new(rotated: &[f32], dim: usize) -> Self {
        let mut all = Self {
            bytes: vec![0; rotated.len()],
            ..Self::default()
        };
        let centroids = rotated.chunks_exact(dim);
        for (centroid, bytes) in centroids.zip(all.bytes.chunks_exact_mut(dim)) {
            all.scales.push(quantise(centroid, bytes));
            all.squares.push(centroid.iter().map(|x| x * x).sum());
        }
        all
    }

    /// |x − c|² of a centroid, where bytes are precise enough to tell.
    #[inline]
    pub(super) fn square_to(
        &self,
        dot_i8: fn(&[i8], &[i8]) -> i32,
        x: &ByteVector,
        list: u32,
    ) -> Option<f32> {
        let (list, dim) = (list as usize, x.bytes.len());
        let own = self.squares[list];
        let bytes = &self.bytes[list * dim..][..dim];
        let product = dot_i8(&x.bytes, bytes) as f32 * (x.scale * self.scales[list]);
        let square = x.square + own - 2.0 * product;
        // Compared as squares, without the root, by ratios that do not overflow. NaN
        // fails, so that vectors beyond this arithmetic read floats.
        let apart = (square / x.square) * (square / own);
        (square > 0.0 && apart >= TRUST * TRUST).then_some(square)
    }
}

/// Writes the bytes and answers what one unit stands for.
fn quantise(x: &[f32], bytes: &mut [i8]) -> f32 {
    // Bits of magnitudes order as the magnitudes do; integers may be compared in any
    // order, so compilers use vectors.
    let largest = x
        .iter()
        .fold(0, |largest, x| x.abs().to_bits().max(largest));
    let largest = f32::from_bits(largest);
    let inverse = BYTE_MAX / largest;
    if !inverse.is_normal() {
        bytes.fill(0);
        return 0.0;
    }
    for (byte, x) in bytes.iter_mut().zip(x) {
        *byte = (x * inverse + 0.5f32.copysign(*x)) as i8;
    }
    largest / BYTE_MAX
}

#[cfg(test)]
mod tests {
    use super::{ByteCentroids, ByteVector, TRUST};
    use vexlake_distance::kernels;

    #[test]
    fn should_answer_distances_that_bytes_can_tell_and_no_others() {
        let dim = 128;
        let wave = |step: usize| (0..dim).map(move |i| ((i * step) % 17) as f32 - 8.0);
        let centroids: Vec<f32> = (1..20).flat_map(wave).collect();
        let bytes = ByteCentroids::new(&centroids, dim);
        let mut x = ByteVector::default();
        let (mut told, mut refused) = (0, 0);
        for (nearest, close) in [(3, 0.0), (5, 0.01), (7, 0.5), (11, 3.0)] {
            let query: Vec<f32> = wave(nearest)
                .enumerate()
                .map(|(i, c)| c + close * (i % 3) as f32)
                .collect();
            x.set(&query, (kernels().dot)(&query, &query));
            for (list, centroid) in centroids.chunks_exact(dim).enumerate() {
                let exact = (kernels().l2)(&query, centroid);
                match bytes.square_to(kernels().dot_i8, &x, list as u32) {
                    Some(square) => {
                        told += 1;
                        assert!(
                            (square - exact).abs() <= 0.02 * exact,
                            "{square} for {exact}"
                        );
                    }
                    None => {
                        refused += 1;
                        let own = (kernels().dot)(centroid, centroid);
                        assert!(exact <= 1.1 * TRUST * (x.square * own).sqrt());
                    }
                }
            }
        }
        assert!(told > 60 && refused > 2, "{told} told, {refused} refused");
    }

    #[test]
    fn should_refuse_vectors_beyond_its_arithmetic() {
        let mut x = ByteVector::default();
        for size in [0.0, 1e-38, 1e16, 1e30] {
            let centroids = ByteCentroids::new(&[size; 64], 64);
            x.set(&[size; 64], (kernels().dot)(&[size; 64], &[size; 64]));
            assert_eq!(centroids.square_to(kernels().dot_i8, &x, 0), None);
        }
    }
}
