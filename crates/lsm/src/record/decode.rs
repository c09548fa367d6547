//! One message → one [`Record`].
//!
//! 1. The key is the id; it is judged first, because every later message names it.
//! 2. A null value is a delete, whatever the headers say.
//! 3. The payload is read into a [`Payload`] of optional fields, nothing copied yet.
//! 4. Fields that stand in header and payload must agree; the operation says which must be there.
//! 5. Only then are the floats appended to the caller's buffer and checked.
//!
//! Invariant: on an error the buffer has the length it came with.

use super::attrs::{Attrs, read_attrs};
use super::floats::{VectorSource, append_vector};
use super::{
    BadRecord, Format, ID_BYTES_MAX, Op, RawRecord, Reason, Record, json, protobuf, shown,
};

/// What a payload says, still borrowed. An empty value is the default.
#[derive(Default)]
pub(super) struct Payload<'a> {
    pub vector: Option<VectorSource<'a>>,
    pub attrs: Attrs<'a>,
    pub op: Option<Op>,
    pub event_time: Option<i64>,
}

/// Decodes one message. The vector is appended to `out` and the record says where; on an error `out`
/// keeps the length it came with. `dim` is the collection's dimension, `default_format` its format.
///
/// Linear in the size of the message; allocates nothing but what `out` needs to grow.
pub fn decode<'a>(
    raw: &RawRecord<'a>,
    default_format: Format,
    dim: u32,
    out: &mut Vec<f32>,
) -> Result<Record<'a>, BadRecord> {
    let start = out.len();
    let record = decode_appending(raw, default_format, dim, out);
    if record.is_err() {
        out.truncate(start);
    }
    record
}

fn decode_appending<'a>(
    raw: &RawRecord<'a>,
    default_format: Format,
    dim: u32,
    out: &mut Vec<f32>,
) -> Result<Record<'a>, BadRecord> {
    let id = read_id(raw.key)?;
    let write = raw.write_header;
    let Some(value) = raw.value else {
        // A bad header must not lose a delete: an event time that does not parse is dropped.
        let event_time = read_event_time(raw.event_time_header).unwrap_or(None);
        return Ok(Record {
            op: Op::Delete,
            id,
            vector: None,
            attrs: None,
            event_time,
            write,
        });
    };
    let payload = read_payload(raw.format_header, default_format, value, id)?;
    let op = same("op", read_op(raw.op_header)?, payload.op, Op::name)?.unwrap_or(Op::Upsert);
    let event_time = same(
        "event time",
        read_event_time(raw.event_time_header)?,
        payload.event_time,
        |ms| ms,
    )?;
    let attrs = match op {
        Op::Delete => None,
        _ => judge_attrs(op, read_attrs(raw.attrs_header)?.same_as(payload.attrs)?)?,
    };
    let vector = match (op, payload.vector) {
        (Op::Upsert | Op::SetVector, Some(source)) => Some(append_vector(source, dim, out)?),
        (Op::SetAttrs | Op::Delete, None) => None,
        (_, None) => {
            let message = format!(
                "{} needs a vector of {dim} floats, the value has none",
                op.name()
            );
            return Err(BadRecord::new(Reason::MissingVector, message));
        }
        (_, Some(source)) => {
            let message = format!("{} carries no vector, the value has {source}", op.name());
            return Err(BadRecord::new(Reason::UnexpectedVector, message));
        }
    };
    Ok(Record {
        op,
        id,
        vector,
        attrs,
        event_time,
        write,
    })
}

fn read_id(key: Option<&[u8]>) -> Result<&str, BadRecord> {
    let bad = |reason, message| Err(BadRecord::new(reason, message));
    let Some(key) = key else {
        return bad(
            Reason::NullKey,
            "key is null, a record's key is its id".to_string(),
        );
    };
    if key.is_empty() {
        return bad(
            Reason::EmptyId,
            format!("key has 0 bytes, an id has 1 to {ID_BYTES_MAX}"),
        );
    }
    if key.len() > ID_BYTES_MAX {
        let message = format!("key has {} bytes, an id has 1 to {ID_BYTES_MAX}", key.len());
        return bad(Reason::IdTooLong, message);
    }
    str::from_utf8(key).or_else(|error| {
        let message = format!(
            "key {} is not UTF-8 from byte {}, an id is",
            shown(key),
            error.valid_up_to()
        );
        bad(Reason::BadKey, message)
    })
}

