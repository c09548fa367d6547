//! Errors on their way to JavaScript: `{"code", "message", "fields"}` in the message.

use serde::{Serialize, de::DeserializeOwned};
use vexlake_lsm::ErrorKind;

/// An error with the code that services branch on.
#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    /// The store said no and will say no again: nothing in the request is wrong.
    pub refused: bool,
}

pub type Result<T> = std::result::Result<T, Failure>;

#[derive(Serialize)]
struct Crossing<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refused: bool,
}

impl From<vexlake_lsm::Error> for Failure {
    fn from(error: vexlake_lsm::Error) -> Self {
        Self {
            code: error.kind().code(),
            message: error.to_string(),
            refused: error.is_refusal(),
        }
    }
}

impl From<Failure> for napi::Error {
    fn from(failure: Failure) -> Self {
        let crossing = Crossing {
            code: failure.code,
            message: &failure.message,
            refused: failure.refused,
        };
        let text = serde_json::to_string(&crossing).unwrap_or_else(|_| failure.message.clone());
        napi::Error::from_reason(text)
    }
}

/// The caller's mistake.
pub fn invalid(message: String) -> Failure {
    Failure {
        code: ErrorKind::Invalid.code(),
        message,
        refused: false,
    }
}

/// Too much at once: worth another try.
pub fn unavailable(message: String) -> Failure {
    Failure {
        code: ErrorKind::Unavailable.code(),
        message,
        refused: false,
    }
}

/// JSON text of a value of ours.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure {
        code: ErrorKind::Internal.code(),
        message: format!("json: {e}"),
        refused: false,
    })
}

/// A value from JSON text of the services.
pub fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| invalid(format!("{what}: {e}")))
}
