//! Records as they arrive: one Kafka message → one typed change to one key.
//!
//! 1. [`entries`] walks a batch table over the fetched buffers and yields [`RawRecord`]s, all borrowed.
//! 2. [`decode`] reads one of them in its format (`f32`, `protobuf`, `json`), appends its vector to the
//!    caller's float buffer and returns a [`Record`], or says as a [`BadRecord`] why it is none.
//! 3. [`fingerprint`] is the checksum that a checkpoint keeps of its last record.
//! 4. `parse_vector_*` and `format_vector_*` are the same floats as text, for queries and answers.
//!
//! The rules are `schemas/records.md`; its golden cases run in the tests of this module.
//!
//! Invariants: bytes from outside never panic and never allocate more than the collection's dimension
//! in floats plus one short message; after an error the float buffer is as it was; every float that is
//! handed on is finite. Left out on purpose: whether a patch finds its base, and who wins a key; that
//! takes the memtable and the head.

mod attrs;
mod decode;
mod fingerprint;
mod floats;
#[cfg(test)]
mod golden;
mod json;
mod protobuf;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::ops::Range;

pub use decode::decode;
pub use fingerprint::fingerprint;
pub use table::{Entries, RECORD_ENTRY_BYTES, TableError, entries};
pub use text::{
    VectorTextError, format_vector_shortest, format_vector_text, parse_vector_text,
    parse_vector_values, write_f32_shortest,
};

/// Longest id in bytes. Key tables store its length in 2 bytes, and no id needs more than 1 KiB.
pub const ID_BYTES_MAX: usize = 1024;
/// Longest attributes text in bytes: 64 KiB, as the field's vector stores allow.
pub const ATTRS_BYTES_MAX: usize = 64 * 1024;
/// Largest dimension: 65,536 floats are 256 KiB, a quarter of Kafka's default message limit.
pub const DIM_MAX: u32 = 65_536;
/// Longest message of a [`BadRecord`]; it travels in a header of the dead letter.
const MESSAGE_BYTES_MAX: usize = 512;
/// Bytes of a foreign value shown in a message; two of them and the sentence fit [`MESSAGE_BYTES_MAX`].
const SHOWN_BYTES_MAX: usize = 64;

/// How a value is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// The vector itself, little-endian float32; all else in headers.
    F32,
    /// `vexlake.v1.Record` of `schemas/record.proto`.
    Protobuf,
    /// The object of `schemas/record.schema.json`.
    Json,
}

impl Format {
    /// The word in the header `vexlake-format` and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Protobuf => "protobuf",
            Format::Json => "json",
        }
    }

    /// The format of that name.
    pub fn parse(name: &str) -> Option<Format> {
        [Format::F32, Format::Protobuf, Format::Json]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// What a record does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    /// Replaces the whole record.
    Upsert,
    /// Replaces the vector of a record that exists (a patch).
    SetVector,
    /// Replaces or takes away the attributes of a record that exists (a patch).
    SetAttrs,
    /// Removes the record.
    Delete,
}

impl Op {
    /// The word in the header `vexlake-op` and in JSON payloads.
    pub fn name(self) -> &'static str {
        match self {
            Op::Upsert => "upsert",
            Op::SetVector => "set-vector",
            Op::SetAttrs => "set-attrs",
            Op::Delete => "delete",
        }
    }

    /// The operation of that name.
    pub fn parse(name: &str) -> Option<Op> {
        [Op::Upsert, Op::SetVector, Op::SetAttrs, Op::Delete]
            .into_iter()
            .find(|op| op.name() == name)
    }

    /// Whether the record needs an older one to change.
    pub fn is_patch(self) -> bool {
        matches!(self, Op::SetVector | Op::SetAttrs)
    }
}

/// One message as the log gave it. `None` is a null key, a null value, an absent header.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RawRecord<'a> {
    /// The message key: the record's id.
    pub key: Option<&'a [u8]>,
    /// The payload; null deletes, empty is a payload without fields.
    pub value: Option<&'a [u8]>,
    /// `vexlake-format`
    pub format_header: Option<&'a [u8]>,
    /// `vexlake-attrs`
    pub attrs_header: Option<&'a [u8]>,
    /// `vexlake-op`
    pub op_header: Option<&'a [u8]>,
    /// `vexlake-event-time`
    pub event_time_header: Option<&'a [u8]>,
    /// `vexlake-write`
    pub write_header: Option<&'a [u8]>,
}

