//! The protobuf payload, read by hand: five fields do not pay for a code generator, and a generated
//! decoder would copy the vector out of the message first.
//!
//! The wire format: a message is a run of (tag varint = field number × 8 + wire type, value); wire types
//! are 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes; 3 and 4 (groups) are long deprecated
//! and refused. Unknown fields are skipped, the last value of a repeated one counts. A known field with
//! another wire type is refused, not skipped: an unpacked `repeated float` would otherwise lose its
//! vector without a word. <https://protobuf.dev/programming-guides/encoding/>

use super::attrs::read_attrs;
use super::decode::{Payload, check_event_time, check_id, unknown_op};
use super::floats::VectorSource;
use super::{BadRecord, Op, Reason, shown};

/// A varint of 64 bits takes at most ⌈64 / 7⌉ = 10 bytes.
const VARINT_BYTES_MAX: usize = 10;

/// Reads one `vexlake.v1.Record`; `key` is what its id must equal.
pub(super) fn read<'a>(message: &'a [u8], key: &str) -> Result<Payload<'a>, BadRecord> {
    let mut payload = Payload::default();
    let mut id: Option<&[u8]> = None;
    let mut attrs: Option<&[u8]> = None;
    let mut op = 0;
    let mut wire = Wire { message, at: 0 };
    while wire.at < message.len() {
        let at = wire.at;
        let (field, value) = wire.field()?;
        match (field, value) {
            (1, Value::Bytes(bytes)) => id = Some(bytes),
            (2, Value::Bytes([])) => payload.vector = None,
            (2, Value::Bytes(bytes)) => payload.vector = Some(VectorSource::Bytes(bytes)),
            (3, Value::Bytes(bytes)) => attrs = Some(bytes),
            (4, Value::Varint(number)) => op = number,
            (5, Value::Varint(ms)) => {
                payload.event_time =
                    Some(check_event_time("payload event_time", ms.cast_signed())?);
            }
            (1..=5, _) => {
                return Err(undecodable(
                    at,
                    &format!("field {field} has another wire type than its own"),
                ));
            }
            _ => {}
        }
    }
    if let Some(id) = id {
        let text = str::from_utf8(id)
            .map_err(|_| undecodable(0, &format!("field id {} is not UTF-8", shown(id))))?;
        check_id(text, key)?;
    }
    payload.attrs = read_attrs(attrs)?;
    payload.op = match op {
        0 => None,
        1 => Some(Op::Upsert),
        2 => Some(Op::SetVector),
        3 => Some(Op::SetAttrs),
        4 => Some(Op::Delete),
        other => return Err(unknown_op("payload op", &other.to_string())),
    };
    Ok(payload)
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes; no field of ours has them.
    Fixed,
}

struct Wire<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>), BadRecord> {
        let at = self.at;
        let tag = self.varint()?;
        let field = tag >> 3;
        // Field numbers have 29 bits.
        if field == 0 || field >= 1 << 29 {
            return Err(undecodable(
                at,
                &format!("field number {field} is not in 1..2^29"),
            ));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => {
                return Err(undecodable(
                    at,
                    &format!("field {field} has wire type {other}"),
                ));
            }
        };
        Ok((field, value))
    }

    fn varint(&mut self) -> Result<u64, BadRecord> {
        let mut value = 0u64;
        for (i, &byte) in self.message[self.at..]
            .iter()
            .take(VARINT_BYTES_MAX)
            .enumerate()
        {
            // The tenth byte holds bit 63 alone; more would not fit 64 bits.
            if i == VARINT_BYTES_MAX - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(undecodable(self.at, "varint does not end within 64 bits"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], BadRecord> {
        let rest = &self.message[self.at..];
        let bytes = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length));
        let bytes = bytes.ok_or_else(|| {
            undecodable(
                self.at,
                &format!("a field of {length} bytes, {} are left", rest.len()),
            )
        })?;
        self.at += bytes.len();
        Ok(bytes)
    }
}

fn undecodable(at: usize, why: &str) -> BadRecord {
    BadRecord::new(
        Reason::Undecodable,
        format!("protobuf payload, byte {at}: {why}"),
    )
}
