//! Distance kernels: f32 dot, squared L2, L1 and norm at memory speed, and the
//! bounded heap that keeps the nearest k.
//!
//! How it is put together:
//! 1. `arch/generic.rs` holds each algorithm once, over a small `Vector` trait:
//!    one pair of vectors, or one query against contiguous rows, four rows at a
//!    time so that every load of the query serves four rows.
//! 2. `arch/<isa>` names the registers and wraps the algorithms in functions
//!    that are compiled for that instruction set. `arch/scalar.rs` is written
//!    apart: it is the reference as well as the fallback.
//! 3. [`kernels`] looks at the CPU once, takes the widest table, and keeps it.
//!
//! Invariants: a table is handed out only where the CPU has its instructions;
//! every kernel asserts the shapes of its slices before it touches memory; NaN
//! in any input gives NaN. Nothing here allocates, except [`TopK`] and
//! [`read_bandwidth`]. No I/O, no environment.

mod arch;
mod bandwidth;
mod kernels;
mod metric;
mod topk;

pub use bandwidth::read_bandwidth;
pub use kernels::{KERNEL_NAMES, Kernels, kernels, kernels_named};
pub use metric::Metric;
pub use topk::TopK;
