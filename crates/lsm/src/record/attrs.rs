//! Attributes: the text of a JSON object, checked once here so that no later reader can fail on it.
//!
//! The check is a full parse that keeps nothing: strings are decoded (lone surrogates refused), numbers
//! must fit a float64, and serde_json's recursion limit bounds the depth, so that every JSON library
//! that reads the Parquet column later gets through. Skipping the values instead would be faster and
//! lets all three pass.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{ATTRS_BYTES_MAX, BadRecord, Reason, shown};

/// What a header or a payload says about attributes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Attrs<'a> {
    /// Nothing.
    #[default]
    Absent,
    /// That there are none: an empty header, an empty string, a JSON null.
    None,
    /// This object.
    Object(&'a str),
}

impl<'a> Attrs<'a> {
    /// Header and payload in one; where both speak they must say the same, byte for byte.
    pub fn same_as(self, payload: Attrs<'a>) -> Result<Attrs<'a>, BadRecord> {
        match (self, payload) {
            (Attrs::Absent, given) | (given, Attrs::Absent) => Ok(given),
            (header, payload) if header == payload => Ok(header),
            (header, payload) => {
                let text = |attrs| match attrs {
                    Attrs::Object(text) => shown(str::as_bytes(text)),
                    _ => "none".to_string(),
                };
                let message = format!(
                    "attrs are {} in the header, {} in the payload",
                    text(header),
                    text(payload)
                );
                Err(BadRecord::new(Reason::FieldMismatch, message))
            }
        }
    }
}

/// The header `vexlake-attrs`, or the protobuf string: UTF-8 text, empty = none.
pub(super) fn read_attrs(bytes: Option<&[u8]>) -> Result<Attrs<'_>, BadRecord> {
    match bytes {
        None => Ok(Attrs::Absent),
        Some([]) => Ok(Attrs::None),
        Some(bytes) => match str::from_utf8(bytes) {
            Ok(text) => check_attrs(text),
            Err(_) => Err(too_large(bytes.len()).err().unwrap_or_else(|| {
                BadRecord::new(
                    Reason::BadAttrs,
                    format!("attrs {} are not UTF-8", shown(bytes)),
                )
            })),
        },
    }
}

/// Accepts `text` iff it is one JSON object within the limits.
pub(super) fn check_attrs(text: &str) -> Result<Attrs<'_>, BadRecord> {
    too_large(text.len())?;
    let bad = |why: String| {
        let message = format!(
            "attrs {} are not a JSON object: {why}",
            shown(text.as_bytes())
        );
        Err(BadRecord::new(Reason::BadAttrs, message))
    };
    match serde_json::from_str::<Checked>(text) {
        Ok(_) if text.trim_start().starts_with('{') => Ok(Attrs::Object(text)),
        Ok(_) => bad("another JSON value".to_string()),
        Err(error) => bad(error.to_string()),
    }
}

fn too_large(bytes: usize) -> Result<(), BadRecord> {
    if bytes <= ATTRS_BYTES_MAX {
        return Ok(());
    }
    let message = format!("attrs have {bytes} bytes, at most {ATTRS_BYTES_MAX} are allowed");
    Err(BadRecord::new(Reason::AttrsTooLarge, message))
}

/// Any JSON value, parsed in full and forgotten.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Checked, E> {
        match value.is_finite() {
            true => Ok(Checked),
            false => Err(E::custom("number out of range")),
        }
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
        while fields.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}
