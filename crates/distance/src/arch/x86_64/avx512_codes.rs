//! Code kernels with AVX-512: BW for byte shuffles, VNNI for row-major codes.
//!
//! Blocks: a register holds four groups of 16 rows' bytes; two shuffles look up
//! its low and high halves. Four registers' look-ups add up in bytes (entries of
//! one group never sum above 63), then widen into u16: even and odd rows apart. A half
//! block's two halves belong to the same rows, so two registers fill a byte.

use crate::codes::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, CHUNK_GROUPS, GROUP_BYTES, HALF_FACTOR_BYTES, Line, PATTERNS,
    assert_block, assert_half, assert_rows, assert_table,
};
use crate::table::LookupTable;
use core::arch::x86_64::*;

/// Bytes of 64 dimensions of a block or a table: four registers.
const STEP: usize = 256;

/// PLACES[i]: for every byte of a table's register, dimension i of its group.
static PLACES: [[u8; 64]; 4] = {
    let mut places = [[0; 64]; 4];
    let mut at = 0;
    while at < 4 * 64 {
        let byte = at % 64;
        places[at / 64][byte] = (byte / GROUP_BYTES * 4 + at / 64) as u8;
        at += 1;
    }
    places
};

/// The table of [`crate::LookupTable`], four groups a turn: a shuffle gives all sixteen
/// bytes of a group the magnitude of its dimension i.
pub(super) fn fill_table(magnitudes: &[u8], flips: &[u8], table: &mut [u8]) {
    assert_table(magnitudes, flips, table);
    // SAFETY: as `block_bounds`; the shapes were asserted.
    unsafe { fill(magnitudes, flips, table) }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn fill(magnitudes: &[u8], flips: &[u8], table: &mut [u8]) {
    // SAFETY: 16 dimensions lie at `at` of `magnitudes` and `flips`, their
    // 64 bytes at 4 · at of `table`.
    unsafe {
        for at in (0..magnitudes.len()).step_by(16) {
            let spread = |from: *const u8| _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast()));
            let (m, flip) = (
                spread(magnitudes.as_ptr().add(at)),
                spread(flips.as_ptr().add(at)),
            );
            let mut entries = _mm512_setzero_si512();
            for i in 0..4 {
                let place = _mm512_loadu_si512(PLACES[i].as_ptr().cast());
                let pattern = _mm512_broadcast_i32x4(_mm_loadu_si128(PATTERNS[i].as_ptr().cast()));
                let counted = _mm512_xor_si512(pattern, _mm512_shuffle_epi8(flip, place));
                let share = _mm512_and_si512(counted, _mm512_shuffle_epi8(m, place));
                entries = _mm512_add_epi8(entries, share);
            }
            _mm512_storeu_si512(table.as_mut_ptr().add(4 * at).cast(), entries);
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

#[target_feature(enable = "avx512f,avx512bw")]
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
    // multiples of STEP; factors are read at their four quarters. Prefetches
    // never fault, and `ahead` is only used as an address.
    unsafe {
        let mut sums = [_mm512_setzero_si512(); 2];
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS * GROUP_BYTES);
            let chunk = chunk_sums(table.as_ptr(), block.as_ptr(), at, end, ahead.as_ptr());
            sums[0] = _mm512_add_epi32(sums[0], chunk[0]);
            sums[1] = _mm512_add_epi32(sums[1], chunk[1]);
            at = end;
        }
        for line in (codes..codes + BLOCK_FACTOR_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(line).cast());
        }
        let factors = block.as_ptr().add(codes).cast::<f32>();
        let mut within = 0u32;
        for (half, sum) in sums.into_iter().enumerate() {
            let a = _mm512_loadu_ps(factors.add(16 * half));
            let b = _mm512_loadu_ps(factors.add(32 + 16 * half));
            let bound = bounds_of_sums(sum, a, b, line);
            _mm512_storeu_ps(bounds.as_mut_ptr().add(16 * half), bound);
            let below = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(bound, _mm512_set1_ps(limit));
            within |= u32::from(below) << (16 * half);
        }
        within
    }
}

/// See [`Line::bound`].
#[target_feature(enable = "avx512f")]
#[inline]
fn bounds_of_sums(sums: __m512i, a: __m512, b: __m512, line: &Line) -> __m512 {
    let (scale, shift) = (_mm512_set1_ps(line.scale), _mm512_set1_ps(line.shift));
    let product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, shift);
    _mm512_fnmadd_ps(b, product, _mm512_add_ps(a, _mm512_set1_ps(line.add)))
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

