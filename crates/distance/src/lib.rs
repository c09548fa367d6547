//! Distance kernels: f32 dot, squared L2, L1 and norm at memory speed; 1-bit codes
//! (rotation, look-up tables, FastScan blocks, bit counts); int8; and selection of
//! the smallest, by threshold or by a bounded heap.
//!
//! How it is put together:
//! 1. `arch/generic.rs` holds each algorithm once, over a small `Vector` trait:
//!    one pair of vectors, or one query against contiguous rows, four rows at a
//!    time so that every load of the query serves four rows.
//! 2. `arch/<isa>` names the registers and wraps the algorithms in functions
//!    that are compiled for that instruction set. `arch/scalar.rs` is written
//!    apart: it is the reference as well as the fallback.
//!    Codes and selection are written out per instruction set (`<isa>_codes.rs`,
//!    `<isa>_select.rs`), each beside a plain reference.
//! 3. [`kernels`] looks at the CPU once, takes the widest table, and keeps it.
//!
//! Invariants: a table is handed out only where the CPU has its instructions;
//! every kernel asserts the shapes of its slices before it touches memory; NaN
//! in any float input gives NaN. Kernels never allocate. No I/O, no environment.

mod arch;
mod bandwidth;
mod codes;
mod kernels;
mod memory;
mod metric;
mod rotation;
mod select;
mod table;
mod topk;

pub use bandwidth::read_bandwidth;
pub use codes::{
    BLOCK_FACTOR_BYTES, BLOCK_ROWS, CODE_DIM_STEP, CodeSums, HALF_FACTOR_BYTES, HALF_ROWS, Line,
    PLANES, block_bytes, code_bytes, factors_of, half_bytes, pack_block, pack_half,
    unpack_half_row, unpack_row,
};
pub use kernels::{BlockKernel, KERNEL_NAMES, Kernels, kernels, kernels_named};
pub use memory::{HugeBytes, prefetch};
pub use metric::Metric;
pub use rotation::Rotation;
pub use select::limit_of_smallest;
pub use table::LookupTable;
pub use topk::TopK;
