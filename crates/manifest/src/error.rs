//! What can go wrong, each kind with what the caller should do.

use vexlake_store::StoreError;

use crate::{Invariant, Violation};

/// A failed manifest operation.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Another commit took the slot. Rebase on `Manifest::head()`, which already
    /// holds the newer version named here, and commit again.
    #[error("conflict: another commit came first, the head is now version {version}")]
    Conflict {
        /// Version of the newer head.
        version: u64,
    },
    /// The state is retired. Stop: no commit will ever succeed here again.
    #[error("fenced: retired at version {version}")]
    Fenced {
        /// The retired head.
        version: u64,
    },
    /// The delta breaks a rule on this parent. Refresh and reconsider, or give up.
    #[error("invalid: {0}")]
    Invalid(Violation),
    /// There is no manifest here.
    #[error("no manifest at {location}")]
    NotFound {
        /// Where it was looked for.
        location: String,
    },
    /// The version was, or may have been, swept. Reopen at a retained one.
    #[error("version {version} expired: versions from {retain_from} on are retained")]
    Expired {
        /// The version asked for (for a time: the oldest retained).
        version: u64,
        /// The oldest version retained, pinned ones apart.
        retain_from: u64,
    },
    /// The version has not been committed.
    #[error("version {version} does not exist yet, the head is version {head}")]
    NotYet {
        /// The version asked for.
        version: u64,
        /// The newest version.
        head: u64,
    },
    /// An object is damaged or contradicts another. Stop and tell a person.
    #[error("corrupt: {key}: {message}")]
    Corrupt {
        /// The damaged object, relative to the manifest.
        key: String,
        /// What contradicts what.
        message: String,
        /// The invariant that this breaks, until it is counted.
        broken: Option<Invariant>,
    },
    /// The store failed. With `doubt`, a commit may have been, or may yet be,
    /// applied: refresh and look before doing it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ManifestError {
    pub(crate) fn corrupt(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Corrupt {
            key: key.into(),
            message: message.into(),
            broken: None,
        }
    }
}
