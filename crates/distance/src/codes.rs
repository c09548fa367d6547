//! The shape of 1-bit codes, and packing rows into FastScan blocks.
//!
//! A *code* is one bit per dimension, 1 where the rotated residual is positive:
//! bit i of a row is bit i % 8 of its byte i / 8. The number of dimensions is a
//! multiple of [`CODE_DIM_STEP`] (the rotation pads), so no kernel has a tail.
//!
//! A *block* holds [`BLOCK_ROWS`] rows as FastScan reads them: for each group of
//! four dimensions 16 bytes, byte r with the group's four bits of row r in its
//! low half and of row r + 16 in its high half. A byte shuffle then looks up one
//! group for 16 rows at once. After the codes lie the factors of the 32 rows,
//! `a` then `b`, f32 little-endian: one block is one stretch of memory.
//!
//! A *half block* holds [`HALF_ROWS`] rows in the same way, for lists that are short:
//! for each group of the code's first half 16 bytes, byte r with row r's bits of that
//! group in its low half and of the group half a code further in its high half. It
//! takes half of a block's memory and half of its look-ups.
//!
//! Source of the layout: André, Kermarrec, Le Scouarnec, "Cache locality is not
//! enough" (VLDB 2015), and faiss's fast scan.

use crate::table::LookupTable;

/// The dimensions of a code are a multiple of this: one u64 of bits, 16 groups of
/// four, four 64-byte registers of a block.
pub const CODE_DIM_STEP: usize = 64;

/// Rows in a block.
pub const BLOCK_ROWS: usize = 32;

/// Rows in a half block.
pub const HALF_ROWS: usize = BLOCK_ROWS / 2;

/// Bytes of the two factors of a block's rows.
pub const BLOCK_FACTOR_BYTES: usize = 2 * BLOCK_ROWS * size_of::<f32>();

/// Bytes of the two factors of a half block's rows.
pub const HALF_FACTOR_BYTES: usize = BLOCK_FACTOR_BYTES / 2;

/// Groups of four dimensions whose look-ups one u16 can hold: 1,024 · 63 =
/// 64,512. Codes of more than 4,096 dimensions are summed in such chunks.
pub(crate) const CHUNK_GROUPS: usize = 1024;

/// Bytes of one group, in a look-up table as in a block.
pub(crate) const GROUP_BYTES: usize = 16;

/// Bit planes of a quantised query: magnitudes are at most 63.
pub const PLANES: usize = 6;

/// Bytes of one row's code.
pub fn code_bytes(code_dim: usize) -> usize {
    code_dim / 8
}

/// Bytes of one block, factors included: a multiple of 256.
pub fn block_bytes(code_dim: usize) -> usize {
    BLOCK_ROWS * code_bytes(code_dim) + BLOCK_FACTOR_BYTES
}

/// Bytes of one half block, factors included: a multiple of 128.
pub fn half_bytes(code_dim: usize) -> usize {
    block_bytes(code_dim) / 2
}

/// How a sum of look-ups becomes a bound: `a + add − b · (sum · scale + shift)`,
/// where a and b are the row's factors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Line {
    /// What the list's centroid adds.
    pub add: f32,
    /// What the query and the error bound add to the sum.
    pub shift: f32,
    /// The query's quantisation step.
    pub scale: f32,
}

impl Line {
    /// The bound of one row.
    #[inline]
    pub fn bound(&self, a: f32, b: f32, sum: u32) -> f32 {
        a + self.add - b * (sum as f32 * self.scale + self.shift)
    }
}

/// What a row's factors are made of, with r = x − c and s its signs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CodeSums {
    /// |r|².
    pub square: f32,
    /// ⟨s, r⟩ = Σ |rᵢ|.
    pub sum: f32,
    /// ⟨s, c⟩.
    pub signed_centroid: f32,
}

/// Lanes of partial sums: what one AVX-512 register holds.
const LANES: usize = 16;

