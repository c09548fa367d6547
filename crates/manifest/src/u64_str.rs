//! `#[serde(with = "u64_str")]`: u64 as decimal strings, because JSON readers that
//! keep numbers as doubles lose everything beyond 2^53.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes `"42"`.
pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads `"42"`; anything but a canonical decimal string is an error.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
    let value: u64 = text
        .parse()
        .map_err(|_| D::Error::custom(format!("{text:?} is not a u64")))?;
    if value.to_string() != *text {
        return Err(D::Error::custom(format!("{text:?} is not a canonical u64")));
    }
    Ok(value)
}
