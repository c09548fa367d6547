//! What a merge may take: memory by the number of entries, and bytes a second.

use std::time::Duration;

use super::MergeOptions;
use crate::error::{Error, Result};
use crate::snapshot::SegmentView;
use crate::state::IncarnationState;

/// Bytes an entry costs in memory beside its vector and texts: writer bookkeeping
/// (id, position, hash, checksum) and the row map.
pub(super) const ENTRY_OVERHEAD_BYTES: u64 = 160;
/// What a row of a list costs beside its code: two factors and its share of the directory
/// while it is merged.
const LIST_ROW_BYTES: u64 = 16;

pub(super) fn check_memory(
    inputs: &[SegmentView],
    state: &IncarnationState,
    options: &MergeOptions,
) -> Result<()> {
    let entries: u64 = inputs
        .iter()
        .map(|view| u64::from(view.reader.entries()))
        .sum();
    let cap = options.memory_bytes_max;
    let max = with_lists(entries_max(cap), state);
    if entries > max {
        return Err(Error::Invalid(format!(
            "merging {entries} entries: memory_bytes_max {cap} allows {max}"
        )));
    }
    Ok(())
}

/// Entries whose bookkeeping fits half the memory; batches take a quarter.
pub(in crate::compact) fn entries_max(memory_bytes_max: u64) -> u64 {
    memory_bytes_max / 2 / ENTRY_OVERHEAD_BYTES
}

/// Of entries that fit a memory, how many fit with their codes: the lists of inputs and
/// output are held whole, a code and a few words each.
pub(in crate::compact) fn with_lists(entries_max: u64, state: &IncarnationState) -> u64 {
    if state.centroids.current.is_none() {
        return entries_max;
    }
    let code_bytes = u64::from(state.schema.dim).div_ceil(64) * 8;
    let with_lists = ENTRY_OVERHEAD_BYTES + 2 * (code_bytes + LIST_ROW_BYTES);
    (u128::from(entries_max) * u128::from(ENTRY_OVERHEAD_BYTES) / u128::from(with_lists)) as u64
}

/// Holds a byte rate by waiting after each batch.
pub(in crate::compact) struct Pace {
    rate: u64,
    due: tokio::time::Instant,
}

impl Pace {
    pub(in crate::compact) fn new(rate: u64) -> Self {
        Self {
            rate,
            due: tokio::time::Instant::now(),
        }
    }

    pub(in crate::compact) async fn wait(&mut self, bytes: u64) {
        if self.rate == 0 {
            return;
        }
        self.due += Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        tokio::time::sleep_until(self.due).await;
    }
}
