//! The JSON payload: one object with five known fields.
//!
//! serde_json finds the fields and checks the grammar, but hands each over as its raw text: the vector
//! is then parsed once, straight into the caller's floats (see `text.rs`), the attributes stay the text
//! they are. No value tree is built.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::attrs::{Attrs, check_attrs};
use super::decode::{Payload, check_id, parse_event_time, unknown_op};
use super::floats::VectorSource;
use super::{BadRecord, Op, Reason, shown};

/// `null` is as good as absent, but for `attrs`, where it says "none". Unknown fields are skipped.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    vector: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    attrs: Option<&'a RawValue>,
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    event_time: Option<&'a RawValue>,
}

/// A string, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads one JSON object; `key` is what its id must equal.
pub(super) fn read<'a>(value: &'a [u8], key: &str) -> Result<Payload<'a>, BadRecord> {
    let text = str::from_utf8(value).map_err(|error| {
        undecodable(format!(
            "json payload is not UTF-8 from byte {}",
            error.valid_up_to()
        ))
    })?;
    // A derived struct also reads from an array, which is not what the schema says.
    if !text.trim_start().starts_with('{') {
        return Err(undecodable(format!(
            "json payload {} is not an object",
            shown(value)
        )));
    }
    let fields: Fields<'a> = serde_json::from_str(text)
        .map_err(|error| undecodable(format!("json payload: {error}")))?;
    if let Some(raw) = fields.id {
        let Text(id) = serde_json::from_str(raw.get()).map_err(|_| {
            undecodable(format!(
                "payload id {} is not a string",
                shown(raw.get().as_bytes())
            ))
        })?;
        check_id(&id, key)?;
    }
    Ok(Payload {
        vector: fields
            .vector
            .map(|raw| read_vector(raw.get()))
            .transpose()?,
        attrs: match fields.attrs.map(RawValue::get) {
            None => Attrs::Absent,
            Some("null") => Attrs::None,
            Some(text) => check_attrs(text)?,
        },
        op: fields.op.map(|raw| read_op(raw.get())).transpose()?,
        event_time: fields
            .event_time
            .map(|raw| parse_event_time("payload event_time", raw.get().as_bytes()))
            .transpose()?,
    })
}

fn read_vector(raw: &str) -> Result<VectorSource<'_>, BadRecord> {
    if raw.starts_with('[') {
        return Ok(VectorSource::List(raw));
    }
    // base64 needs no escape but `\/`, which no encoder writes: the decoder names the backslash.
    match raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(base64) => Ok(VectorSource::Base64(base64)),
        None => {
            let given = shown(raw.as_bytes());
            Err(undecodable(format!(
                "vector is {given}, needs an array of numbers or base64"
            )))
        }
    }
}

fn read_op(raw: &str) -> Result<Op, BadRecord> {
    let word = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    word.and_then(Op::parse)
        .ok_or_else(|| unknown_op("payload op", &shown(raw.as_bytes())))
}

fn undecodable(message: String) -> BadRecord {
    BadRecord::new(Reason::Undecodable, message)
}
