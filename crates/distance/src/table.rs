//! A rotated query, quantised for scanning codes: FastScan's look-up table and the
//! bit planes that row-major codes are counted with.
//!
//! Wanted is ⟨s, q⟩ for rows s of ±1. Each coordinate of q becomes an integer
//! mᵢ = ±round(|qᵢ| / step), and with neg = (m < 0)
//!   ⟨s, q⟩ ≈ step · (2·U − Σ|mᵢ|),  U = Σ |mᵢ| · [bitᵢ ≠ negᵢ].
//! 1. The step is such that |m| of any four neighbours sums to at most 63: one
//!    look-up fits six bits, four look-ups fit a byte.
//! 2. The table holds, per group of four and per pattern of four bits, that
//!    group's share of U.
//! 3. The planes hold bit p of |mᵢ|: U = Σₚ 2ᵖ · popcount((code ⊕ neg) & planeₚ).
//!
//! Invariant: FastScan and counting give the same integer U for the same row, so a
//! row's estimate does not depend on whether it lies in a block or in a rest.

use crate::codes::{CODE_DIM_STEP, PLANES};
use crate::kernels::Kernels;

/// The largest entry of the table.
const ENTRY_MAX: u32 = (1 << PLANES) - 1;

/// What four roundings may add to a group's sum, at most ½ each.
const ROUNDING: f32 = 2.0;

/// Lanes of partial sums: what one AVX-512 register holds.
const LANES: usize = 16;

/// Reused from query to query: building does not allocate once it has.
#[derive(Clone, Debug, Default)]
pub struct LookupTable {
    table: Vec<u8>,
    planes: Vec<u64>,
    negative: Vec<u64>,
    magnitudes: Vec<u8>,
    /// All ones where the coordinate is negative.
    flips: Vec<u8>,
    /// mᵢ itself.
    signed: Vec<i8>,
    /// Σ |mᵢ| of the negative ones.
    negative_total: u32,
    step: f32,
    total: u32,
    residue: f32,
}

impl LookupTable {
    /// Quantises a rotated query, whose dimension is a multiple of 64, for block
    /// kernels; the planes are those of an earlier query until they are built.
    /// O(dim). A query that is zero or not finite gives a table of zeros.
    pub fn build(&mut self, kernels: &Kernels, rotated: &[f32]) {
        assert!(rotated.len().is_multiple_of(CODE_DIM_STEP));
        (kernels.quantise)(self, rotated);
        self.table.resize(4 * rotated.len(), 0);
        (kernels.fill_table)(&self.magnitudes, &self.flips, &mut self.table);
    }

    /// The table for block kernels: 16 bytes per group of four dimensions.
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// Bit p of every magnitude, plane after plane.
    pub fn planes(&self) -> &[u64] {
        &self.planes
    }

    /// The coordinates that are negative.
    pub fn negative(&self) -> &[u64] {
        &self.negative
    }

    /// Every mᵢ, for U = Σ mᵢ·bitᵢ + [`LookupTable::negative_total`].
    pub(crate) fn signed(&self) -> &[i8] {
        &self.signed
    }

    /// U of a code without bits.
    pub(crate) fn negative_total(&self) -> u32 {
        self.negative_total
    }

    /// What one unit of U adds to ⟨s, q⟩.
    pub fn scale(&self) -> f32 {
        2.0 * self.step
    }

    /// ⟨s, q⟩ where U is 0.
    pub fn offset(&self) -> f32 {
        -self.step * self.total as f32
    }

    /// |q − step · m|: the error that quantising left, one standard deviation of
    /// its share in ⟨s, q⟩ for a random s.
    pub fn residue(&self) -> f32 {
        self.residue
    }

