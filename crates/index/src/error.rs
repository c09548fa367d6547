//! What can be wrong with bytes, shapes and queries.

/// Errors of this crate. Bytes are judged where they enter; a typed error is the
/// answer to any corruption, and never a wrong list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The bytes are not what was written: fetch them again, else rebuild.
    #[error("corrupt {section} at byte {offset}: {reason}")]
    Corrupt {
        /// The part of the object.
        section: &'static str,
        /// Where in the object's bytes the reader stopped.
        offset: u64,
        /// What it found there.
        reason: &'static str,
    },
    /// Written by a later version of this program: upgrade it.
    #[error("{section} has format version {found}, this program reads {known}")]
    Version {
        /// The part of the object.
        section: &'static str,
        /// The version in the bytes.
        found: u32,
        /// The version that is known.
        known: u32,
    },
    /// Parts that do not belong together: another dimension, metric, centroid
    /// version or number of rows.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// The value given.
        found: u64,
        /// The value that fits.
        expected: u64,
    },
    /// The vector or the metric is outside of what codes can tell apart: scan
    /// exactly instead.
    #[error("codes cannot serve this: {0}")]
    BeyondCodes(&'static str),
}
