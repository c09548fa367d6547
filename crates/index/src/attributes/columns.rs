//! Gathers the attributes of rows into columns, one row at a time.
//!
//! 1. A row's fields are listed; text that is no JSON object has none.
//! 2. Of each name the first field is looked up, or gets a column while there is
//!    room. A field that counts as missing never makes a column.
//! 3. Its value is looked up among the column's values, or becomes a new one, or is
//!    elsewhere where it is too large; the row's code says which.
//!
//! Invariants: codes are given in order of first appearance, so what comes out is a
//! function of the rows alone. A column's codes end at the last row that has the
//! field: rows without it cost nothing until a later row has it.

use super::json::{Decoded, decode, read_fields};
use super::values::{ITEM_BYTES, Value, ValueTable};
use super::{
    CHUNK_ROWS, COLUMNS_MAX, Codes, Column, NAME_BYTES_MAX, TEXT_BYTES_MAX, TUPLE_ELEMENTS_MAX,
    VALUES_BYTES_MAX,
};
use hashbrown::HashTable;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Attributes of the rows of one chunk while it grows. See the module.
#[derive(Debug, Default)]
pub struct Columns {
    rows: u32,
    columns: Vec<Growing>,
    by_name: HashMap<String, usize>,
    /// Some field got no column.
    is_incomplete: bool,
    hasher: RandomState,
}

/// One column of a growing chunk.
#[derive(Debug)]
struct Growing {
    name: String,
    values: ValueTable,
    /// Bytes of the values, for the limit.
    values_bytes: usize,
    /// Codes of all values but elsewhere, by their hash.
    by_value: HashTable<u16>,
    elsewhere: Option<u16>,
    codes: GrowingCodes,
}

/// One byte a row until a 256th value comes.
#[derive(Debug)]
enum GrowingCodes {
    Narrow(Vec<u8>),
    Wide(Vec<[u8; 2]>),
}

