//! Code kernels with AVX2, and the popcnt instruction for row-major codes.
//!
//! Blocks as with AVX-512, with two groups to a register: four look-ups add up in
//! bytes, then widen into u16.

use crate::arch::scalar_codes::row_sum;
use crate::codes::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, CHUNK_GROUPS, GROUP_BYTES, HALF_FACTOR_BYTES, Line, PATTERNS,
    assert_block, assert_half, assert_rows, assert_table,
};
use crate::table::LookupTable;
use core::arch::x86_64::*;

/// Bytes of four registers: the look-ups that add up in bytes.
const STEP: usize = 128;

/// PLACES[i]: for every byte of a table's register, dimension i of its group.
static PLACES: [[u8; 32]; 4] = {
    let mut places = [[0; 32]; 4];
    let mut at = 0;
    while at < 4 * 32 {
        let byte = at % 32;
        places[at / 32][byte] = (byte / GROUP_BYTES * 4 + at / 32) as u8;
        at += 1;
    }
    places
};

/// The table of [`crate::LookupTable`], two groups a turn: a shuffle gives all sixteen
/// bytes of a group the magnitude of its dimension i.
pub(super) fn fill_table(magnitudes: &[u8], flips: &[u8], table: &mut [u8]) {
    assert_table(magnitudes, flips, table);
    // SAFETY: as `block_bounds`; the shapes were asserted.
    unsafe { fill(magnitudes, flips, table) }
}

#[target_feature(enable = "avx2")]
unsafe fn fill(magnitudes: &[u8], flips: &[u8], table: &mut [u8]) {
    // SAFETY: 8 dimensions lie at `at` of `magnitudes` and `flips`, their
    // 32 bytes at 4 · at of `table`.
    unsafe {
        for at in (0..magnitudes.len()).step_by(8) {
            let spread = |from: *const u8| _mm256_set1_epi64x(from.cast::<i64>().read_unaligned());
            let (m, flip) = (
                spread(magnitudes.as_ptr().add(at)),
                spread(flips.as_ptr().add(at)),
            );
            let mut entries = _mm256_setzero_si256();
            for i in 0..4 {
                let place = _mm256_loadu_si256(PLACES[i].as_ptr().cast());
                let pattern =
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(PATTERNS[i].as_ptr().cast()));
                let counted = _mm256_xor_si256(pattern, _mm256_shuffle_epi8(flip, place));
                let share = _mm256_and_si256(counted, _mm256_shuffle_epi8(m, place));
                entries = _mm256_add_epi8(entries, share);
            }
            _mm256_storeu_si256(table.as_mut_ptr().add(4 * at).cast(), entries);
        }
    }
}

/// See [`crate::Kernels::block_bounds`].
pub(super) fn block_bounds(
    table: &[u8],
    block: &[u8],
    line: &Line,
    limit: f32,
    ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let codes = assert_block(table, block);
    // SAFETY: reachable only through the table, which `kernels_named` hands out
    // after it detected these features; the shapes were asserted.
    unsafe { bounds_of(table, block, codes, line, limit, ahead, bounds) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bounds_of(
    table: &[u8],
    block: &[u8],
    codes: usize,
    line: &Line,
    limit: f32,
    ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    // SAFETY: table has `codes` bytes, block `codes` + 256; chunks end at
    // multiples of STEP; factors are read at their eighths. Prefetches never
    // fault, and `ahead` is only used as an address.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); 4];
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS * GROUP_BYTES);
            let chunk = chunk_sums(table.as_ptr(), block.as_ptr(), at, end, ahead.as_ptr());
            for (sum, part) in sums.iter_mut().zip(chunk) {
                *sum = _mm256_add_epi32(*sum, part);
            }
            at = end;
        }
        for line in (codes..codes + BLOCK_FACTOR_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(line).cast());
        }
        bounds_of_sums(&sums, block.as_ptr().add(codes).cast(), line, limit, bounds)
    }
}

/// The bounds of eight rows for each part of the sums, and which are within the limit.
///
/// # Safety
/// `factors` points at two floats for each row.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn bounds_of_sums(
    sums: &[__m256i],
    factors: *const f32,
    line: &Line,
    limit: f32,
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let (add, shift) = (_mm256_set1_ps(line.add), _mm256_set1_ps(line.shift));
    let (scale, limit) = (_mm256_set1_ps(line.scale), _mm256_set1_ps(limit));
    let mut within = 0u32;
    for (part, (sum, bounds)) in sums.iter().zip(bounds.as_chunks_mut::<8>().0).enumerate() {
        // SAFETY: the caller vouches for the factors; `bounds` are eight floats.
        unsafe {
            let a = _mm256_loadu_ps(factors.add(8 * part));
            let b = _mm256_loadu_ps(factors.add(8 * (sums.len() + part)));
            let product = _mm256_fmadd_ps(_mm256_cvtepi32_ps(*sum), scale, shift);
            let bound = _mm256_fnmadd_ps(b, product, _mm256_add_ps(a, add));
            _mm256_storeu_ps(bounds.as_mut_ptr(), bound);
            let below = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(bound, limit));
            within |= (below as u32) << (8 * part);
        }
    }
    within
}

