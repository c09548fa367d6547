//! One attribute of the rows of a chunk, over memory that grows or over bytes.
//!
//! Bytes, little-endian, every part on 8 bytes and padded with zeros to 8:
//!
//! | part | bytes |
//! |---|---|
//! | counts | rows, values, elements, bytes of texts: u32 each |
//! | kinds | one byte a value, then one byte an element (see `values`) |
//! | payloads | 8 bytes a value, then 8 bytes an element |
//! | texts | UTF-8, one after the other |
//! | codes | one a row: one byte where there are at most 255 values, else two |
//!
//! A code is 0 where the row lacks the field, else 1 + the place of its value.
//! Payloads are a number's float64, or where a text or a tuple's elements lie: start
//! and length, u32 each. Values and elements take texts, and tuples take elements,
//! without gap or overlap in the order in which they are written (a value's elements
//! before the value), so that each byte has one reading: whatever differs is refused.
//!
//! Distinctness of values is not checked: nothing breaks where it does not hold.

use super::CHUNK_ROWS;
use super::values::{
    ITEM_BYTES, Items, KIND_ELSEWHERE, KIND_NULL, KIND_NUMBER, KIND_TEXT, KIND_TUPLE, Values, place,
};
use crate::IndexError;
use crate::bytes::{Fields, put_u32s};

const SECTION: &str = "attribute column";
const ALIGN: usize = 8;
/// Codes of one byte: 0 and as many values.
const NARROW_VALUES_MAX: usize = u8::MAX as usize;

/// One attribute of the rows of one chunk: distinct values, and one code per row.
/// Borrowed from [`Columns`](super::Columns) or from bytes.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    values: Values<'a>,
    codes: Codes<'a>,
    elsewhere: Option<u16>,
}

/// A code per row, at most as large as there are values; rows past the end have 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Codes<'a> {
    Narrow(&'a [u8]),
    /// Little-endian, so that bytes of any alignment serve.
    Wide(&'a [[u8; 2]]),
}

impl<'a> Column<'a> {
    pub(super) fn new(values: Values<'a>, codes: Codes<'a>, elsewhere: Option<u16>) -> Self {
        Self {
            values,
            codes,
            elsewhere,
        }
    }

    /// Opens what [`Columns::encode`](super::Columns::encode) wrote for a chunk of
    /// `rows` rows. Nothing is copied; values are checked one by one, texts for UTF-8
    /// and codes for the largest, which costs microseconds. Any difference from what
    /// is written is an [`IndexError::Corrupt`] of section "attribute column"; a value
    /// or code that merely became another is for the checksum of whoever keeps the
    /// bytes.
    pub fn decode(bytes: &'a [u8], rows: u32) -> Result<Self, IndexError> {
        let mut fields = Fields::new(SECTION, bytes);
        let counts = [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?];
        let [stored_rows, values, elements, text_bytes] = counts.map(|count| count as usize);
        if stored_rows != rows as usize || rows > CHUNK_ROWS || values > stored_rows {
            return Err(fields.corrupt("impossible counts"));
        }
        let items = values.saturating_add(elements);
        fields.at_most(items, ITEM_BYTES)?;
        let kinds = fields.take(items)?;
        fields.pad_to(ALIGN)?;
        let payloads = fields.take(8 * items)?.as_chunks().0;
        let texts = str::from_utf8(fields.take(text_bytes)?);
        let texts = texts.map_err(|_| fields.corrupt("texts that are not UTF-8"))?;
        fields.pad_to(ALIGN)?;
        let codes = match values <= NARROW_VALUES_MAX {
            true => Codes::Narrow(fields.take(stored_rows)?),
            false => Codes::Wide(fields.take(2 * stored_rows)?.as_chunks().0),
        };
        fields.pad_to(ALIGN)?;
        fields.end()?;
        if codes.largest() > values {
            return Err(fields.corrupt("a code without a value"));
        }
        let (kinds, element_kinds) = kinds.split_at(values);
        let (payloads, element_payloads) = payloads.split_at(values);
        let values = Values {
            items: Items { kinds, payloads },
            elements: Items {
                kinds: element_kinds,
                payloads: element_payloads,
            },
            texts,
        };
        let elsewhere = check(&values).map_err(|reason| fields.corrupt(reason))?;
        Ok(Self::new(values, codes, elsewhere))
    }

    /// The bytes of a chunk of `rows` rows, as the module describes.
    pub(super) fn encode(&self, rows: u32) -> Vec<u8> {
        let Values {
            items,
            elements,
            texts,
        } = self.values;
        let count = items.kinds.len() + elements.kinds.len();
        let code_bytes = 2 * rows as usize;
        let mut out = Vec::with_capacity(16 + count * ITEM_BYTES + texts.len() + code_bytes + 24);
        let counts = [items.kinds.len(), elements.kinds.len(), texts.len()];
        put_u32s(&mut out, &[rows]);
        put_u32s(&mut out, &counts.map(|count| count as u32));
        for part in [items, elements] {
            out.extend_from_slice(part.kinds);
        }
        pad(&mut out);
        for part in [items, elements] {
            out.extend_from_slice(part.payloads.as_flattened());
        }
        out.extend_from_slice(texts.as_bytes());
        pad(&mut out);
        let (codes, width) = match self.codes {
            Codes::Narrow(codes) => (codes, 1),
            Codes::Wide(codes) => (codes.as_flattened(), 2),
        };
        let end = out.len() + rows as usize * width;
        out.extend_from_slice(codes);
        out.resize(end, 0);
        pad(&mut out);
        out
    }

    /// The distinct values; code `i + 1` is value `i`.
    pub(crate) fn values(&self) -> Values<'a> {
        self.values
    }

    /// The codes of the first `rows` rows at most.
    pub(crate) fn codes(&self, rows: usize) -> Codes<'a> {
        match self.codes {
            Codes::Narrow(codes) => Codes::Narrow(&codes[..rows.min(codes.len())]),
            Codes::Wide(codes) => Codes::Wide(&codes[..rows.min(codes.len())]),
        }
    }

    /// A row's code.
    pub(crate) fn code(&self, row: usize) -> usize {
        match self.codes {
            Codes::Narrow(codes) => codes.get(row).copied().map_or(0, usize::from),
            Codes::Wide(codes) => codes.get(row).copied().map_or(0, code_of),
        }
    }

    /// The code of rows whose value only their JSON text holds.
    pub(crate) fn elsewhere(&self) -> Option<u16> {
        self.elsewhere
    }
}

