//! Kernels in plain Rust: the reference that the others are read against, and
//! what a CPU without a known instruction set runs.
//!
//! Eight independent sums, so that the compiler may use whatever vectors the
//! target always has and rounding grows with dim / 8. No fused multiply-add:
//! without hardware for it that is a library call per element.

use super::{scalar_codes, scalar_select};
use crate::kernels::{Kernels, norm_of};

/// Independent sums per vector.
const LANES: usize = 8;

pub(crate) static KERNELS: Kernels = Kernels {
    name: "scalar",
    dot,
    l2,
    l1,
    norm,
    sum,
    dot_rows: |query, rows, out| each_row(dot, query, rows, out),
    l2_rows: |query, rows, out| each_row(l2, query, rows, out),
    l1_rows: |query, rows, out| each_row(l1, query, rows, out),
    hadamard: scalar_codes::hadamard,
    quantise: |table, rotated| table.quantise(rotated),
    fill_table: scalar_codes::fill_table,
    code_of: crate::codes::code_of,
    block_bounds: scalar_codes::block_bounds,
    half_bounds: scalar_codes::half_bounds,
    row_sums: scalar_codes::row_sums,
    count_le: scalar_select::count_le,
    positions_le: scalar_select::positions_le,
    dot_i8: scalar_select::dot_i8,
};

fn dot(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| x * y)
}

fn l2(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| (x - y) * (x - y))
}

fn l1(a: &[f32], b: &[f32]) -> f32 {
    fold(a, b, |x, y| (x - y).abs())
}

fn norm(a: &[f32]) -> f32 {
    norm_of(dot(a, a), a)
}

fn sum(a: &[f32]) -> f32 {
    fold(a, a, |x, _| x)
}

#[inline(always)]
fn fold(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of different dimensions");
    let mut lanes = [0.0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane], y[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    lanes.iter().sum::<f32>() + rest
}

fn each_row(pair: fn(&[f32], &[f32]) -> f32, query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    assert_eq!(rows.len(), dim * out.len(), "rows of another shape");
    for (row, out) in out.iter_mut().enumerate() {
        *out = pair(query, &rows[row * dim..(row + 1) * dim]);
    }
}
