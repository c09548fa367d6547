//! Compaction: a pure policy that says what to do; merges, and the training of
//! centroids, which do it.

mod merge;
mod plan;
mod train;

pub use merge::{Ended, MergeOptions, Merged, Progress};
pub use plan::{PlanOptions, Policy, Spec, plan_compaction};