impl Columns {
    /// Adds the next row; `attrs` is the text of a JSON object, and anything else is
    /// a row without fields. A chunk that has [`CHUNK_ROWS`] rows takes no more: the
    /// caller starts another.
    pub fn push(&mut self, attrs: Option<&str>) {
        if self.rows == CHUNK_ROWS {
            return;
        }
        let mut fields: Vec<(Cow<'_, str>, &str)> = Vec::new();
        let is_object =
            attrs.is_some_and(|text| read_fields(text, |name, value| fields.push((name, value))));
        if is_object {
            self.push_fields(&fields);
        }
        self.rows += 1;
    }

    fn push_fields(&mut self, fields: &[(Cow<'_, str>, &str)]) {
        let row = self.rows as usize;
        // First fields of their name that count as missing and have no column.
        let mut missing: Vec<&str> = Vec::new();
        for (name, text) in fields {
            let known = self.by_name.get(name.as_ref()).copied();
            if known.is_some_and(|column| self.columns[column].codes.len() > row) {
                continue;
            }
            let value = decode(text);
            let column = match (known, &value) {
                (Some(column), _) => column,
                (None, None) => {
                    missing.push(name);
                    continue;
                }
                (None, Some(_)) => {
                    if self.columns.len() == COLUMNS_MAX || name.len() > NAME_BYTES_MAX {
                        self.is_incomplete = true;
                        continue;
                    }
                    if missing.contains(&name.as_ref()) {
                        continue;
                    }
                    self.add_column(name)
                }
            };
            let column = &mut self.columns[column];
            let code = value.map_or(0, |value| column.code_of(&value, &self.hasher));
            column.codes.set(row, code);
        }
    }

    fn add_column(&mut self, name: &str) -> usize {
        let place = self.columns.len();
        self.by_name.insert(name.to_string(), place);
        self.columns.push(Growing {
            name: name.to_string(),
            values: ValueTable::default(),
            values_bytes: 0,
            by_value: HashTable::new(),
            elsewhere: None,
            codes: GrowingCodes::Narrow(Vec::new()),
        });
        place
    }

    /// Rows so far, at most [`CHUNK_ROWS`].
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Memory that is held, in bytes, allocators' own not counted.
    pub fn memory_bytes(&self) -> usize {
        let columns = self.columns.iter().map(Growing::memory_bytes);
        let vacant = self.columns.capacity() - self.columns.len();
        columns.sum::<usize>() + vacant * size_of::<Growing>()
    }

    /// The column of a field as of now; None where no row has the field or it got no
    /// column.
    pub fn column(&self, field: &str) -> Option<Column<'_>> {
        let place = *self.by_name.get(field)?;
        Some(self.columns[place].column())
    }

    /// Whether every field of every row is in a column.
    pub fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    /// The bytes of all columns by field name, ascending; see [`Column::decode`]. A
    /// function of the rows alone.
    pub fn encode(&self) -> Vec<(String, Vec<u8>)> {
        let encoded = self.columns.iter();
        let mut encoded: Vec<_> = encoded
            .map(|growing| (growing.name.clone(), growing.column().encode(self.rows)))
            .collect();
        encoded.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        encoded
    }
}

impl Growing {
    /// The code of a value, which is kept where it is new and fits.
    fn code_of(&mut self, decoded: &Decoded<'_>, hasher: &RandomState) -> u16 {
        let value = decoded.value();
        let Some(bytes) = bytes_of(&value) else {
            return self.elsewhere();
        };
        let hash = hasher.hash_one(value);
        let values = self.values.values();
        let is_same = |code: &u16| {
            let kept = values.get(usize::from(*code) - 1);
            kept.is_some_and(|kept| kept.is_identical(&value))
        };
        if let Some(code) = self.by_value.find(hash, is_same) {
            return *code;
        }
        if self.values_bytes + bytes > VALUES_BYTES_MAX {
            return self.elsewhere();
        }
        self.values_bytes += bytes;
        let code = self.add(Some(value));
        let values = self.values.values();
        self.by_value.insert_unique(hash, code, |code| {
            // Always there: what is elsewhere is not in this table.
            let kept = values.get(usize::from(*code) - 1);
            hasher.hash_one(kept.unwrap_or(Value::Null))
        });
        code
    }

    fn elsewhere(&mut self) -> u16 {
        match self.elsewhere {
            Some(code) => code,
            None => {
                let code = self.add(None);
                self.elsewhere = Some(code);
                code
            }
        }
    }

    /// At most one new value a row, so codes stay below [`CHUNK_ROWS`] + 1.
    fn add(&mut self, value: Option<Value<'_>>) -> u16 {
        self.values.push(value);
        self.values.len() as u16
    }

    fn column(&self) -> Column<'_> {
        let codes = match &self.codes {
            GrowingCodes::Narrow(codes) => Codes::Narrow(codes),
            GrowingCodes::Wide(codes) => Codes::Wide(codes),
        };
        Column::new(self.values.values(), codes, self.elsewhere)
    }

    fn memory_bytes(&self) -> usize {
        let codes = match &self.codes {
            GrowingCodes::Narrow(codes) => codes.capacity(),
            GrowingCodes::Wide(codes) => 2 * codes.capacity(),
        };
        // The name is kept twice, the second time as a key with its place; hash tables
        // hold one control byte a slot.
        let names = 2 * self.name.capacity() + size_of::<(String, usize)>() + 1;
        let by_value = self.by_value.capacity() * (size_of::<u16>() + 1);
        size_of::<Self>() + names + codes + by_value + self.values.memory_bytes()
    }
}

impl GrowingCodes {
    fn len(&self) -> usize {
        match self {
            GrowingCodes::Narrow(codes) => codes.len(),
            GrowingCodes::Wide(codes) => codes.len(),
        }
    }

    /// Gives the next row that has the field its code; rows between have none.
    fn set(&mut self, row: usize, code: u16) {
        if let GrowingCodes::Narrow(codes) = self {
            if let Ok(code) = u8::try_from(code) {
                codes.resize(row, 0);
                codes.push(code);
                return;
            }
            let wide = codes.iter().map(|code| [*code, 0]);
            *self = GrowingCodes::Wide(wide.collect());
        }
        if let GrowingCodes::Wide(codes) = self {
            codes.resize(row, [0; 2]);
            codes.push(code.to_le_bytes());
        }
    }
}

/// What a value takes of a column; None where it is too large to be copied.
fn bytes_of(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::Number(_) | Value::Null => Some(ITEM_BYTES),
        Value::Text(text) => (text.len() <= TEXT_BYTES_MAX).then_some(ITEM_BYTES + text.len()),
        Value::Tuple(elements) if elements.len() > TUPLE_ELEMENTS_MAX => None,
        Value::Tuple(elements) => elements
            .iter()
            .try_fold(ITEM_BYTES, |sum, element| Some(sum + bytes_of(&element)?)),
    }
}
