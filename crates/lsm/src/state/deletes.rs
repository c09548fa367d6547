//! Which deletes a merge may drop, and what that forbids afterwards.
//!
//! A delete keeps older records of its key hidden. Those in segments are hidden by shadows
//! as well; those that may still arrive are hidden by nothing else. So it may go once
//! nothing older can arrive: log time never goes back in a partition, and the least log
//! time among the checkpoints is the *horizon* below which no record arrives any more.
//!
//! A partition at its end would not have to hold the horizon back, but the state does not
//! know where a log ends: an old log time may mean an idle partition or one that lags.
//! Only one kind is known to be at its end: a partition of a source that a newer epoch
//! replaced. All others count, and one that never held a record keeps all deletes. That
//! costs space; guessing could bring a deleted record back.
//!
//! What was dropped is remembered, because it binds what may come:
//! - a replaced epoch is shut: a straggler's append is refused;
//! - a source that ranks below, whose records all are older, is refused: replay instead;
//! - a partition that the topic gets later begins above the newest delete dropped.

use serde::{Deserialize, Serialize};
use vexlake_manifest::u64_str;

use super::{IncarnationState, Source};

/// Deletes that hid nothing but what could still arrive, and were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedDeletes {
    /// How many.
    #[serde(with = "u64_str")]
    pub entries: u64,
    /// Log time of the newest, ms.
    pub log_time: i64,
}

impl DroppedDeletes {
    /// Counts further deletes.
    pub fn add(sum: &mut Option<Self>, more: Self) {
        let before = sum.unwrap_or(Self { entries: 0, ..more });
        *sum = Some(Self {
            entries: before.entries + more.entries,
            log_time: before.log_time.max(more.log_time),
        });
    }
}

impl IncarnationState {
    /// No record of a log time below this arrives any more; `None` when nothing says so.
    pub fn horizon(&self) -> Option<i64> {
        let mut ranks = self.sources.values().map(|source| source.rank);
        let first = ranks.next()?;
        if ranks.any(|rank| rank != first) {
            // Whatever the lower source delivers is older than every delete of the higher.
            return None;
        }
        let open = self
            .checkpoints
            .iter()
            .filter(|(id, _)| !self.is_replaced(**id));
        let log_times = open.flat_map(|(_, partitions)| partitions.values().map(|c| c.log_time));
        log_times.min().filter(|log_time| *log_time > i64::MIN)
    }

    /// Whether these deletes may be dropped now.
    pub fn may_drop(&self, deletes: &DroppedDeletes) -> bool {
        self.horizon()
            .is_some_and(|horizon| deletes.log_time < horizon)
    }

    /// Whether appends of a source are refused, because deletes are gone that they needed.
    pub fn is_shut(&self, source: u32) -> bool {
        self.dropped_deletes.is_some() && self.is_replaced(source)
    }

    /// Whether a source's records would be older than deletes that were dropped.
    pub(super) fn is_below_dropped(&self, source: &Source) -> bool {
        let order = |source: &Source| (source.rank, source.epoch);
        let newest = self.sources.values().map(order).max();
        self.dropped_deletes.is_some() && newest.is_some_and(|newest| order(source) < newest)
    }

    /// The log time at which a partition begins that was not there before.
    pub(super) fn first_log_time(&self) -> i64 {
        let above = |deletes: DroppedDeletes| deletes.log_time.saturating_add(1);
        self.dropped_deletes.map_or(i64::MIN, above)
    }

    fn is_replaced(&self, source: u32) -> bool {
        self.sources.get(&source).is_some_and(|old| {
            let newer = |new: &Source| new.rank == old.rank && new.epoch > old.epoch;
            self.sources.values().any(newer)
        })
    }
}
