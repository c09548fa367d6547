//! What can be wrong with the text of a filter.

/// Why a filter's text is refused. Tell the one who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter is wrong at byte {at}: expected {expected}, found {found}")]
pub struct FilterError {
    /// Where in the text, in bytes.
    pub at: usize,
    /// What could stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl FilterError {
    pub(super) fn new(at: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            at,
            expected: expected.into(),
            found: found.into(),
        }
    }
}