/// See [`crate::Kernels::half_bounds`].
pub(super) fn half_bounds(
    table: &[u8],
    half: &[u8],
    line: &Line,
    limit: f32,
    ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let codes = assert_half(table, half);
    // SAFETY: as `block_bounds`.
    unsafe { bounds_of_half(table, half, codes, line, limit, ahead, bounds) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bounds_of_half(
    table: &[u8],
    half: &[u8],
    codes: usize,
    line: &Line,
    limit: f32,
    ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    // SAFETY: half has `codes` + 128 bytes, table twice `codes`; chunks end at
    // multiples of 64, as `codes` is one.
    unsafe {
        let nibble = _mm256_set1_epi8(15);
        let byte = _mm256_set1_epi16(255);
        let (first, second) = (table.as_ptr(), table.as_ptr().add(codes));
        let mut sums = [_mm256_setzero_si256(); 2];
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS / 2 * GROUP_BYTES);
            let mut wide = [_mm256_setzero_si256(); 2];
            while at < end {
                let mut both = _mm256_setzero_si256();
                _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(at).cast());
                for i in [at, at + 32] {
                    let codes = _mm256_loadu_si256(half.as_ptr().add(i).cast());
                    let low = _mm256_loadu_si256(first.add(i).cast());
                    let high = _mm256_loadu_si256(second.add(i).cast());
                    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
                    let lower = _mm256_and_si256(codes, nibble);
                    both = _mm256_add_epi8(both, _mm256_shuffle_epi8(low, lower));
                    both = _mm256_add_epi8(both, _mm256_shuffle_epi8(high, upper));
                }
                wide[0] = _mm256_add_epi16(wide[0], _mm256_and_si256(both, byte));
                wide[1] = _mm256_add_epi16(wide[1], _mm256_srli_epi16::<8>(both));
                at += 64;
            }
            let (even, odd) = (halves(wide[0]), halves(wide[1]));
            let rows = [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)];
            for (sum, rows) in sums.iter_mut().zip(rows) {
                *sum = _mm256_add_epi32(*sum, _mm256_cvtepu16_epi32(rows));
            }
        }
        for line in (codes..codes + HALF_FACTOR_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(line).cast());
        }
        bounds_of_sums(&sums, half.as_ptr().add(codes).cast(), line, limit, bounds)
    }
}

/// The u32 sums of eight rows each over bytes [at, end) of table and block.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn chunk_sums(
    table: *const u8,
    block: *const u8,
    mut at: usize,
    end: usize,
    ahead: *const u8,
) -> [__m256i; 4] {
    // SAFETY: see the caller.
    unsafe {
        let nibble = _mm256_set1_epi8(15);
        let byte = _mm256_set1_epi16(255);
        // Even and odd rows of the low halves, then of the high halves.
        let mut wide = [_mm256_setzero_si256(); 4];
        while at < end {
            let mut low = _mm256_setzero_si256();
            let mut high = _mm256_setzero_si256();
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at).cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(at + 64).cast());
            for i in (at..at + STEP).step_by(32) {
                let codes = _mm256_loadu_si256(block.add(i).cast());
                let entries = _mm256_loadu_si256(table.add(i).cast());
                let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
                let lower = _mm256_and_si256(codes, nibble);
                low = _mm256_add_epi8(low, _mm256_shuffle_epi8(entries, lower));
                high = _mm256_add_epi8(high, _mm256_shuffle_epi8(entries, upper));
            }
            wide[0] = _mm256_add_epi16(wide[0], _mm256_and_si256(low, byte));
            wide[1] = _mm256_add_epi16(wide[1], _mm256_srli_epi16::<8>(low));
            wide[2] = _mm256_add_epi16(wide[2], _mm256_and_si256(high, byte));
            wide[3] = _mm256_add_epi16(wide[3], _mm256_srli_epi16::<8>(high));
            at += STEP;
        }
        let low = [halves(wide[0]), halves(wide[1])];
        let high = [halves(wide[2]), halves(wide[3])];
        [
            _mm256_cvtepu16_epi32(_mm_unpacklo_epi16(low[0], low[1])),
            _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(low[0], low[1])),
            _mm256_cvtepu16_epi32(_mm_unpacklo_epi16(high[0], high[1])),
            _mm256_cvtepu16_epi32(_mm_unpackhi_epi16(high[0], high[1])),
        ]
    }
}

/// The sum of a register's halves: it holds two groups side by side.
#[target_feature(enable = "avx2")]
#[inline]
fn halves(wide: __m256i) -> __m128i {
    _mm_add_epi16(
        _mm256_castsi256_si128(wide),
        _mm256_extracti128_si256::<1>(wide),
    )
}

/// See [`crate::Kernels::row_sums`].
pub(super) fn row_sums(table: &LookupTable, codes: &[u8], sums: &mut [u32]) {
    let words = assert_rows(table, codes, sums);
    if words == 0 {
        return sums.fill(0);
    }
    // SAFETY: as `block_bounds`; `kernels_named` asks for popcnt too.
    unsafe { sums_of(table, codes, words, sums) }
}

#[target_feature(enable = "popcnt")]
fn sums_of(table: &LookupTable, codes: &[u8], words: usize, sums: &mut [u32]) {
    for (sum, code) in sums.iter_mut().zip(codes.chunks_exact(8 * words)) {
        *sum = row_sum(table.planes(), table.negative(), code);
    }
}
