//! How far each partition is consumed, and what became of every offset on the way.
//!
//! A [`Range`] is what one append adds to a [`Checkpoint`]; both carry a [`Ledger`],
//! and over any stretch its five columns add up to the offsets of the stretch.
//! `apply.rs` says when a range may follow a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vexlake_manifest::u64_str;

use super::Source;

/// The last record of a stretch, re-read at claim to recognise a recreated topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Offset of the record.
    #[serde(with = "u64_str")]
    pub offset: u64,
    /// Its timestamp, ms.
    pub timestamp: i64,
    /// CRC32C over its key and value; layout in schemas/records.md.
    pub crc32c: u32,
}

/// What became of the offsets of a stretch of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Rows and delete entries written.
    #[serde(with = "u64_str")]
    pub kept: u64,
    /// Beaten by a newer record inside the same memtable.
    #[serde(with = "u64_str")]
    pub superseded: u64,
    /// Refused and dead-lettered (or skipped, by configuration).
    #[serde(with = "u64_str")]
    pub dead_lettered: u64,
    /// Offsets that hold no record: control, aborted, compacted.
    #[serde(with = "u64_str")]
    pub not_records: u64,
    /// Gone from the log before we read them; a person accepted that.
    #[serde(with = "u64_str")]
    pub lost: u64,
}

impl Ledger {
    /// Offsets accounted for.
    pub fn total(&self) -> u64 {
        self.kept + self.superseded + self.dead_lettered + self.not_records + self.lost
    }

    /// Adds another stretch.
    pub fn add(&mut self, other: &Ledger) {
        self.kept += other.kept;
        self.superseded += other.superseded;
        self.dead_lettered += other.dead_lettered;
        self.not_records += other.not_records;
        self.lost += other.lost;
    }
}

/// How far one partition of one source is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// First offset of the incarnation.
    #[serde(with = "u64_str")]
    pub start: u64,
    /// The next offset to consume.
    #[serde(with = "u64_str")]
    pub next: u64,
    /// Log time before the first record, ms: `i64::MIN`, or where dropped deletes end.
    #[serde(default = "log_time_min", skip_serializing_if = "is_log_time_min")]
    pub start_log_time: i64,
    /// Log time of the last consumed record, ms; `start_log_time` before the first.
    pub log_time: i64,
    /// The last consumed record.
    pub last: Option<Fingerprint>,
    /// What became of `[start, next)`.
    pub ledger: Ledger,
}

/// One partition's stretch `[from, to)` inside an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Source id.
    pub source: u32,
    /// Partition.
    pub partition: u32,
    /// First offset.
    #[serde(with = "u64_str")]
    pub from: u64,
    /// One past the last.
    #[serde(with = "u64_str")]
    pub to: u64,
    /// Log time after the stretch.
    pub log_time: i64,
    /// Last record of the stretch; `None` when it held none.
    pub last: Option<Fingerprint>,
    /// What became of each offset.
    pub ledger: Ledger,
}

impl Checkpoint {
    /// Before the first record of a partition.
    pub(super) fn fresh(start: u64, start_log_time: i64) -> Self {
        Self {
            start,
            next: start,
            start_log_time,
            log_time: start_log_time,
            last: None,
            ledger: Ledger::default(),
        }
    }
}

fn log_time_min() -> i64 {
    i64::MIN
}

fn is_log_time_min(log_time: &i64) -> bool {
    *log_time == i64::MIN
}

/// The checkpoints of a source before its first record.
pub(super) fn fresh_checkpoints(source: &Source) -> BTreeMap<u32, Checkpoint> {
    let fresh =
        |(partition, start): (&u32, &u64)| (*partition, Checkpoint::fresh(*start, i64::MIN));
    source.starts.iter().map(fresh).collect()
}