    /// Compiled for each instruction set by its kernel table. Sums and maxima go by
    /// lanes, or as integers, so that compilers may reorder them.
    #[inline(always)]
    pub(crate) fn quantise(&mut self, rotated: &[f32]) {
        let (groups, _) = rotated.as_chunks::<4>();
        // Bits of floats that are not negative order as the floats do, with ∞ and
        // NaN above all others.
        let largest = groups.iter().fold(0u32, |largest, group| {
            let sum = (group[0].abs() + group[1].abs()) + (group[2].abs() + group[3].abs());
            largest.max(sum.to_bits())
        });
        let step = f32::from_bits(largest) / (ENTRY_MAX as f32 - ROUNDING);
        // A step below the normal range has no reciprocal; such a query is zero
        // beside any residual that a code can tell from zero.
        let usable = step.is_normal();
        self.step = if usable { step } else { 0.0 };
        let inverse = if usable { 1.0 / step } else { 0.0 };
        self.negative.resize(rotated.len() / 64, 0);
        self.magnitudes.resize(rotated.len(), 0);
        self.flips.resize(rotated.len(), 0);
        let mut squares = [0.0f32; LANES];
        let mut total = 0u32;
        let chunks = rotated.as_chunks::<LANES>().0.iter();
        let magnitudes = self.magnitudes.as_chunks_mut::<LANES>().0;
        let flips = self.flips.as_chunks_mut::<LANES>().0;
        for ((x, m), flip) in chunks.zip(magnitudes).zip(flips) {
            for lane in 0..LANES {
                let size = x[lane].abs();
                // At most 63: ROUNDING keeps a group's sum there too. A query that
                // is not usable has NaN · 0 here, which `max` makes 0.
                let whole = (size * inverse + 0.5).max(0.0).min(ENTRY_MAX as f32);
                // SAFETY: between 0 and 63, and no NaN.
                let whole: i32 = unsafe { whole.to_int_unchecked() };
                let left = size - self.step * whole as f32;
                squares[lane] += left * left;
                total += whole as u32;
                m[lane] = whole as u8;
                flip[lane] = ((x[lane].to_bits() as i32) >> 31) as u8;
            }
        }
        self.total = total;
        let residue = squares.iter().sum::<f32>().sqrt();
        self.residue = if usable { residue } else { 0.0 };
        for (word, x) in self.negative.iter_mut().zip(rotated.as_chunks::<64>().0) {
            let (low, high) = x.split_at(32);
            *word = u64::from(sign_bits(low)) | u64::from(sign_bits(high)) << 32;
        }
    }

    /// Builds what row-major codes are summed with, for the query that `build`
    /// quantised.
    pub fn build_planes(&mut self) {
        self.signed.resize(self.magnitudes.len(), 0);
        let parts = self.magnitudes.iter().zip(&self.flips);
        for (signed, (m, flip)) in self.signed.iter_mut().zip(parts) {
            // Two's complement: minus m is its flipped bits and one.
            *signed = (m ^ flip).wrapping_sub(*flip) as i8;
        }
        let negative = self.magnitudes.iter().zip(&self.flips);
        self.negative_total = negative.map(|(m, flip)| u32::from(m & flip)).sum();
        let words = self.negative.len();
        self.planes.clear();
        self.planes.resize(PLANES * words, 0);
        for (word, magnitudes) in self.magnitudes.as_chunks::<64>().0.iter().enumerate() {
            for (byte, eight) in magnitudes.as_chunks::<8>().0.iter().enumerate() {
                // Bit p of eight bytes, gathered into one byte: the product moves
                // bit 8i to bit 56 + i, and no two terms meet in one bit.
                let eight = u64::from_le_bytes(*eight);
                for plane in 0..PLANES {
                    let bits = (eight >> plane) & 0x0101_0101_0101_0101;
                    let gathered = bits.wrapping_mul(0x0102_0408_1020_4080) >> 56;
                    self.planes[plane * words + word] |= gathered << (8 * byte);
                }
            }
        }
    }
}

/// Bit i set where float i of 32 is negative.
#[inline(always)]
fn sign_bits(floats: &[f32]) -> u32 {
    let bits = floats.iter().enumerate();
    bits.fold(0, |word, (i, x)| word | (x.to_bits() >> 31) << i)
}

#[cfg(test)]
mod tests {
    use super::{ENTRY_MAX, LookupTable};

    #[test]
    fn should_keep_every_entry_within_six_bits_for_any_query() {
        let mut table = LookupTable::default();
        let queries: [Vec<f32>; 6] = [
            vec![1.0; 64],
            vec![-1e30; 128],
            (0..64).map(|i| if i == 5 { 7.0 } else { 0.0 }).collect(),
            (0..192).map(|i| ((i * 37) % 101) as f32 - 50.0).collect(),
            vec![0.0; 64],
            vec![1e-40; 64],
        ];
        for query in queries {
            table.build(crate::kernels(), &query);
            assert!(
                table
                    .table()
                    .iter()
                    .all(|entry| u32::from(*entry) <= ENTRY_MAX)
            );
            assert_eq!(table.table().len(), 4 * query.len());
        }
    }

    #[test]
    fn should_give_a_query_that_is_not_finite_a_table_of_zeros() {
        let mut table = LookupTable::default();
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut query = vec![1.0; 64];
            query[63] = odd;
            table.build(crate::kernels(), &query);
            assert_eq!((table.scale(), table.residue()), (0.0, 0.0));
            assert!(table.offset() == 0.0);
        }
    }
}
