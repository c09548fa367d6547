//! Search over rows that somebody else owns: today the exact flat scan.
//!
//! A scan takes borrowed rows, their norms, and a predicate that hides rows; it
//! pushes (key, id) pairs into the caller's [`TopK`](vexlake_distance::TopK).
//! Keys are those of [`Metric`](vexlake_distance::Metric): smaller is nearer.
//! Nothing here does I/O, allocates per row, or knows where rows came from.

mod query;
mod scan;

pub use query::Query;
pub use scan::scan;
