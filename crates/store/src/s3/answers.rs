//! What the client's errors mean here: whether to repeat, and whether a conditional
//! write may have been applied.

use std::error::Error as _;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::{StoreError, StoreErrorKind};

/// A conditional write that failed may still be applied, unless the server said no
/// or was never reached.
pub(super) fn in_doubt(error: StoreError) -> StoreError {
    let unreached = connection_failed(&error);
    let answered = !error.retriable && error.kind != StoreErrorKind::Unavailable;
    error.with_doubt(!unreached && !answered)
}

fn connection_failed(error: &StoreError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return http.kind() == HttpErrorKind::Connect;
        }
        cause = error.source();
    }
    false
}

/// Sorts the client's errors into ours.
pub(super) fn explain(key: &str, error: Error) -> StoreError {
    let text = error.to_string();
    let made = match &error {
        // Also a 404, and the difference between an empty lake and a missing one.
        Error::NotFound { .. } if text.contains("NoSuchBucket") => {
            StoreError::refused(key, "no such bucket")
        }
        Error::NotFound { .. } => StoreError::not_found(key),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            StoreError::refused(key, format!("credentials rejected: {text}"))
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. } => {
            StoreError::refused(key, text)
        }
        _ => match status_of(&text) {
            Some(416) => StoreError::corrupt(key, "range beyond the end of the object"),
            Some(408 | 409 | 429) | None => StoreError::unavailable(key, text),
            Some(400..=499 | 501) => StoreError::refused(key, text),
            Some(_) => StoreError::unavailable(key, text),
        },
    };
    made.with_source(error)
}

/// The HTTP status of a failed request. The client's error type that holds it is
/// private (object_store 0.13.2), its text is not; where the text changes, the error
/// counts as one without an answer, which is retried: the safe side.
fn status_of(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn should_sort_answers_by_what_the_caller_can_do() {
        let cases = [
            (
                "non-2xx status code: 503 Service Unavailable",
                StoreErrorKind::Unavailable,
                true,
            ),
            (
                "non-2xx status code: 400 Bad Request",
                StoreErrorKind::Refused,
                false,
            ),
            (
                "non-2xx status code: 501 Not Implemented",
                StoreErrorKind::Refused,
                false,
            ),
            (
                "non-2xx status code: 416 Range Not Satisfiable",
                StoreErrorKind::Corrupt,
                false,
            ),
            ("connection reset", StoreErrorKind::Unavailable, true),
        ];
        for (text, kind, retriable) in cases {
            let error = explain("k", generic(text));
            assert_eq!((error.kind, error.retriable), (kind, retriable), "{text}");
        }
    }

    #[test]
    fn should_doubt_a_conditional_write_unless_the_server_said_no() {
        assert!(in_doubt(explain("k", generic("status code: 500"))).doubt);
        assert!(in_doubt(explain("k", generic("timed out"))).doubt);
        assert!(!in_doubt(explain("k", generic("status code: 400"))).doubt);
    }

    #[test]
    fn should_not_take_a_missing_bucket_for_a_missing_object() {
        let source = "status code: 404: <Code>NoSuchBucket</Code>"
            .to_owned()
            .into();
        let error = explain(
            "k",
            Error::NotFound {
                path: "k".into(),
                source,
            },
        );
        assert_eq!(error.kind, StoreErrorKind::Refused);
    }
}
