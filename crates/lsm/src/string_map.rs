//! Maps from small keys to u64 as JSON objects of strings: `{"0": "123"}`.
//!
//! Values are strings because JavaScript's numbers end at 2^53; keys are parsed here
//! because serde buffers tagged enums, and a buffered key is always a string. Reading
//! takes plain numbers too, which people write.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(u64),
}

/// Writes every value as a string.
///
/// # Errors
/// The serializer's.
pub fn serialize<K: Display, S: Serializer>(
    map: &BTreeMap<K, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        map.iter()
            .map(|(key, value)| (key.to_string(), value.to_string())),
    )
}

/// Reads strings or numbers.
///
/// # Errors
/// When a key or value is not of its type, with the text.
pub fn deserialize<'de, K, D>(deserializer: D) -> Result<BTreeMap<K, u64>, D::Error>
where
    K: FromStr + Ord,
    D: Deserializer<'de>,
{
    let map = BTreeMap::<String, Number>::deserialize(deserializer)?;
    let parsed = map.into_iter().map(|(text, number)| {
        let key = text
            .parse()
            .map_err(|_| D::Error::custom(format!("{text:?} is not a key of this map")))?;
        let value = match number {
            Number::Plain(value) => value,
            Number::Text(digits) => digits
                .parse()
                .map_err(|_| D::Error::custom(format!("{text}: {digits:?} is not a u64")))?,
        };
        Ok((key, value))
    });
    parsed.collect()
}
