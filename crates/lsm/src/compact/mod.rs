//! Compaction: a pure policy that says what to merge, and the merge that does it.
mod merge;
mod plan;

pub use merge::{MergeOptions, Merged, Progress};
pub use plan::{PlanOptions, Policy, Spec, plan_compaction};
