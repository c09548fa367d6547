//! Hashes of keys and of entries.
//!
//! [`key_hash`] places a key in filters and key tables. [`EntryHash`] is a
//! multiset hash: the wrapping sum of one 128-bit hash per entry, so that it does
//! not depend on order, and merges can prove that they conserve entries by
//! adding and subtracting. XXH3 is part of the format: it never changes.

use crate::record::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The 64-bit hash of a key, as filters and key tables store it.
pub fn key_hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The multiset hash of entries: (id, position, record or delete). Sums wrap;
/// the empty set is zero. As text, 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct EntryHash(u128);

impl EntryHash {
    /// The hash of one record.
    pub fn of_row(id: &str, position: &Position) -> Self {
        Self::of(0, id, position)
    }

    /// The hash of one delete.
    pub fn of_delete(id: &str, position: &Position) -> Self {
        Self::of(1, id, position)
    }

    fn of(kind: u8, id: &str, position: &Position) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&[kind]);
        hasher.update(&position.source.to_le_bytes());
        hasher.update(&position.log_time.to_le_bytes());
        hasher.update(&position.partition.to_le_bytes());
        hasher.update(&position.offset.to_le_bytes());
        // Last, so that its length need not be hashed.
        hasher.update(id.as_bytes());
        Self(hasher.digest128())
    }

    /// The hash as little-endian bytes.
    pub(crate) fn to_le_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From little-endian bytes.
    pub(crate) fn from_le_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

impl Add for EntryHash {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for EntryHash {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl AddAssign for EntryHash {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for EntryHash {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for EntryHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntryHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u128::from_str_radix(&text, 16)
            .ok()
            .filter(|_| is_hex)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("not 32 hexadecimal digits: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::EntryHash;
    use crate::record::Position;

    const AT: Position = Position {
        source: 1,
        log_time: 2,
        partition: 3,
        offset: 4,
    };

    #[test]
    fn should_not_depend_on_order_and_undo_by_subtraction() {
        let (a, b) = (EntryHash::of_row("a", &AT), EntryHash::of_delete("b", &AT));
        assert_eq!(a + b, b + a);
        assert_eq!(a + b - a, b);
        assert_ne!(a + a, EntryHash::default());
        assert_ne!(EntryHash::of_row("a", &AT), EntryHash::of_delete("a", &AT));
    }

    #[test]
    fn should_stay_what_it_was_in_format_1() {
        assert_eq!(
            EntryHash::of_row("a", &AT).to_string(),
            "ebca52fd27c70732b5cc93d57fb58701"
        );
        assert_eq!(super::key_hash("a"), 0xe6c632b61e964e1f);
    }

    #[test]
    fn should_round_trip_as_json_text_and_refuse_other_text() {
        let hash = EntryHash::of_row("a", &AT);
        let text = serde_json::to_string(&hash).expect("serializes");
        assert_eq!(text.len(), 34);
        assert_eq!(
            serde_json::from_str::<EntryHash>(&text).expect("parses"),
            hash
        );
        for bad in [
            "\"\"",
            "\"+0000000000000000000000000000000\"",
            "\"zz\"",
            "7",
        ] {
            assert!(serde_json::from_str::<EntryHash>(bad).is_err());
        }
    }
}
