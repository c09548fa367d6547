//! The random rotation before a 1-bit code is taken: structured, so that it costs
//! O(d log d) and no matrix, and the same bits on every machine for one seed.
//!
//! The dimension is padded with zeros to a multiple of 64. Let p be the largest
//! power of two in it. A round flips the sign of every coordinate by a random bit
//! and applies the orthonormal Walsh–Hadamard transform to p of them; three
//! rounds. Where p is not the whole, the window of p lies at the front and at the
//! back in turn (768: 0..512, 256..768), and each round ends with a butterfly
//! between the two halves: windows of 960 = 512 + 448 overlap by 64 only, and by
//! themselves would leave what one half holds in that half.
//!
//! Sources: Ailon and Chazelle's fast Johnson–Lindenstrauss transform; rounds of
//! H·D as in "Practical and Optimal LSH for Angular Distance" (NeurIPS 2015);
//! overlapping windows and Kac's walk as in the RaBitQ library's FhtKac rotator.
//!
//! Invariant: the result depends on (dim, seed, input) only. Codes on disk were
//! made with it: any change is a change of the format.

use crate::codes::CODE_DIM_STEP;
use crate::kernels::Kernels;

const ROUNDS: usize = 3;

/// One seed's rotation of one dimension.
#[derive(Clone, Debug)]
pub struct Rotation {
    dim: usize,
    code_dim: usize,
    window: usize,
    /// Per round and coordinate ±1, times what keeps the round's length: 1 / √window
    /// inside its window, and √½ where a butterfly follows.
    signs: Vec<f32>,
}

impl Rotation {
    /// O(dim). Panics for dimension 0.
    pub fn new(dim: usize, seed: u64) -> Self {
        assert!(dim > 0, "a rotation of nothing");
        let code_dim = dim.next_multiple_of(CODE_DIM_STEP);
        let window = 1 << code_dim.ilog2();
        let outer = if window == code_dim {
            1.0
        } else {
            0.5f32.sqrt()
        };
        let inner = outer / (window as f32).sqrt();
        let mut signs = Vec::with_capacity(ROUNDS * code_dim);
        let mut state = seed;
        for round in 0..ROUNDS {
            let start = window_start(round, code_dim, window);
            let mut bits = 0;
            for i in 0..code_dim {
                if i % 64 == 0 {
                    bits = split_mix(&mut state);
                }
                let inside = (start..start + window).contains(&i);
                let size = if inside { inner } else { outer };
                signs.push(if bits & 1 == 1 { -size } else { size });
                bits >>= 1;
            }
        }
        Self {
            dim,
            code_dim,
            window,
            signs,
        }
    }

    /// Floats of a vector before rotation.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Floats of a vector after rotation: `dim` rounded up to a multiple of 64.
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// Rotates in place. `x` has `code_dim` floats, of which those from `dim` on
    /// are zero; lengths and angles are kept.
    pub fn apply(&self, kernels: &Kernels, x: &mut [f32]) {
        assert_eq!(x.len(), self.code_dim, "a vector of another dimension");
        for (round, signs) in self.signs.chunks_exact(self.code_dim).enumerate() {
            let start = window_start(round, self.code_dim, self.window);
            let end = start + self.window;
            (kernels.hadamard)(&signs[start..end], &mut x[start..end]);
            for outside in [0..start, end..self.code_dim] {
                let signs = &signs[outside.clone()];
                x[outside]
                    .iter_mut()
                    .zip(signs)
                    .for_each(|(x, sign)| *x *= sign);
            }
            if self.window < self.code_dim {
                let (front, back) = x.split_at_mut(self.code_dim / 2);
                for (a, b) in front.iter_mut().zip(back) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
    }
}

fn window_start(round: usize, code_dim: usize, window: usize) -> usize {
    if round % 2 == 1 { code_dim - window } else { 0 }
}

/// SplitMix64: the next 64 random bits of a seed.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
