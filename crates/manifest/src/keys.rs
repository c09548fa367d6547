//! The names of a manifest's objects, and reading them back from a listing.

use ulid::Ulid;

pub(crate) const HEAD: &str = "HEAD";
pub(crate) const SLOTS: &str = "commits";
pub(crate) const BASES: &str = "bases";

/// 20 digits hold every u64, so names sort as versions do.
pub(crate) fn slot(version: u64) -> String {
    format!("{SLOTS}/{version:020}")
}

pub(crate) fn base(id: Ulid) -> String {
    format!("{BASES}/{id}")
}

/// The version of a listed slot; `None` for a name we never write.
pub(crate) fn slot_version(key: &str) -> Option<u64> {
    let version = key.strip_prefix(SLOTS)?.strip_prefix('/')?.parse().ok()?;
    (slot(version) == key).then_some(version)
}

/// The id of a listed base; `None` for a name we never write.
pub(crate) fn base_id(key: &str) -> Option<Ulid> {
    let id = Ulid::from_string(key.strip_prefix(BASES)?.strip_prefix('/')?).ok()?;
    (base(id) == key).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_back_the_names_it_writes_and_no_others() {
        let id = Ulid::from_parts(7, 9);
        assert_eq!(slot_version(&slot(u64::MAX)), Some(u64::MAX));
        assert_eq!(base_id(&base(id)), Some(id));
        for key in [
            "commits/1",
            "commits/0000000000000000000a",
            "bases/x",
            "HEAD",
            "commits/000000000000000000001",
        ] {
            assert_eq!((slot_version(key), base_id(key)), (None, None), "{key}");
        }
    }
}
