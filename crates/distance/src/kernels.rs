//! The table of kernels and the one look at the CPU that chooses it.
//!
//! 1. [`kernels_named`] answers a table only where the CPU has its instructions;
//!    this is the proof on which the safe function pointers rest.
//! 2. [`kernels`] takes the first name of [`KERNEL_NAMES`] that is there, once
//!    per process. Asking the CPU per call costs more than a short distance.

use crate::arch;
use crate::codes::{BLOCK_ROWS, CodeSums, Line};
use crate::table::LookupTable;
use std::sync::OnceLock;

/// Names of the tables, widest first; `scalar` is always there.
pub const KERNEL_NAMES: [&str; 4] = ["avx512", "avx2", "neon", "scalar"];

/// A distance of two vectors of equal length; panics where lengths differ.
pub type PairKernel = fn(&[f32], &[f32]) -> f32;
/// A query against contiguous rows: `rows.len() == query.len() · out.len()`,
/// `out[i] = f(query, rows[i·dim..(i+1)·dim])`; panics on any other shape.
pub type RowsKernel = fn(&[f32], &[f32], &mut [f32]);

/// See [`Kernels::block_bounds`].
pub type BlockKernel = fn(&[u8], &[u8], &Line, f32, &[u8], &mut [f32; BLOCK_ROWS]) -> u32;
/// See [`Kernels::row_sums`].
pub type RowSumsKernel = fn(&LookupTable, &[u8], &mut [u32]);

/// One instruction set's kernels. Sums of floats are kept in f32, in several lanes: the
/// error grows with dim / lanes rather than with dim. NaN in gives NaN out.
pub struct Kernels {
    /// One of [`KERNEL_NAMES`].
    pub name: &'static str,
    /// Σ aᵢ·bᵢ.
    pub dot: PairKernel,
    /// Σ (aᵢ−bᵢ)²: the square of the Euclidean distance.
    pub l2: PairKernel,
    /// Σ |aᵢ−bᵢ|.
    pub l1: PairKernel,
    /// √Σ aᵢ². Falls back to f64 where the sum of squares leaves f32's normal
    /// range, so that |a| is right for every finite vector whose norm f32 holds.
    pub norm: fn(&[f32]) -> f32,
    /// Σ aᵢ: as light as a kernel can be, for measuring memory.
    pub sum: fn(&[f32]) -> f32,
    /// [`Kernels::dot`] of a query and each of many rows.
    pub dot_rows: RowsKernel,
    /// [`Kernels::l2`] of a query and each of many rows.
    pub l2_rows: RowsKernel,
    /// [`Kernels::l1`] of a query and each of many rows.
    pub l1_rows: RowsKernel,
    /// (signs, x): x ← Walsh–Hadamard of signs ∘ x, in place, not normalised; the
    /// same bits on every instruction set. Both of one length, a power of two no
    /// less than 64.
    pub hadamard: fn(&[f32], &mut [f32]),
    /// Quantises a rotated query: see [`LookupTable::build`].
    pub(crate) quantise: fn(&mut LookupTable, &[f32]),
    /// (magnitudes, flips, table): each group of four dimensions' share of a sum, by
    /// pattern of bits. `table` has four bytes per dimension.
    pub(crate) fill_table: fn(&[u8], &[u8], &mut [u8]),
    /// (x, c, code): writes the signs of x − c, one bit per dimension, and answers
    /// the sums that a code's factors are made of.
    pub code_of: fn(&[f32], &[f32], &mut [u8]) -> CodeSums,
    /// (table, block, line, limit, ahead, bounds): the bound of each of a block's
    /// 32 rows by FastScan; answers bit r set where row r's bound ≤ limit.
    /// `ahead` is what will be scanned soon: it is prefetched, not read.
    pub block_bounds: BlockKernel,
    /// As `block_bounds` for a half block: bits and bounds 0 to 15.
    pub half_bounds: BlockKernel,
    /// (table, codes, sums): for `sums.len()` rows of row-major codes the same sums
    /// that FastScan adds up; the table's planes are built.
    pub row_sums: RowSumsKernel,
    /// How many values are ≤ limit; NaN never is.
    pub count_le: fn(&[f32], f32) -> usize,
    /// Writes the positions of the values ≤ limit, in order, and answers how many
    /// there are; what lies beyond them is overwritten too. The positions' slice
    /// must be as long as the values'.
    pub positions_le: fn(&[f32], f32, &mut [u32]) -> usize,
    /// Σ aᵢ·bᵢ of bytes, exact to 65,536 dimensions.
    pub dot_i8: fn(&[i8], &[i8]) -> i32,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish()
    }
}

/// The widest kernels this CPU runs; chosen at the first call.
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        KERNEL_NAMES
            .into_iter()
            .find_map(kernels_named)
            .unwrap_or(&arch::scalar::KERNELS)
    })
}

/// The kernels of one name; None where the name is unknown or the CPU lacks the
/// instructions. For tests, benches and `doctor`.
pub fn kernels_named(name: &str) -> Option<&'static Kernels> {
    match name {
        "scalar" => Some(&arch::scalar::KERNELS),
        #[cfg(target_arch = "x86_64")]
        "avx2" if has_avx2() => Some(&arch::x86_64::avx2::KERNELS),
        #[cfg(target_arch = "x86_64")]
        "avx512" if has_avx2() && has_avx512() => Some(&arch::x86_64::avx512::KERNELS),
        #[cfg(target_arch = "aarch64")]
        "neon" if std::arch::is_aarch64_feature_detected!("neon") => {
            Some(&arch::aarch64::neon::KERNELS)
        }
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("bmi1")
}

/// What Ice Lake, Zen 4 and their successors have. Older CPUs with AVX-512 lack
/// VNNI, or lower their clock for wide registers: they take AVX2. (VPOPCNTDQ tells
/// the newer ones apart; masked VNNI turned out faster than its counts.)
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vpopcntdq")
}

/// The norm from the sum of squares that a kernel computed, or again in f64
/// where that sum overflowed, vanished or lost precision.
pub(crate) fn norm_of(squares: f32, vector: &[f32]) -> f32 {
    // A square below f32's normal range is off by at most 2⁻¹⁵⁰; 65,536 of them
    // by 5e-41, which is nothing beside this.
    const SQUARES_MIN: f32 = 1e-30;
    if squares.is_finite() && squares >= SQUARES_MIN {
        return squares.sqrt();
    }
    let exact: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    exact.sqrt() as f32
}