fn read_payload<'a>(
    header: Option<&[u8]>,
    default: Format,
    value: &'a [u8],
    id: &str,
) -> Result<Payload<'a>, BadRecord> {
    let format = match header {
        None => default,
        Some(word) => str::from_utf8(word)
            .ok()
            .and_then(Format::parse)
            .ok_or_else(|| {
                let message = format!(
                    "vexlake-format is {}, known are f32, protobuf, json",
                    shown(word)
                );
                BadRecord::new(Reason::BadFormat, message)
            })?,
    };
    if value.is_empty() {
        return Ok(Payload::default());
    }
    match format {
        Format::F32 => Ok(Payload {
            vector: Some(VectorSource::Bytes(value)),
            ..Payload::default()
        }),
        Format::Protobuf => protobuf::read(value, id),
        Format::Json => json::read(value, id),
    }
}

fn read_op(header: Option<&[u8]>) -> Result<Option<Op>, BadRecord> {
    let Some(word) = header else { return Ok(None) };
    let op = str::from_utf8(word).ok().and_then(Op::parse);
    op.map(Some)
        .ok_or_else(|| unknown_op("vexlake-op", &shown(word)))
}

/// The error for an operation that a header or a payload names.
pub(super) fn unknown_op(field: &str, shown: &str) -> BadRecord {
    let message = format!("{field} is {shown}, known are upsert, set-vector, set-attrs, delete");
    BadRecord::new(Reason::BadOp, message)
}

fn read_event_time(header: Option<&[u8]>) -> Result<Option<i64>, BadRecord> {
    header
        .map(|text| parse_event_time("vexlake-event-time", text))
        .transpose()
}

/// Milliseconds as decimal text, an optional minus before it.
pub(super) fn parse_event_time(field: &str, text: &[u8]) -> Result<i64, BadRecord> {
    // A plus sign is Rust's grammar, not JSON's, and one grammar serves headers and payloads.
    let plain = !text.starts_with(b"+");
    let ms = str::from_utf8(text)
        .ok()
        .filter(|_| plain)
        .and_then(|text| text.parse().ok());
    let ms = ms.ok_or_else(|| {
        let message = format!(
            "{field} is {}, needs whole milliseconds as a 64-bit number",
            shown(text)
        );
        BadRecord::new(Reason::BadEventTime, message)
    })?;
    check_event_time(field, ms)
}

/// Segments store the smallest i64 where there is no event time.
pub(super) fn check_event_time(field: &str, ms: i64) -> Result<i64, BadRecord> {
    if ms > i64::MIN {
        return Ok(ms);
    }
    let message = format!("{field} is {ms}, needs at least {}", i64::MIN + 1);
    Err(BadRecord::new(Reason::BadEventTime, message))
}

/// A payload's id must be the key.
pub(super) fn check_id(payload: &str, key: &str) -> Result<(), BadRecord> {
    if payload == key {
        return Ok(());
    }
    let message = format!(
        "payload id is {}, the key is {}",
        shown(payload.as_bytes()),
        shown(key.as_bytes())
    );
    Err(BadRecord::new(Reason::IdMismatch, message))
}

/// One field from two places: either may be silent, both must agree.
fn same<T: Copy + PartialEq, S: std::fmt::Display>(
    field: &str,
    header: Option<T>,
    payload: Option<T>,
    show: impl Fn(T) -> S,
) -> Result<Option<T>, BadRecord> {
    match (header, payload) {
        (Some(h), Some(p)) if h != p => {
            let message = format!(
                "{field} is {} in the header, {} in the payload",
                show(h),
                show(p)
            );
            Err(BadRecord::new(Reason::FieldMismatch, message))
        }
        _ => Ok(header.or(payload)),
    }
}

fn judge_attrs(op: Op, attrs: Attrs<'_>) -> Result<Option<&str>, BadRecord> {
    match (op, attrs) {
        (Op::SetAttrs, Attrs::Absent) => {
            let message = "set-attrs needs attributes (empty to take them away), none are given";
            Err(BadRecord::new(Reason::MissingAttrs, message.to_string()))
        }
        (Op::SetVector, Attrs::Object(text)) => {
            let message = format!(
                "set-vector keeps the record's attributes, given are {}",
                shown(text.as_bytes())
            );
            Err(BadRecord::new(Reason::UnexpectedAttrs, message))
        }
        (_, Attrs::Object(text)) => Ok(Some(text)),
        (_, Attrs::Absent | Attrs::None) => Ok(None),
    }
}
