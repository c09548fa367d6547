//! What goes into a segment and comes out of it: one record, one delete, and the
//! position in the log by which they are ordered. Borrowed; limits checked here.

use crate::error::{Result, SegmentError};
use crate::meta::SegmentSchema;

/// The largest dimension, also of the collection (65,536 × 4 bytes = 256 KiB a vector).
pub const DIM_MAX: u32 = 65_536;
/// The longest id in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 1024;
/// The longest attributes text in bytes of UTF-8.
pub const ATTRS_BYTES_MAX: usize = 64 * 1024;
/// Stored in place of an absent event time; hence not an event time itself
/// (it would be 292 million years ago).
pub(crate) const EVENT_TIME_NONE: i64 = i64::MIN;

/// Where in which log a record was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Position {
    /// Index into the incarnation's table of sources; at most i32::MAX.
    pub source: u32,
    /// Log time in ms since 1970.
    pub log_time: i64,
    /// Kafka partition; at most i32::MAX.
    pub partition: u32,
    /// Kafka offset; at most i64::MAX.
    pub offset: u64,
}

/// One record.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Row<'a> {
    /// The record's key: 1..=[`ID_BYTES_MAX`] bytes.
    pub id: &'a str,
    /// As many floats as the collection's dimension, all finite.
    pub vector: &'a [f32],
    /// The text of a JSON object, at most [`ATTRS_BYTES_MAX`]; not parsed here.
    pub attrs: Option<&'a str>,
    /// ms since 1970; i64::MIN is refused.
    pub event_time: Option<i64>,
    /// Where the record was read.
    pub position: Position,
}

/// One deleted key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delete<'a> {
    /// The deleted key: 1..=[`ID_BYTES_MAX`] bytes.
    pub id: &'a str,
    /// ms since 1970; i64::MIN is refused.
    pub event_time: Option<i64>,
    /// Where the delete was read.
    pub position: Position,
}

impl Row<'_> {
    /// Refuses what a segment cannot hold.
    pub(crate) fn check(&self, schema: &SegmentSchema) -> Result<()> {
        check_entry(self.id, self.event_time, &self.position)?;
        if self.vector.len() != schema.dim as usize {
            return Err(SegmentError::invalid(
                "the vector's dimension",
                self.vector.len(),
                schema.dim,
            ));
        }
        // One pass without a branch per float: NaN and ∞ alone have these bits.
        let exponents = |odd: bool, x: &f32| odd | (x.to_bits() & 0x7F80_0000 == 0x7F80_0000);
        if self.vector.iter().fold(false, exponents) {
            return Err(SegmentError::invalid(
                "a float of the vector",
                "NaN or infinite",
                "finite",
            ));
        }
        let attrs = self.attrs.map_or(0, str::len);
        if attrs > ATTRS_BYTES_MAX {
            return Err(SegmentError::invalid(
                "the length of attrs in bytes",
                attrs,
                format!("at most {ATTRS_BYTES_MAX}"),
            ));
        }
        Ok(())
    }
}

impl Delete<'_> {
    /// Refuses what a segment cannot hold.
    pub(crate) fn check(&self) -> Result<()> {
        check_entry(self.id, self.event_time, &self.position)
    }
}

fn check_entry(id: &str, event_time: Option<i64>, position: &Position) -> Result<()> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(SegmentError::invalid(
            "the length of the id in bytes",
            id.len(),
            format!("1..={ID_BYTES_MAX}"),
        ));
    }
    if event_time == Some(EVENT_TIME_NONE) {
        return Err(SegmentError::invalid(
            "the event time",
            EVENT_TIME_NONE,
            "greater",
        ));
    }
    // The columns are plain signed integers, which every reader knows.
    for (what, actual, max) in [
        ("the source", u64::from(position.source), i32::MAX as u64),
        (
            "the partition",
            u64::from(position.partition),
            i32::MAX as u64,
        ),
        ("the offset", position.offset, i64::MAX as u64),
    ] {
        if actual > max {
            return Err(SegmentError::invalid(
                what,
                actual,
                format!("at most {max}"),
            ));
        }
    }
    Ok(())
}
