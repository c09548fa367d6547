//! Named points of the commit protocol where a test may end the process.

use std::sync::Arc;

/// Called with the name of a point as it is passed; never returns where it kills.
pub type CrashPoint = Arc<dyn Fn(&str) + Send + Sync>;

/// The commit is encoded, its base durable, its slot not yet written.
pub const COMMIT_BEFORE_CREATE: &str = "commit:before-create";
/// The slot is ours, nothing acknowledged, HEAD behind.
pub const COMMIT_AFTER_CREATE: &str = "commit:after-create";
/// The boundary check passed, HEAD about to move.
pub const HEAD_BEFORE_SWAP: &str = "head:before-swap";

/// Passes every point.
pub fn none() -> CrashPoint {
    Arc::new(|_| {})
}
