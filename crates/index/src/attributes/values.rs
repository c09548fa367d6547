//! Values of attributes, many of them in few allocations.
//!
//! A value is a kind (one byte) and a payload (eight): a number's float64, where a
//! text lies among the texts, where a tuple's elements lie among the elements. The
//! same arrays are what grows ([`ValueTable`]), what a column's bytes hold, and what
//! filters compute on ([`Values`], borrowed from either), so that there is one way to
//! read a value and no copy between them.
//!
//! Reading checks every place; a payload that points nowhere reads as no value.

use std::hash::{Hash, Hasher};

pub(crate) const KIND_NUMBER: u8 = 1;
pub(crate) const KIND_TEXT: u8 = 2;
pub(crate) const KIND_NULL: u8 = 3;
pub(crate) const KIND_TUPLE: u8 = 4;
/// A value that only the row's JSON text holds.
pub(crate) const KIND_ELSEWHERE: u8 = 5;

/// Bytes of a payload.
pub(crate) const PAYLOAD_BYTES: usize = 8;
/// Bytes of a value in a table, without its text.
pub(super) const ITEM_BYTES: usize = 1 + PAYLOAD_BYTES;

/// One value, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Number(f64),
    Text(&'a str),
    Null,
    /// Its elements are never tuples.
    Tuple(Scalars<'a>),
}

impl Value<'_> {
    /// Whether a column must keep both or may keep one: the bits are compared, so
    /// that 0 and -0 stay two values.
    pub(crate) fn is_identical(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Null, Value::Null) => true,
            (Value::Tuple(a), Value::Tuple(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.is_identical(&b))
            }
            _ => false,
        }
    }
}

/// Agrees with [`Value::is_identical`].
impl Hash for Value<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Value::Number(number) => number.to_bits().hash(state),
            Value::Text(text) => text.hash(state),
            Value::Null => {}
            Value::Tuple(elements) => elements.iter().for_each(|element| element.hash(state)),
        }
    }
}

/// Kinds and payloads, as many of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Items<'a> {
    pub(crate) kinds: &'a [u8],
    pub(crate) payloads: &'a [[u8; PAYLOAD_BYTES]],
}

impl<'a> Items<'a> {
    fn get(&self, index: usize) -> Option<(u8, [u8; PAYLOAD_BYTES])> {
        Some((*self.kinds.get(index)?, *self.payloads.get(index)?))
    }

    fn range(&self, start: usize, count: usize) -> Option<Items<'a>> {
        let range = start..start.checked_add(count)?;
        Some(Items {
            kinds: self.kinds.get(range.clone())?,
            payloads: self.payloads.get(range)?,
        })
    }
}

/// Values that are not tuples: the elements of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalars<'a> {
    items: Items<'a>,
    texts: &'a str,
}

impl<'a> Scalars<'a> {
    pub(crate) fn len(&self) -> usize {
        self.items.kinds.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        let (kind, payload) = self.items.get(index)?;
        match kind {
            KIND_NUMBER => Some(Value::Number(f64::from_le_bytes(payload))),
            KIND_TEXT => {
                let (start, len) = place(payload);
                let text = self.texts.get(start..start.checked_add(len)?)?;
                Some(Value::Text(text))
            }
            KIND_NULL => Some(Value::Null),
            _ => None,
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'a>> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }
}

/// Values of any kind, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(super) items: Items<'a>,
    pub(super) elements: Items<'a>,
    pub(super) texts: &'a str,
}

impl<'a> Values<'a> {
    pub(crate) fn len(&self) -> usize {
        self.items.kinds.len()
    }

    /// None where the value is elsewhere.
    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        let texts = self.texts;
        match self.items.get(index)? {
            (KIND_TUPLE, payload) => {
                let (start, count) = place(payload);
                let items = self.elements.range(start, count)?;
                Some(Value::Tuple(Scalars { items, texts }))
            }
            _ => self.scalars().get(index),
        }
    }

    /// The value where it is a number; for many of them at once.
    #[inline]
    pub(crate) fn number(&self, index: usize) -> Option<f64> {
        let (kind, payload) = self.items.get(index)?;
        (kind == KIND_NUMBER).then(|| f64::from_le_bytes(payload))
    }

    fn scalars(&self) -> Scalars<'a> {
        Scalars {
            items: self.items,
            texts: self.texts,
        }
    }
}

/// Start and length, u32 each.
pub(super) fn place(payload: [u8; PAYLOAD_BYTES]) -> (usize, usize) {
    let both = u64::from_le_bytes(payload);
    (both as u32 as usize, (both >> 32) as usize)
}

fn payload_of(start: usize, len: usize) -> [u8; PAYLOAD_BYTES] {
    // Texts and elements of a table come from one request or one chunk, far below 4 GiB.
    (start as u64 | (len as u64) << 32).to_le_bytes()
}

/// Values that grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ValueTable {
    items: OwnedItems,
    elements: OwnedItems,
    texts: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct OwnedItems {
    kinds: Vec<u8>,
    payloads: Vec<[u8; PAYLOAD_BYTES]>,
}

impl OwnedItems {
    fn push(&mut self, kind: u8, payload: [u8; PAYLOAD_BYTES]) {
        self.kinds.push(kind);
        self.payloads.push(payload);
    }

    fn as_items(&self) -> Items<'_> {
        Items {
            kinds: &self.kinds,
            payloads: &self.payloads,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.kinds.capacity() + self.payloads.capacity() * PAYLOAD_BYTES
    }
}

impl ValueTable {
    /// Appends a copy of a value; None is one that stays elsewhere.
    pub(crate) fn push(&mut self, value: Option<Value<'_>>) {
        let (kind, payload) = match value {
            None => (KIND_ELSEWHERE, [0; PAYLOAD_BYTES]),
            Some(Value::Tuple(elements)) => {
                let start = self.elements.kinds.len();
                for element in elements.iter() {
                    let (kind, payload) = self.scalar(element);
                    self.elements.push(kind, payload);
                }
                (KIND_TUPLE, payload_of(start, elements.len()))
            }
            Some(scalar) => self.scalar(scalar),
        };
        self.items.push(kind, payload);
    }

    fn scalar(&mut self, value: Value<'_>) -> (u8, [u8; PAYLOAD_BYTES]) {
        match value {
            Value::Number(number) => (KIND_NUMBER, number.to_le_bytes()),
            Value::Text(text) => {
                let payload = payload_of(self.texts.len(), text.len());
                self.texts.push_str(text);
                (KIND_TEXT, payload)
            }
            // A tuple within a tuple is never made: `json` and the filter's parser refuse it.
            Value::Null | Value::Tuple(_) => (KIND_NULL, [0; PAYLOAD_BYTES]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.kinds.len()
    }

    pub(crate) fn values(&self) -> Values<'_> {
        Values {
            items: self.items.as_items(),
            elements: self.elements.as_items(),
            texts: &self.texts,
        }
    }

    /// All values, where none is a tuple.
    pub(crate) fn scalars(&self) -> Scalars<'_> {
        self.values().scalars()
    }

    /// Memory that is held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.items.memory_bytes() + self.elements.memory_bytes() + self.texts.capacity()
    }
}
