//! The one error of this crate and the narrow kind that callers act on.

use crate::meta::INDEX_FILE;
use parquet::errors::ParquetError;
use std::path::PathBuf;
use vexlake_index::IndexError;
use vexlake_store::{StoreError, StoreErrorKind};

/// What a caller should do about a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SegmentErrorKind {
    /// The caller's record, shape or range is not acceptable. Correct it.
    Invalid,
    /// A file of the segment is not there. Reload the version that named it.
    NotFound,
    /// The store did not answer. Try again later.
    Unavailable,
    /// The store said no. A person has to act.
    Refused,
    /// Bytes do not match their checksum or contradict each other. Damaged
    /// `index.vxi`: rebuild it. Damaged Parquet: restore the file.
    Corrupt,
    /// The local disk or a library failed; the message says which. Retry the work.
    Internal,
}

/// A failure to write or read a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A record, shape or range outside the limits.
    #[error("{what} is {actual}, must be {expected}")]
    Invalid {
        /// The field or argument.
        what: &'static str,
        /// What was given.
        actual: String,
        /// What is accepted.
        expected: String,
    },
    /// Bytes that do not say what they must.
    #[error("{file} is damaged at byte {offset} ({section}): {message}")]
    Corrupt {
        /// The file's name inside the segment.
        file: &'static str,
        /// The section, page or column concerned.
        section: String,
        /// The first byte of what is damaged, from the start of the file.
        offset: u64,
        /// What was found and what was expected.
        message: String,
    },
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A local spool file failed.
    #[error("spool file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The Parquet library failed on bytes that match their checksums.
    #[error("parquet failed on {file}: {source}")]
    Parquet {
        /// The file's name inside the segment.
        file: &'static str,
        /// The cause.
        source: ParquetError,
    },
    /// A worker thread was cancelled or panicked.
    #[error("background work ended early: {message}")]
    Worker {
        /// What the runtime said.
        message: String,
    },
}

impl SegmentError {
    /// What the caller should do.
    pub fn kind(&self) -> SegmentErrorKind {
        match self {
            SegmentError::Invalid { .. } => SegmentErrorKind::Invalid,
            SegmentError::Corrupt { .. } => SegmentErrorKind::Corrupt,
            SegmentError::Store(error) => match error.kind {
                StoreErrorKind::NotFound => SegmentErrorKind::NotFound,
                StoreErrorKind::Unavailable => SegmentErrorKind::Unavailable,
                StoreErrorKind::Refused => SegmentErrorKind::Refused,
                StoreErrorKind::Corrupt => SegmentErrorKind::Corrupt,
            },
            SegmentError::Io { .. }
            | SegmentError::Parquet { .. }
            | SegmentError::Worker { .. } => SegmentErrorKind::Internal,
        }
    }

    pub(crate) fn invalid(
        what: &'static str,
        actual: impl ToString,
        expected: impl ToString,
    ) -> Self {
        SegmentError::Invalid {
            what,
            actual: actual.to_string(),
            expected: expected.to_string(),
        }
    }

    pub(crate) fn corrupt(
        file: &'static str,
        section: impl Into<String>,
        offset: u64,
        message: impl Into<String>,
    ) -> Self {
        SegmentError::Corrupt {
            file,
            section: section.into(),
            offset,
            message: message.into(),
        }
    }

    pub(crate) fn lists(error: IndexError) -> Self {
        Self::index("lists", &error)
    }

    pub(crate) fn attributes(error: IndexError) -> Self {
        Self::index("attribute columns", &error)
    }

    fn index(section: &str, error: &IndexError) -> Self {
        let offset = match error {
            IndexError::Corrupt { offset, .. } => *offset,
            _ => 0,
        };
        Self::corrupt(INDEX_FILE, section, offset, error.to_string())
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| SegmentError::Io { path, source }
    }

    pub(crate) fn worker(error: tokio::task::JoinError) -> Self {
        SegmentError::Worker {
            message: error.to_string(),
        }
    }

    pub(crate) fn parquet(file: &'static str) -> impl FnOnce(ParquetError) -> Self {
        move |source| SegmentError::Parquet { file, source }
    }
}

pub(crate) type Result<T> = std::result::Result<T, SegmentError>;
