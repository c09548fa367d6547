//! The catalogue of invariants, and how often each was checked and found broken.
//!
//! What holds of every lake, whatever commits, crashes and races. A rule is checked before
//! a commit writes anything and again after a load; a broken one is never let pass: the
//! commit is refused as invalid, what was loaded as corrupt. So a violation means damage or
//! a defect. Rules that a request may break (a pin's name is taken) are not in here.
//!
//! The list lies in the lowest crate that checks any of it, so that there is one list and
//! one counter. This crate checks the first group; the engine checks the second, of which
//! this crate knows the words only. ARCHITECTURE.md has each rule under the same id.

use std::sync::atomic::{AtomicU64, Ordering};

/// One rule; its comment is what holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// Versions are contiguous from 0, and each has one acknowledged body.
    VersionContiguous,
    /// Each commit names the commit before it.
    ParentChain,
    /// Commit times never go back.
    TimeMonotone,
    /// No field of HEAD ever decreases.
    HeadMonotone,
    /// A mark never takes back what an earlier one gave up, nor reaches beyond itself.
    MarkMonotone,
    /// A named object exists, with the length and the checksum that its name came with.
    ObjectIntact,
    /// What a pinned version consists of never changes.
    PinnedDigest,
    /// Nothing follows a retire.
    FencedRetired,

    /// A range of offsets is appended where the checkpoint stands.
    AppendContiguous,
    /// Offsets and log time of a checkpoint never go back.
    CheckpointMonotone,
    /// Every offset is accounted for, and what was kept is what segments hold and replaces
    /// dropped.
    LedgerAddsUp,
    /// A replace conserves its entries, counted and hashed as a multiset.
    ReplaceConserves,
    /// What a shadow or a replace names is live.
    SegmentLive,
    /// A key has at most one entry that is not hidden.
    OneLiveRow,
    /// A reader's version never goes back.
    ReaderMonotone,
}

impl Invariant {
    /// The catalogue.
    pub const ALL: [Self; 15] = [
        Self::VersionContiguous,
        Self::ParentChain,
        Self::TimeMonotone,
        Self::HeadMonotone,
        Self::MarkMonotone,
        Self::ObjectIntact,
        Self::PinnedDigest,
        Self::FencedRetired,
        Self::AppendContiguous,
        Self::CheckpointMonotone,
        Self::LedgerAddsUp,
        Self::ReplaceConserves,
        Self::SegmentLive,
        Self::OneLiveRow,
        Self::ReaderMonotone,
    ];

    /// Its name in messages, metrics and documents.
    pub const fn id(self) -> &'static str {
        match self {
            Self::VersionContiguous => "version-contiguous",
            Self::ParentChain => "parent-chain",
            Self::TimeMonotone => "time-monotone",
            Self::HeadMonotone => "head-monotone",
            Self::MarkMonotone => "mark-monotone",
            Self::ObjectIntact => "object-intact",
            Self::PinnedDigest => "pinned-digest",
            Self::FencedRetired => "fenced-retired",
            Self::AppendContiguous => "append-contiguous",
            Self::CheckpointMonotone => "checkpoint-monotone",
            Self::LedgerAddsUp => "ledger-adds-up",
            Self::ReplaceConserves => "replace-conserves",
            Self::SegmentLive => "segment-live",
            Self::OneLiveRow => "one-live-row",
            Self::ReaderMonotone => "reader-monotone",
        }
    }

    /// The invariant of an id; `None` for a rule that is none.
    pub fn of(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.id() == id)
    }
}

/// How often each invariant was checked and found broken, since the process began.
#[derive(Debug, Default)]
pub struct Invariants {
    checks: [AtomicU64; Invariant::ALL.len()],
    violations: [AtomicU64; Invariant::ALL.len()],
}

impl Invariants {
    /// Counts a check whose verdict is not known, or not final, here.
    pub fn checked(&self, invariant: Invariant) {
        self.checks[invariant as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a violation.
    pub fn violated(&self, invariant: Invariant) {
        self.violations[invariant as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a check whose verdict stands; answers it.
    pub fn judge(&self, invariant: Invariant, holds: bool) -> bool {
        self.checked(invariant);
        if !holds {
            self.violated(invariant);
        }
        holds
    }

    /// (checks, violations) of one.
    pub fn count(&self, invariant: Invariant) -> (u64, u64) {
        let read = |of: &[AtomicU64]| of[invariant as usize].load(Ordering::Relaxed);
        (read(&self.checks), read(&self.violations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_every_invariant_by_its_own_id_and_place() {
        for (place, invariant) in Invariant::ALL.into_iter().enumerate() {
            assert_eq!(Invariant::of(invariant.id()), Some(invariant));
            assert_eq!(invariant as usize, place);
        }
        assert_eq!(Invariant::of("pin-new"), None);
    }

    #[test]
    fn should_count_checks_and_violations_apart() {
        let invariants = Invariants::default();
        assert!(invariants.judge(Invariant::ParentChain, true));
        assert!(!invariants.judge(Invariant::ParentChain, false));
        assert_eq!(invariants.count(Invariant::ParentChain), (2, 1));
        assert_eq!(invariants.count(Invariant::OneLiveRow), (0, 0));
    }
}