/// See [`crate::Kernels::code_of`]. Plain loops over lanes: each instruction set
/// compiles them for its own registers.
#[inline(always)]
pub(crate) fn code_of(x: &[f32], centroid: &[f32], code: &mut [u8]) -> CodeSums {
    assert!(x.len() == centroid.len() && x.len() == 8 * code.len());
    assert!(x.len().is_multiple_of(CODE_DIM_STEP), "a code has no tail");
    let mut squares = [0.0f32; LANES];
    let mut sums = [0.0f32; LANES];
    let mut signed = [0.0f32; LANES];
    let pairs = x.as_chunks::<LANES>().0.iter();
    let pairs = pairs.zip(centroid.as_chunks::<LANES>().0);
    for ((x, c), two) in pairs.zip(code.as_chunks_mut::<2>().0) {
        let mut bits = [0u32; LANES];
        for lane in 0..LANES {
            let residual = x[lane] - c[lane];
            squares[lane] += residual * residual;
            sums[lane] += residual.abs();
            let positive = residual > 0.0;
            signed[lane] += if positive { c[lane] } else { -c[lane] };
            bits[lane] = u32::from(positive) << lane;
        }
        let word = bits.iter().fold(0, |word, bit| word | bit);
        *two = (word as u16).to_le_bytes();
    }
    CodeSums {
        square: squares.iter().sum(),
        sum: sums.iter().sum(),
        signed_centroid: signed.iter().sum(),
    }
}

/// Writes the codes of up to 32 rows (row-major, whole rows) as the code part of
/// a block; rows that are not there become zeros.
pub fn pack_block(rows: &[u8], row_bytes: usize, codes: &mut [u8]) {
    let count = rows.len() / row_bytes.max(1);
    assert!(count <= BLOCK_ROWS && rows.len() == count * row_bytes);
    assert_eq!(codes.len(), BLOCK_ROWS * row_bytes, "codes of a block");
    codes.fill(0);
    for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
        let (byte, half) = (row % 16, 4 * (row / 16));
        for (pair, two) in codes.chunks_exact_mut(2 * GROUP_BYTES).zip(bytes) {
            pair[byte] |= (two & 15) << half;
            pair[GROUP_BYTES + byte] |= (two >> 4) << half;
        }
    }
}

/// Reads one row's code back out of the code part of a block.
pub fn unpack_row(codes: &[u8], row: usize, code: &mut [u8]) {
    assert!(row < BLOCK_ROWS && codes.len() == BLOCK_ROWS * code.len());
    let (byte, half) = (row % 16, 4 * (row / 16));
    for (pair, two) in codes.chunks_exact(2 * GROUP_BYTES).zip(code) {
        *two = ((pair[byte] >> half) & 15) | (((pair[GROUP_BYTES + byte] >> half) & 15) << 4);
    }
}

/// As [`pack_block`] for up to 16 rows and the code part of a half block.
pub fn pack_half(rows: &[u8], row_bytes: usize, codes: &mut [u8]) {
    let count = rows.len() / row_bytes.max(1);
    assert!(count <= HALF_ROWS && rows.len() == count * row_bytes);
    assert_eq!(codes.len(), HALF_ROWS * row_bytes, "codes of a half block");
    codes.fill(0);
    for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
        let (first, second) = bytes.split_at(row_bytes / 2);
        let pairs = codes.chunks_exact_mut(2 * GROUP_BYTES);
        for (pair, (low, high)) in pairs.zip(first.iter().zip(second)) {
            pair[row] = (low & 15) | (high & 15) << 4;
            pair[GROUP_BYTES + row] = (low >> 4) | (high & 0xf0);
        }
    }
}

/// Reads one row's code back out of the code part of a half block.
pub fn unpack_half_row(codes: &[u8], row: usize, code: &mut [u8]) {
    assert!(row < HALF_ROWS && codes.len() == HALF_ROWS * code.len());
    let (first, second) = code.split_at_mut(code.len() / 2);
    let pairs = codes.chunks_exact(2 * GROUP_BYTES);
    for (pair, (low, high)) in pairs.zip(first.iter_mut().zip(second)) {
        let (even, odd) = (pair[row], pair[GROUP_BYTES + row]);
        *low = (even & 15) | (odd & 15) << 4;
        *high = (even >> 4) | (odd & 0xf0);
    }
}