/// One valid record, borrowed from its message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What it does.
    pub op: Op,
    /// Its key: 1 to [`ID_BYTES_MAX`] bytes.
    pub id: &'a str,
    /// Where in the caller's buffer its floats lie: `dim` of them with upsert and set-vector, else none.
    pub vector: Option<Range<usize>>,
    /// Attributes, the text of a JSON object. `None` with upsert: it has none; with set-attrs: take them away.
    pub attrs: Option<&'a str>,
    /// Milliseconds since 1970, where the producer says so.
    pub event_time: Option<i64>,
    /// The id under which a writer waits for its acknowledgement.
    pub write: Option<&'a [u8]>,
}

impl Record<'_> {
    /// The record, unless it is a patch and the topic it came from is `compacted`: whether
    /// the record that it changes is still there would depend on when it is read.
    ///
    /// # Errors
    /// The [`BadRecord`] that it then is.
    pub fn allowed_on(self, compacted: bool) -> Result<Self, BadRecord> {
        if !compacted || !self.op.is_patch() {
            return Ok(self);
        }
        let (op, id) = (self.op.name(), self.id);
        let message =
            format!("{op} on key {id:?} in a compacted topic, which may have lost what it changes");
        Err(BadRecord::new(Reason::PatchOnCompactedTopic, message))
    }
}

/// Why a message is no record. The word is stable; the message is for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct BadRecord {
    /// For counters, dead-letter headers, and programs.
    pub reason: Reason,
    /// Names the field and both values; at most 512 bytes.
    pub message: String,
}

impl BadRecord {
    /// Cuts the message to its limit, as parsers quote foreign text of any length.
    pub fn new(reason: Reason, mut message: String) -> BadRecord {
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX - '…'.len_utf8()));
            message.push('…');
        }
        BadRecord { reason, message }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// The machine words of bad records; `schemas/records.md` lists them, and they never change.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// Every reason, in the order of the table in `schemas/records.md`.
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            /// The word in headers, counters, logs.
            pub fn word(self) -> &'static str {
                match self { $(Reason::$name => $word),+ }
            }
        }
    };
}

reasons! {
    /// The message has no key.
    NullKey = "null-key",
    /// The key is not UTF-8.
    BadKey = "bad-key",
    /// The key has zero bytes.
    EmptyId = "empty-id",
    /// The key exceeds [`ID_BYTES_MAX`].
    IdTooLong = "id-too-long",
    /// The payload's id is not the key.
    IdMismatch = "id-mismatch",
    /// `vexlake-format` names no format.
    BadFormat = "bad-format",
    /// The operation is unknown.
    BadOp = "bad-op",
    /// The event time is not a whole number of milliseconds.
    BadEventTime = "bad-event-time",
    /// Header and payload give different values.
    FieldMismatch = "field-mismatch",
    /// The payload does not parse.
    Undecodable = "undecodable",
    /// Upsert or set-vector without a vector.
    MissingVector = "missing-vector",
    /// Set-attrs or delete with a vector.
    UnexpectedVector = "unexpected-vector",
    /// Another length than the collection's dimension.
    BadDimension = "bad-dimension",
    /// A float is NaN or infinite.
    NotFinite = "not-finite",
    /// Set-attrs without attributes.
    MissingAttrs = "missing-attrs",
    /// Set-vector with attributes.
    UnexpectedAttrs = "unexpected-attrs",
    /// Attributes are not a JSON object.
    BadAttrs = "bad-attrs",
    /// Attributes exceed [`ATTRS_BYTES_MAX`].
    AttrsTooLarge = "attrs-too-large",
    /// Judged by the engine: no live record to patch.
    PatchWithoutRecord = "patch-without-record",
    /// Judged by the engine: the key's newest record came from another partition or source.
    PatchCrossesPartitions = "patch-crosses-partitions",
    /// Judged by the engine: the topic may have lost the record to patch.
    PatchOnCompactedTopic = "patch-on-compacted-topic",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A foreign value as a message shows it: quoted, escaped, at most 64 bytes of it.
fn shown(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let quoted = format!("{:?}", String::from_utf8_lossy(head));
    match bytes.len() > SHOWN_BYTES_MAX {
        true => format!("{quoted}… ({} bytes)", bytes.len()),
        false => quoted,
    }
}
