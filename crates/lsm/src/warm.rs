//! Warming: what a new version adds is read into the cache before readers switch to it.
//!
//! A search that met a segment first would wait for all that it looks at there; after a merge
//! that would be every search at once. So before the switch the new segments are read, as
//! far as they go into the bytes and the time that there are: then the switch is made all
//! the same. The first version of a process is not warmed: nobody could search meanwhile.
//!
//! What cannot be read is left to searches, which say so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vexlake_segment::{ReadCounts, SegmentReader};

use crate::snapshot::Snapshot;

/// A switch waits no longer than this. Lists of a million rows of 128 floats, 25 MB, come
/// from an object store at 100 MB/s in a quarter of it; until the switch readers see
/// everything, from memtables and from the segments before.
const WARM_TIME_MAX: Duration = Duration::from_secs(1);

/// What was warmed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmCounts {
    /// Segments that were read ahead of a switch, in part or whole.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Switches that time cut short.
    pub cut: u64,
}

/// Reads new segments ahead of a switch; see the file header.
#[derive(Debug, Default)]
pub struct Warming {
    bytes_max: u64,
    segments: AtomicU64,
    bytes: AtomicU64,
    cut: AtomicU64,
}

impl Warming {
    /// Reads at most `bytes_max` bytes a switch; 0 reads none.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    /// What was warmed since the start.
    pub fn counts(&self) -> WarmCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WarmCounts {
            segments: of(&self.segments),
            bytes: of(&self.bytes),
            cut: of(&self.cut),
        }
    }

    /// Reads what `next` has and `previous` has not; within the limits.
    pub(crate) async fn before_switch(&self, previous: &Snapshot, next: &Snapshot) {
        if self.bytes_max == 0 {
            return;
        }
        let is_new = |id| !previous.segments.contains_key(id);
        let fresh = next.segments.iter().filter(|(id, _)| is_new(*id));
        let readers: Vec<&SegmentReader> = fresh.map(|(_, view)| &view.reader).collect();
        let counts = ReadCounts::default();
        let warming = tokio::time::timeout(WARM_TIME_MAX, self.warm(&readers, &counts));
        let is_cut = warming.await.is_err();
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.bytes, counts.read().bytes);
        add(&self.cut, u64::from(is_cut));
    }

    async fn warm(&self, readers: &[&SegmentReader], counts: &ReadCounts) {
        for reader in readers {
            let left = self.bytes_max.saturating_sub(counts.read().bytes);
            self.segments
                .fetch_add(u64::from(left > 0), Ordering::Relaxed);
            // A search meets the failure where it matters, and names it.
            let _ = reader.warm(left, counts).await;
        }
    }
}
