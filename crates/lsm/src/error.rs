//! One error type for the engine and one narrow kind for the boundary.
//!
//! Every error names what was asked, what was found and, where the caller can do
//! something, what to do next. [`Error::kind`] is the only thing the services
//! branch on: a table in `services/common` maps a kind to the RESP reply, the job
//! outcome and the consumer's action.

use vexlake_index::IndexError;
use vexlake_manifest::ManifestError;
use vexlake_segment::{SegmentError, SegmentErrorKind};
use vexlake_store::{StoreError, StoreErrorKind};

/// What a caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong: tell the user.
    Invalid,
    /// No such collection, incarnation, key or version.
    NotFound,
    /// Lost a race: reload and try again.
    Conflict,
    /// Lost the right to write here: stop.
    Fenced,
    /// The store did not answer: wait and try again.
    Unavailable,
    /// Stored bytes contradict their checksum or their format, or an object is gone that a
    /// readable version names: never retried.
    Corrupt,
    /// A broken promise of our own code.
    Internal,
}

impl ErrorKind {
    /// The word that crosses the language border.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::Fenced => "FENCED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Corrupt => "CORRUPT",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An engine error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request that can never succeed as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The named thing does not exist.
    #[error("{what} {name} does not exist")]
    NotFound {
        /// What kind of thing was looked up.
        what: &'static str,
        /// The name it was looked up by.
        name: String,
    },
    /// A race was lost and retries are used up.
    #[error("{0}")]
    Conflict(String),
    /// The right to write was lost.
    #[error("{0}")]
    Fenced(String),
    /// The engine cannot serve this now.
    #[error("{0}")]
    Unavailable(String),
    /// A promise of our own code is broken.
    #[error("{0}")]
    Internal(String),
    /// The commit protocol failed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A segment could not be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Centroids or lists could not be read or made.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn store_kind(error: &StoreError) -> ErrorKind {
    match error.kind {
        StoreErrorKind::Unavailable => ErrorKind::Unavailable,
        StoreErrorKind::Refused => ErrorKind::Invalid,
        // Objects are read because something names them: absence is damage.
        StoreErrorKind::NotFound | StoreErrorKind::Corrupt => ErrorKind::Corrupt,
    }
}

impl Error {
    /// Whether the store said no and will say no again: credentials, a bucket, a promise
    /// that it does not keep. A person has to act on the store, not on the request.
    pub fn is_refusal(&self) -> bool {
        let refused = |error: &StoreError| error.kind == StoreErrorKind::Refused;
        match self {
            Self::Store(error) | Self::Manifest(ManifestError::Store(error)) => refused(error),
            Self::Segment(error) => error.kind() == SegmentErrorKind::Refused,
            _ => false,
        }
    }

    /// Whether an object of the store is absent: lost, or swept with the version that
    /// named it; `Incarnation::swept` tells which.
    pub(crate) fn is_missing_object(&self) -> bool {
        match self {
            Self::Store(error) | Self::Manifest(ManifestError::Store(error)) => {
                error.is_not_found()
            }
            Self::Segment(error) => error.kind() == SegmentErrorKind::NotFound,
            _ => false,
        }
    }

    /// The kind of this error; see [`ErrorKind`] for what to do about each.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Fenced(_) => ErrorKind::Fenced,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
            Self::Store(error) => store_kind(error),
            Self::Index(error) => match error {
                IndexError::Corrupt { .. } | IndexError::Version { .. } => ErrorKind::Corrupt,
                IndexError::Mismatch { .. } | IndexError::BeyondCodes(_) => ErrorKind::Internal,
            },
            Self::Manifest(error) => match error {
                ManifestError::Conflict { .. } => ErrorKind::Conflict,
                ManifestError::Fenced { .. } => ErrorKind::Fenced,
                ManifestError::Invalid(_) => ErrorKind::Invalid,
                ManifestError::NotFound { .. }
                | ManifestError::Expired { .. }
                | ManifestError::NotYet { .. } => ErrorKind::NotFound,
                ManifestError::Corrupt { .. } => ErrorKind::Corrupt,
                ManifestError::Store(error) => store_kind(error),
            },
            Self::Segment(error) => match error.kind() {
                SegmentErrorKind::Invalid | SegmentErrorKind::Refused => ErrorKind::Invalid,
                SegmentErrorKind::Unavailable => ErrorKind::Unavailable,
                SegmentErrorKind::NotFound | SegmentErrorKind::Corrupt => ErrorKind::Corrupt,
                SegmentErrorKind::Internal => ErrorKind::Internal,
            },
        }
    }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
