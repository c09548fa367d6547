//! Code kernels in plain Rust: what the others must equal.

use crate::codes::{
    BLOCK_ROWS, GROUP_BYTES, HALF_ROWS, Line, PATTERNS, assert_block, assert_half, assert_rows,
    assert_table, assert_transformable, factors_of,
};

use crate::table::LookupTable;

/// The table of [`crate::LookupTable`]: the first step of FastScan.
pub(crate) fn fill_table(magnitudes: &[u8], flips: &[u8], table: &mut [u8]) {
    assert_table(magnitudes, flips, table);
    let groups = magnitudes.as_chunks::<4>().0.iter();
    let groups = groups.zip(flips.as_chunks::<4>().0);
    for ((m, flip), entries) in groups.zip(table.as_chunks_mut::<GROUP_BYTES>().0) {
        for (n, entry) in entries.iter_mut().enumerate() {
            let share = |i: usize| (PATTERNS[i][n] ^ flip[i]) & m[i];
            *entry = share(0) + share(1) + share(2) + share(3);
        }
    }
}

/// See [`crate::Kernels::block_bounds`].
pub(super) fn block_bounds(
    table: &[u8],
    block: &[u8],
    line: &Line,
    limit: f32,
    _ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let codes = assert_block(table, block);
    let mut sums = [0u32; BLOCK_ROWS];
    let groups = block[..codes].chunks_exact(GROUP_BYTES);
    for (entries, group) in table.chunks_exact(GROUP_BYTES).zip(groups) {
        for (row, byte) in group.iter().enumerate() {
            sums[row] += u32::from(entries[usize::from(byte & 15)]);
            sums[row + 16] += u32::from(entries[usize::from(byte >> 4)]);
        }
    }
    bounds_of(&sums, &block[codes..], line, limit, bounds)
}

/// See [`crate::Kernels::half_bounds`].
pub(super) fn half_bounds(
    table: &[u8],
    half: &[u8],
    line: &Line,
    limit: f32,
    _ahead: &[u8],
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let codes = assert_half(table, half);
    let mut sums = [0u32; HALF_ROWS];
    let (first, second) = table.split_at(codes);
    let tables = first.chunks_exact(GROUP_BYTES);
    let tables = tables.zip(second.chunks_exact(GROUP_BYTES));
    for (group, (low, high)) in half[..codes].chunks_exact(GROUP_BYTES).zip(tables) {
        for (sum, byte) in sums.iter_mut().zip(group) {
            let looked_up = (low[usize::from(byte & 15)], high[usize::from(byte >> 4)]);
            *sum += u32::from(looked_up.0) + u32::from(looked_up.1);
        }
    }
    bounds_of(&sums, &half[codes..], line, limit, bounds)
}

fn bounds_of(
    sums: &[u32],
    factors: &[u8],
    line: &Line,
    limit: f32,
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut within = 0;
    for (row, sum) in sums.iter().enumerate() {
        let (a, b) = factors_of(factors, sums.len(), row);
        bounds[row] = line.bound(a, b, *sum);
        within |= u32::from(bounds[row] <= limit) << row;
    }
    within
}

/// See [`crate::Kernels::row_sums`].
pub(super) fn row_sums(table: &LookupTable, codes: &[u8], sums: &mut [u32]) {
    let words = assert_rows(table, codes, sums);
    if words == 0 {
        return sums.fill(0);
    }
    for (sum, code) in sums.iter_mut().zip(codes.chunks_exact(8 * words)) {
        *sum = row_sum(table.planes(), table.negative(), code);
    }
}

/// One row's sum; instruction sets with a popcount compile it anew.
#[inline(always)]
pub(super) fn row_sum(planes: &[u64], negative: &[u64], code: &[u8]) -> u32 {
    let mut total = 0;
    for (place, plane) in planes.chunks_exact(negative.len()).enumerate() {
        let words = code.as_chunks::<8>().0.iter().zip(negative).zip(plane);
        let counts = words.map(|((word, negative), plane)| {
            ((u64::from_le_bytes(*word) ^ negative) & plane).count_ones()
        });
        total += counts.sum::<u32>() << place;
    }
    total
}

/// See [`crate::Kernels::hadamard`].
pub(super) fn hadamard(signs: &[f32], x: &mut [f32]) {
    assert_transformable(signs, x);
    x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
    let mut stride = 1;
    while stride < x.len() {
        for pair in x.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        stride *= 2;
    }
}
