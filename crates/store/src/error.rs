//! The one error of this crate, narrow enough that callers can act on it.

use std::error::Error;
use std::fmt;

/// What a caller should do about a failed request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum StoreErrorKind {
    /// Nothing is stored under the key. Decide whether that is expected.
    NotFound,
    /// The store did not answer, or answered that it cannot now. Try again later.
    Unavailable,
    /// The store understood and said no, or cannot do what a lake needs (credentials,
    /// bucket, conditional writes). Trying again will not help; a person has to.
    Refused,
    /// What came back is not what was asked for (wrong length, wrong range). Treat
    /// the bytes as damaged.
    Corrupt,
}

/// A failed request: which key, what to do about it, and whether its outcome is open.
#[derive(Debug)]
pub struct StoreError {
    /// What the caller should do.
    pub kind: StoreErrorKind,
    /// The key as the backend knows it, scopes included; a path or URL for errors
    /// that concern the whole store.
    pub key: String,
    /// True when a write may have been applied, now or later, although it failed
    /// here. Settle it by reading the object.
    pub doubt: bool,
    /// What went wrong, lowercase, without the key.
    pub message: String,
    /// True when the same request may succeed soon; what the retries go by.
    pub retriable: bool,
    /// The cause below, where there is one.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Nothing is stored under `key`.
    pub fn not_found(key: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::NotFound, key, "no such object")
    }

    /// The store cannot answer now; retriable.
    pub fn unavailable(key: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::new(StoreErrorKind::Unavailable, key, message);
        Self {
            retriable: true,
            ..error
        }
    }

    /// The store says no, and will say no again.
    pub fn refused(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Refused, key, message)
    }

    /// The bytes that came back are not what was asked for.
    pub fn corrupt(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, key, message)
    }

    fn new(kind: StoreErrorKind, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            key: key.into(),
            doubt: false,
            message: message.into(),
            retriable: false,
            source: None,
        }
    }

    /// The same error, retriable or not.
    pub fn with_retriable(self, retriable: bool) -> Self {
        Self { retriable, ..self }
    }

    /// The same error with its outcome open (or not).
    pub fn with_doubt(self, doubt: bool) -> Self {
        Self { doubt, ..self }
    }

    /// The same error with its cause.
    pub fn with_source(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..self
        }
    }

    /// An I/O error of the directory backend while doing `what`.
    pub(crate) fn io(key: &str, what: &str, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let message = format!("{what}: {error}");
        let made = match error.kind() {
            Io::NotFound => Self::new(StoreErrorKind::NotFound, key, message),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::refused(key, message),
            Io::Interrupted | Io::TimedOut | Io::WouldBlock | Io::ResourceBusy => {
                Self::unavailable(key, message)
            }
            // A full disk is not worth hammering: the flush above fails loudly and comes back.
            _ => Self::unavailable(key, message).with_retriable(false),
        };
        made.with_source(error)
    }

    /// Whether this says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StoreErrorKind::NotFound => "not found",
            StoreErrorKind::Unavailable => "store unavailable",
            StoreErrorKind::Refused => "store refused",
            StoreErrorKind::Corrupt => "object corrupt",
        };
        let doubt = if self.doubt { " (outcome unknown)" } else { "" };
        write!(f, "{kind}: {}: {}{doubt}", self.key, self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
