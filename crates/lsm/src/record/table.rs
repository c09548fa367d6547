//! The batch table: fixed entries that point into the fetched buffers.
//!
//! Entry, 100 bytes little endian: i64 log offset, i64 timestamp (ms), then seven spans (u32 buffer
//! index, u32 start, u32 length; index 0xFFFFFFFF = null) for key, value and the five headers.
//!
//! The whole table is checked before the first entry is handed out, so iteration cannot fail half way
//! through a batch. Its writer is our own service: a bad table is a defect there, never a bad record.

use super::RawRecord;

/// Size of one entry: 8 + 8 + 7 × 12.
pub const RECORD_ENTRY_BYTES: usize = 100;

const SPANS: usize = 7;
const SPANS_AT: usize = 16;
const SPAN_BYTES: usize = 12;
const NULL_BUFFER: u32 = u32::MAX;
const SPAN_NAMES: [&str; SPANS] = [
    "key",
    "value",
    "vexlake-format",
    "vexlake-attrs",
    "vexlake-op",
    "vexlake-event-time",
    "vexlake-write",
];

type EntryBytes = [u8; RECORD_ENTRY_BYTES];

/// A table that does not fit its buffers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// The table does not consist of whole entries.
    #[error("record table has {bytes} bytes, entries have {RECORD_ENTRY_BYTES} each")]
    Length {
        /// Length of the table.
        bytes: usize,
    },
    /// An offset does not follow the one before.
    #[error(
        "record table entry {entry}: offset {offset} follows {previous}, offsets must increase"
    )]
    Order {
        /// Index of the entry.
        entry: usize,
        /// Offset of the entry before.
        previous: i64,
        /// Offset of this one.
        offset: i64,
    },
    /// A span names a buffer that was not given.
    #[error("record table entry {entry}: {field} is in buffer {buffer}, {buffers} are given")]
    Buffer {
        /// Index of the entry.
        entry: usize,
        /// Which span.
        field: &'static str,
        /// The buffer it names.
        buffer: u32,
        /// How many there are.
        buffers: usize,
    },
    /// A span ends beyond its buffer.
    #[error(
        "record table entry {entry}: {field} ends at byte {end} of buffer {buffer}, which has {bytes}"
    )]
    Span {
        /// Index of the entry.
        entry: usize,
        /// Which span.
        field: &'static str,
        /// The buffer it names.
        buffer: u32,
        /// One past its last byte.
        end: u64,
        /// Length of the buffer.
        bytes: usize,
    },
}

/// Checks a table against its buffers and iterates over (log offset, timestamp in ms, record).
pub fn entries<'t, 'a>(
    table: &'t [u8],
    buffers: &'t [&'a [u8]],
) -> Result<Entries<'t, 'a>, TableError> {
    let (table, rest) = table.as_chunks::<RECORD_ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err(TableError::Length {
            bytes: table.len() * RECORD_ENTRY_BYTES + rest.len(),
        });
    }
    let mut previous: Option<i64> = None;
    for (index, entry) in table.iter().enumerate() {
        let offset = read_i64(entry, 0);
        if let Some(previous) = previous.filter(|&previous| previous >= offset) {
            return Err(TableError::Order {
                entry: index,
                previous,
                offset,
            });
        }
        previous = Some(offset);
        for (span, field) in SPAN_NAMES.into_iter().enumerate() {
            check_span(read_span(entry, span), buffers, index, field)?;
        }
    }
    Ok(Entries {
        table: table.iter(),
        buffers,
    })
}

/// Iterator of [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'t, 'a> {
    table: std::slice::Iter<'t, EntryBytes>,
    buffers: &'t [&'a [u8]],
}

impl<'a> Iterator for Entries<'_, 'a> {
    type Item = (i64, i64, RawRecord<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.table.next()?;
        let span = |index| {
            let Span {
                buffer,
                start,
                length,
            } = read_span(entry, index)?;
            // In range: `entries` has checked every span of this table against these buffers.
            Some(&self.buffers[buffer as usize][start as usize..][..length as usize])
        };
        let record = RawRecord {
            key: span(0),
            value: span(1),
            format_header: span(2),
            attrs_header: span(3),
            op_header: span(4),
            event_time_header: span(5),
            write_header: span(6),
        };
        Some((read_i64(entry, 0), read_i64(entry, 8), record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.table.size_hint()
    }
}

impl ExactSizeIterator for Entries<'_, '_> {}

struct Span {
    buffer: u32,
    start: u32,
    length: u32,
}

fn check_span(
    span: Option<Span>,
    buffers: &[&[u8]],
    entry: usize,
    field: &'static str,
) -> Result<(), TableError> {
    let Some(Span {
        buffer,
        start,
        length,
    }) = span
    else {
        return Ok(());
    };
    let Some(bytes) = buffers.get(buffer as usize) else {
        return Err(TableError::Buffer {
            entry,
            field,
            buffer,
            buffers: buffers.len(),
        });
    };
    let end = u64::from(start) + u64::from(length);
    if end > bytes.len() as u64 {
        return Err(TableError::Span {
            entry,
            field,
            buffer,
            end,
            bytes: bytes.len(),
        });
    }
    Ok(())
}

fn read_span(entry: &EntryBytes, span: usize) -> Option<Span> {
    let at = SPANS_AT + SPAN_BYTES * span;
    let buffer = read_u32(entry, at);
    (buffer != NULL_BUFFER).then(|| Span {
        buffer,
        start: read_u32(entry, at + 4),
        length: read_u32(entry, at + 8),
    })
}

fn read_u32(entry: &EntryBytes, at: usize) -> u32 {
    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
}

fn read_i64(entry: &EntryBytes, at: usize) -> i64 {
    let low = u64::from(read_u32(entry, at));
    let high = u64::from(read_u32(entry, at + 4));
    (high << 32 | low).cast_signed()
}
