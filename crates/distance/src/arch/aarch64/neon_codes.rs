//! Code kernels with NEON: one group to a register, four look-ups added in bytes
//! before they widen into u16. Compiled where its target is installed.

#![allow(
    unused_unsafe,
    reason = "NEON is part of the aarch64 baseline, where its intrinsics are safe to call"
)]

use crate::codes::{
    BLOCK_ROWS, CHUNK_GROUPS, GROUP_BYTES, HALF_ROWS, Line, PLANES, assert_block, assert_half,
    assert_rows,
};
use crate::table::LookupTable;
use core::arch::aarch64::*;

/// Bytes of four registers: the look-ups that add up in bytes.
const STEP: usize = 4 * GROUP_BYTES;

/// Sixteen bytes in a plain loop are one NEON register: the reference it is.
pub(super) use crate::arch::scalar_codes::fill_table;

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
    // SAFETY: reachable only through the table, which `kernels_named` hands out
    // after it detected NEON; the shapes were asserted.
    unsafe { bounds_of(table, block, codes, line, limit, bounds) }
}

#[target_feature(enable = "neon")]
unsafe fn bounds_of(
    table: &[u8],
    block: &[u8],
    codes: usize,
    line: &Line,
    limit: f32,
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut sums = [0u32; BLOCK_ROWS];
    // SAFETY: table has `codes` bytes, block `codes` + 256; chunks end at
    // multiples of STEP; factors and sums are read at their eighths of 4 lanes.
    unsafe {
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS * GROUP_BYTES);
            let mut chunk = [0u16; BLOCK_ROWS];
            for (part, rows) in chunk_sums(table.as_ptr(), block.as_ptr(), at, end)
                .into_iter()
                .enumerate()
            {
                vst1q_u16(chunk.as_mut_ptr().add(8 * part), rows);
            }
            for (sum, part) in sums.iter_mut().zip(chunk) {
                *sum += u32::from(part);
            }
            at = end;
        }
        bounds_of_sums(&sums, block.as_ptr().add(codes).cast(), line, limit, bounds)
    }
}

/// The bounds of the rows of the sums, and which are within the limit.
///
/// # Safety
/// There are at most 32 sums, a multiple of four, and `factors` points at two floats
/// for each.
#[inline(always)]
unsafe fn bounds_of_sums(
    sums: &[u32],
    factors: *const f32,
    line: &Line,
    limit: f32,
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let (add, shift) = (vdupq_n_f32(line.add), vdupq_n_f32(line.shift));
        let scale = vdupq_n_f32(line.scale);
        for part in (0..sums.len()).step_by(4) {
            let sum = vcvtq_f32_u32(vld1q_u32(sums.as_ptr().add(part)));
            let a = vld1q_f32(factors.add(part));
            let b = vld1q_f32(factors.add(sums.len() + part));
            let bound = vfmsq_f32(vaddq_f32(a, add), b, vfmaq_f32(shift, sum, scale));
            vst1q_f32(bounds.as_mut_ptr().add(part), bound);
        }
    }
    let within = bounds[..sums.len()].iter().enumerate();
    within.fold(0, |mask, (row, bound)| {
        mask | (u32::from(*bound <= limit) << row)
    })
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
    // SAFETY: as `block_bounds`.
    unsafe { bounds_of_half(table, half, codes, line, limit, bounds) }
}