impl Codes<'_> {
    /// What rows have by their code, from row `start` on; `by_code` holds something for
    /// every code there is.
    pub(crate) fn gather(&self, start: usize, by_code: &[f64], out: &mut [f64]) {
        out.fill(by_code[0]);
        match self {
            Codes::Narrow(codes) => {
                let codes = codes.iter().skip(start);
                let pairs = out.iter_mut().zip(codes);
                pairs.for_each(|(out, code)| *out = by_code[usize::from(*code)]);
            }
            Codes::Wide(codes) => {
                let codes = codes.iter().skip(start);
                let pairs = out.iter_mut().zip(codes);
                pairs.for_each(|(out, code)| *out = by_code[code_of(*code)]);
            }
        }
    }

    fn largest(&self) -> usize {
        match self {
            Codes::Narrow(codes) => codes.iter().copied().max().map_or(0, usize::from),
            Codes::Wide(codes) => {
                let codes = codes.iter().map(|code| u16::from_le_bytes(*code));
                codes.max().map_or(0, usize::from)
            }
        }
    }
}

fn code_of(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_le_bytes(bytes))
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Checks every value and element in the order of writing; the code of the value that
/// is elsewhere.
fn check(values: &Values<'_>) -> Result<Option<u16>, &'static str> {
    let mut elsewhere = None;
    let (mut text_at, mut element_at) = (0, 0);
    let (items, elements) = (values.items, values.elements);
    let mut scalar = |kind: u8, payload: [u8; 8]| match kind {
        KIND_NUMBER => Ok(()),
        KIND_TEXT => {
            let (start, len) = place(payload);
            let is_next = start == std::mem::replace(&mut text_at, start.saturating_add(len));
            match is_next && values.texts.get(start..start.saturating_add(len)).is_some() {
                true => Ok(()),
                false => Err("a text out of place"),
            }
        }
        KIND_NULL if payload == [0; 8] => Ok(()),
        _ => Err("an unknown kind of value"),
    };
    for (index, (kind, payload)) in items.kinds.iter().zip(items.payloads).enumerate() {
        match *kind {
            KIND_TUPLE => {
                let (start, count) = place(*payload);
                if start != element_at || count > elements.kinds.len() - start {
                    return Err("a tuple out of place");
                }
                element_at += count;
                for element in start..element_at {
                    scalar(elements.kinds[element], elements.payloads[element])?;
                }
            }
            KIND_ELSEWHERE if elsewhere.is_none() && *payload == [0; 8] => {
                elsewhere = Some(index as u16 + 1);
            }
            kind => scalar(kind, *payload)?,
        }
    }
    match text_at == values.texts.len() && element_at == elements.kinds.len() {
        true => Ok(elsewhere),
        false => Err("texts or elements of no value"),
    }
}
