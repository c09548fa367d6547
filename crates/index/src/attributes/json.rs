//! Reads the top-level fields of a JSON object, in the order of its text.
//!
//! Values stay text until somebody wants them: a field nobody asks for is skipped
//! over, not decoded. Nothing recurses, whatever the depth of the text.
//!
//! Numbers are parsed by the standard library and not by serde_json, whose default
//! may be off by one unit in the last place: `.price == 0.1` must find the row that
//! says 0.1, and the filter's own numbers are parsed that way.

use super::values::{Value, ValueTable};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A decoded value that may own what it had to unescape.
#[derive(Debug)]
pub(crate) enum Decoded<'a> {
    Number(f64),
    Text(Cow<'a, str>),
    Null,
    /// The elements are the table's values.
    Tuple(ValueTable),
}

impl Decoded<'_> {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Decoded::Number(number) => Value::Number(*number),
            Decoded::Text(text) => Value::Text(text),
            Decoded::Null => Value::Null,
            Decoded::Tuple(elements) => Value::Tuple(elements.scalars()),
        }
    }
}

/// Calls `visit` with every field's name and the text of its value. False where the
/// text is no JSON object: then what was visited does not count.
pub(crate) fn read_fields<'a>(text: &'a str, visit: impl FnMut(Cow<'a, str>, &'a str)) -> bool {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Fields { visit }).is_ok() && deserializer.end().is_ok()
}

/// The value in a field's text; None where the field counts as missing.
pub(crate) fn decode(text: &str) -> Option<Decoded<'_>> {
    if !text.starts_with('[') {
        return decode_scalar(text);
    }
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let mut tuple = ValueTable::default();
    for element in elements {
        tuple.push(Some(decode_scalar(element.get())?.value()));
    }
    Some(Decoded::Tuple(tuple))
}

fn decode_scalar(text: &str) -> Option<Decoded<'_>> {
    Some(match text.as_bytes().first()? {
        b'"' if text.contains('\\') => Decoded::Text(Cow::Owned(serde_json::from_str(text).ok()?)),
        b'"' => Decoded::Text(Cow::Borrowed(text.get(1..text.len() - 1)?)),
        b't' => Decoded::Number(1.0),
        b'f' => Decoded::Number(0.0),
        b'n' => Decoded::Null,
        b'-' | b'0'..=b'9' => Decoded::Number(text.parse().ok()?),
        _ => return None,
    })
}

/// The object itself.
struct Fields<F> {
    visit: F,
}

impl<'a, F: FnMut(Cow<'a, str>, &'a str)> Visitor<'a> for Fields<F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key_seed(Name)? {
            let value: &'a RawValue = fields.next_value()?;
            (self.visit)(name, value.get());
        }
        Ok(())
    }
}

/// A field's name, borrowed where it has no escapes (serde's own `Cow` always owns).
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_string()))
    }
}