#[target_feature(enable = "neon")]
unsafe fn bounds_of_half(
    table: &[u8],
    half: &[u8],
    codes: usize,
    line: &Line,
    limit: f32,
    bounds: &mut [f32; BLOCK_ROWS],
) -> u32 {
    let mut sums = [0u32; HALF_ROWS];
    // SAFETY: half has `codes` + 128 bytes, table twice `codes`; chunks end at
    // multiples of 32, as `codes` is one.
    unsafe {
        let nibble = vdupq_n_u8(15);
        let (first, second) = (table.as_ptr(), table.as_ptr().add(codes));
        let mut at = 0;
        while at < codes {
            let end = codes.min(at + CHUNK_GROUPS / 2 * GROUP_BYTES);
            let mut wide = [vdupq_n_u16(0); 2];
            while at < end {
                let mut both = vdupq_n_u8(0);
                for i in [at, at + GROUP_BYTES] {
                    let codes = vld1q_u8(half.as_ptr().add(i));
                    let (low, high) = (vld1q_u8(first.add(i)), vld1q_u8(second.add(i)));
                    both = vaddq_u8(both, vqtbl1q_u8(low, vandq_u8(codes, nibble)));
                    both = vaddq_u8(both, vqtbl1q_u8(high, vshrq_n_u8::<4>(codes)));
                }
                wide[0] = vaddw_u8(wide[0], vget_low_u8(both));
                wide[1] = vaddw_high_u8(wide[1], both);
                at += 2 * GROUP_BYTES;
            }
            let mut chunk = [0u16; HALF_ROWS];
            vst1q_u16(chunk.as_mut_ptr(), wide[0]);
            vst1q_u16(chunk.as_mut_ptr().add(8), wide[1]);
            for (sum, part) in sums.iter_mut().zip(chunk) {
                *sum += u32::from(part);
            }
        }
        bounds_of_sums(&sums, half.as_ptr().add(codes).cast(), line, limit, bounds)
    }
}

/// The u16 sums of eight rows each over bytes [at, end) of table and block.
#[inline(always)]
unsafe fn chunk_sums(
    table: *const u8,
    block: *const u8,
    mut at: usize,
    end: usize,
) -> [uint16x8_t; 4] {
    // SAFETY: see the caller.
    unsafe {
        let nibble = vdupq_n_u8(15);
        let mut wide = [vdupq_n_u16(0); 4];
        while at < end {
            let mut low = vdupq_n_u8(0);
            let mut high = vdupq_n_u8(0);
            for i in (at..at + STEP).step_by(GROUP_BYTES) {
                let codes = vld1q_u8(block.add(i));
                let entries = vld1q_u8(table.add(i));
                low = vaddq_u8(low, vqtbl1q_u8(entries, vandq_u8(codes, nibble)));
                high = vaddq_u8(high, vqtbl1q_u8(entries, vshrq_n_u8::<4>(codes)));
            }
            wide[0] = vaddw_u8(wide[0], vget_low_u8(low));
            wide[1] = vaddw_high_u8(wide[1], low);
            wide[2] = vaddw_u8(wide[2], vget_low_u8(high));
            wide[3] = vaddw_high_u8(wide[3], high);
            at += STEP;
        }
        wide
    }
}

/// See [`crate::Kernels::row_sums`].
pub(super) fn row_sums(table: &LookupTable, codes: &[u8], sums: &mut [u32]) {
    let words = assert_rows(table, codes, sums);
    // SAFETY: as `block_bounds`.
    unsafe { sums_of(table.planes(), table.negative(), codes, words, sums) }
}

#[target_feature(enable = "neon")]
unsafe fn sums_of(planes: &[u64], negative: &[u64], codes: &[u8], words: usize, sums: &mut [u32]) {
    // SAFETY: row r spans `words` u64 at 8 · words · r of `codes`, plane p the
    // same number at words · p.
    unsafe {
        for (row, sum) in sums.iter_mut().enumerate() {
            let code = codes.as_ptr().add(8 * words * row);
            let mut counts = [0u32; PLANES];
            for at in 0..words {
                let word = vld1_u8(code.add(8 * at));
                let flip = vld1_u8(negative.as_ptr().add(at).cast());
                let counted = veor_u8(word, flip);
                for (plane, count) in counts.iter_mut().enumerate() {
                    let plane = vld1_u8(planes.as_ptr().add(plane * words + at).cast());
                    *count += u32::from(vaddv_u8(vcnt_u8(vand_u8(counted, plane))));
                }
            }
            *sum = (0..PLANES).map(|plane| counts[plane] << plane).sum();
        }
    }
}