#[target_feature(enable = "avx512f,avx512bw")]
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
    // multiples of 128, as `codes` is one; factors are read at their halves.
    unsafe {
        let nibble = _mm512_set1_epi8(15);
        let byte = _mm512_set1_epi16(255);
        let (first, second) = (table.as_ptr(), table.as_ptr().add(codes));
        let mut sums = _mm512_setzero_si512();
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS / 2 * GROUP_BYTES);
            let mut wide = [_mm512_setzero_si512(); 2];
            while at < end {
                let mut both = _mm512_setzero_si512();
                for i in [at, at + 64] {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(i).cast());
                    let codes = _mm512_loadu_si512(half.as_ptr().add(i).cast());
                    let low = _mm512_loadu_si512(first.add(i).cast());
                    let high = _mm512_loadu_si512(second.add(i).cast());
                    let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
                    let lower = _mm512_and_si512(codes, nibble);
                    both = _mm512_add_epi8(both, _mm512_shuffle_epi8(low, lower));
                    both = _mm512_add_epi8(both, _mm512_shuffle_epi8(high, upper));
                }
                wide[0] = _mm512_add_epi16(wide[0], _mm512_and_si512(both, byte));
                wide[1] = _mm512_add_epi16(wide[1], _mm512_srli_epi16::<8>(both));
                at += 128;
            }
            sums = _mm512_add_epi32(sums, woven(quarters(wide[0]), quarters(wide[1])));
        }
        for line in (codes..codes + HALF_FACTOR_BYTES).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(ahead.as_ptr().wrapping_add(line).cast());
        }
        let factors = half.as_ptr().add(codes).cast::<f32>();
        let (a, b) = (_mm512_loadu_ps(factors), _mm512_loadu_ps(factors.add(16)));
        let bound = bounds_of_sums(sums, a, b, line);
        _mm512_storeu_ps(bounds.as_mut_ptr(), bound);
        u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(
            bound,
            _mm512_set1_ps(limit),
        ))
    }
}

/// The u32 sums of rows 0–15 and 16–31 over bytes [at, end) of table and block.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn chunk_sums(
    table: *const u8,
    block: *const u8,
    mut at: usize,
    end: usize,
    ahead: *const u8,
) -> [__m512i; 2] {
    // SAFETY: see the caller.
    unsafe {
        let nibble = _mm512_set1_epi8(15);
        let byte = _mm512_set1_epi16(255);
        // Even and odd rows of the low halves, then of the high halves.
        let mut wide = [_mm512_setzero_si512(); 4];
        while at < end {
            let mut low = _mm512_setzero_si512();
            let mut high = _mm512_setzero_si512();
            for i in (at..at + STEP).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(i).cast());
                let codes = _mm512_loadu_si512(block.add(i).cast());
                let entries = _mm512_loadu_si512(table.add(i).cast());
                let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
                let lower = _mm512_and_si512(codes, nibble);
                low = _mm512_add_epi8(low, _mm512_shuffle_epi8(entries, lower));
                high = _mm512_add_epi8(high, _mm512_shuffle_epi8(entries, upper));
            }
            wide[0] = _mm512_add_epi16(wide[0], _mm512_and_si512(low, byte));
            wide[1] = _mm512_add_epi16(wide[1], _mm512_srli_epi16::<8>(low));
            wide[2] = _mm512_add_epi16(wide[2], _mm512_and_si512(high, byte));
            wide[3] = _mm512_add_epi16(wide[3], _mm512_srli_epi16::<8>(high));
            at += STEP;
        }
        [
            woven(quarters(wide[0]), quarters(wide[1])),
            woven(quarters(wide[2]), quarters(wide[3])),
        ]
    }
}

/// The sum of a register's quarters: it holds four groups side by side.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn quarters(wide: __m512i) -> __m128i {
    let low = _mm512_castsi512_si256(wide);
    let half = _mm256_add_epi16(low, _mm512_extracti64x4_epi64::<1>(wide));
    _mm_add_epi16(
        _mm256_castsi256_si128(half),
        _mm256_extracti128_si256::<1>(half),
    )
}

/// Even and odd rows back in order, as u32.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn woven(even: __m128i, odd: __m128i) -> __m512i {
    let first = _mm_unpacklo_epi16(even, odd);
    let second = _mm_unpackhi_epi16(even, odd);
    _mm512_cvtepu16_epi32(_mm256_set_m128i(second, first))
}

/// See [`crate::Kernels::row_sums`]. A word of a code masks 64 signed bytes of the
/// query, which VNNI adds up four to a lane: less work than counting the
/// bits of six planes (14 ns a row of 768 bits became 9, 8 ns of 128 became 3).
pub(super) fn row_sums(table: &LookupTable, codes: &[u8], sums: &mut [u32]) {
    let words = assert_rows(table, codes, sums);
    // SAFETY: as `block_bounds`.
    unsafe { sums_of(table, codes, words, sums) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums_of(table: &LookupTable, codes: &[u8], words: usize, sums: &mut [u32]) {
    let signed = table.signed().as_ptr();
    let ones = _mm512_set1_epi8(1);
    for (row, sum) in sums.iter_mut().enumerate() {
        let mut total = [_mm512_setzero_si512(); 2];
        for word in 0..words {
            // SAFETY: row r spans `words` u64 at 8 · words · r of `codes`, unaligned;
            // word w masks the 64 bytes at 64 · w of `signed`.
            let masked = unsafe {
                let at = codes.as_ptr().add(8 * (words * row + word));
                let bits = at.cast::<u64>().read_unaligned();
                _mm512_maskz_loadu_epi8(bits, signed.add(64 * word))
            };
            total[word % 2] = _mm512_dpbusd_epi32(total[word % 2], ones, masked);
        }
        let total = _mm512_reduce_add_epi32(_mm512_add_epi32(total[0], total[1]));
        // Never negative: every negative mᵢ is in the total that is added.
        *sum = table.negative_total().wrapping_add_signed(total);
    }
}
