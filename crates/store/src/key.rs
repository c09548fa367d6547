//! Keys: slash-separated components of a small alphabet.
//!
//! The alphabet makes a key mean the same in a URL, in a directory on any file
//! system and in a message. A component never starts with a dot, which rules out
//! `.` and `..` and leaves dotted names to the directory backend (temporary files,
//! lock files): no key can ever name those. Absolute keys, empty components and
//! everything else are refused before any request.

use crate::StoreError;

/// S3 allows 1,024 bytes for prefix and key together; the longest key of a lake
/// (`c/<26>/seg/<26>/deletes.parquet`) takes 74.
pub(crate) const KEY_BYTES_MAX: usize = 900;
/// File names end at 255 bytes, and the backend adds nothing to the names it keeps.
pub(crate) const COMPONENT_BYTES_MAX: usize = 200;

/// Checks one key, or a prefix without its trailing slash.
pub(crate) fn check(key: &str) -> Result<(), StoreError> {
    let refuse = |why: &str| Err(StoreError::refused(key, format!("invalid key: {why}")));
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return refuse("a key has 1 to 900 bytes");
    }
    for component in key.split('/') {
        if component.is_empty() {
            return refuse("empty component, or a slash at either end");
        }
        if component.starts_with('.') {
            return refuse("component starts with a dot");
        }
        if component.len() > COMPONENT_BYTES_MAX {
            return refuse("component longer than 200 bytes");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'=');
        if !component.bytes().all(allowed) {
            return refuse("a byte other than A-Z a-z 0-9 . _ - =");
        }
    }
    Ok(())
}

/// Joins two prefixes or a prefix and a key; slashes at the seam are no matter.
pub(crate) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        return key.to_owned();
    }
    if key.is_empty() {
        return prefix.to_owned();
    }
    format!("{prefix}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_accept_every_key_of_a_lake() {
        for key in [
            "lake.json",
            "catalog/HEAD",
            "c/01J/commits/00000000000000000042",
            "c/01J/seg/01K/data.parquet",
        ] {
            check(key).unwrap();
        }
    }

    #[test]
    fn should_refuse_keys_that_leave_the_store_or_name_hidden_files() {
        let long = "a/".repeat(451);
        let wide = "a".repeat(201);
        let bad = [
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/./b",
            ".tmp/x",
            "a/.HEAD.lock",
            "a//b",
            "a/",
            "a b",
            "a\\b",
            "ä",
            "a\0",
        ];
        for key in bad.into_iter().chain([long.as_str(), wide.as_str()]) {
            let error = check(key).unwrap_err();
            assert_eq!(error.kind, crate::StoreErrorKind::Refused, "{key:?}");
        }
    }
}