/// The row's factors a and b, from all factors of `rows` rows: those of a block, of a
/// half block or of rows that fill neither.
#[inline]
pub fn factors_of(factors: &[u8], rows: usize, row: usize) -> (f32, f32) {
    let floats = factors.as_chunks::<4>().0;
    (
        f32::from_le_bytes(floats[row]),
        f32::from_le_bytes(floats[rows + row]),
    )
}

/// The shapes that a block kernel relies on; answers the bytes of the codes.
#[inline(always)]
pub(crate) fn assert_block(table: &[u8], block: &[u8]) -> usize {
    assert!(
        table.len().is_multiple_of(CODE_DIM_STEP / 4 * GROUP_BYTES)
            && block.len() == table.len() + BLOCK_FACTOR_BYTES,
        "a block of another shape than the table"
    );
    table.len()
}

/// As [`assert_block`] for a half block: its codes are half as long as the table.
#[inline(always)]
pub(crate) fn assert_half(table: &[u8], half: &[u8]) -> usize {
    assert!(
        table.len().is_multiple_of(CODE_DIM_STEP / 4 * GROUP_BYTES)
            && half.len() == table.len() / 2 + HALF_FACTOR_BYTES,
        "a half block of another shape than the table"
    );
    table.len() / 2
}

/// The shapes that a table is filled in.
#[inline(always)]
pub(crate) fn assert_table(magnitudes: &[u8], flips: &[u8], table: &[u8]) {
    assert!(
        magnitudes.len().is_multiple_of(CODE_DIM_STEP)
            && flips.len() == magnitudes.len()
            && table.len() == 4 * magnitudes.len(),
        "a table of another shape than the query"
    );
}

/// Byte n of pattern i is all ones where bit i of n is set.
pub(crate) const PATTERNS: [[u8; GROUP_BYTES]; 4] = {
    let mut patterns = [[0; GROUP_BYTES]; 4];
    let mut n = 0;
    while n < GROUP_BYTES {
        let mut i = 0;
        while i < 4 {
            patterns[i][n] = if (n >> i) & 1 == 1 { 0xff } else { 0 };
            i += 1;
        }
        n += 1;
    }
    patterns
};

/// The shapes that a row kernel relies on; answers the u64 words of a row.
#[inline(always)]
pub(crate) fn assert_rows(table: &LookupTable, codes: &[u8], sums: &[u32]) -> usize {
    let words = table.negative().len();
    assert!(
        table.planes().len() == PLANES * words
            && table.signed().len() == CODE_DIM_STEP * words
            && codes.len() == 8 * words * sums.len(),
        "codes of another shape than the query"
    );
    words
}

/// The shapes that a Hadamard kernel relies on.
#[inline(always)]
pub(crate) fn assert_transformable(signs: &[f32], x: &[f32]) {
    assert!(
        signs.len() == x.len() && x.len().is_power_of_two() && x.len() >= CODE_DIM_STEP,
        "a transform needs a power of two no less than {CODE_DIM_STEP}"
    );
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_ROWS, HALF_ROWS, pack_block, pack_half, unpack_half_row, unpack_row};

    #[test]
    fn should_unpack_the_rows_that_were_packed_and_zeros_for_the_others() {
        for (row_bytes, count) in [(8, 32), (16, 1), (24, 17), (96, 31), (8, 0)] {
            let rows: Vec<u8> = (0..row_bytes * count)
                .map(|i| (i * 37 + i / 7) as u8)
                .collect();
            let nothing = vec![0; row_bytes];
            let row_of = |row| rows.chunks_exact(row_bytes).nth(row).unwrap_or(&nothing);
            let mut codes = vec![0xa5; BLOCK_ROWS * row_bytes];
            pack_block(&rows, row_bytes, &mut codes);
            let mut code = vec![0; row_bytes];
            for row in 0..BLOCK_ROWS {
                unpack_row(&codes, row, &mut code);
                assert_eq!(code, row_of(row));
            }
            let few = &rows[..count.min(HALF_ROWS) * row_bytes];
            let mut codes = vec![0xa5; HALF_ROWS * row_bytes];
            pack_half(few, row_bytes, &mut codes);
            for row in 0..HALF_ROWS {
                unpack_half_row(&codes, row, &mut code);
                assert_eq!(code, row_of(row));
            }
        }
    }
}
