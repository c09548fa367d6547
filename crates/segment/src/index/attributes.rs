//! The attribute columns of a segment: gathered as rows stream past, and found by field.
//!
//! Rows are cut into chunks of [`CHUNK_ROWS`]; each chunk has a column of crates/index for
//! each of its fields. All columns lie one after another in a lazy section, by field and
//! chunk, and a page is one column: a filter reads the columns that it names and no other.
//! The directory is resident:
//!
//! ```text
//! fields u32, chunks u32, columns u32, 0 u32
//! per chunk, u32: 1 where every field of every row has its column, else 0
//! per field by name, u32: where its name ends among the names
//! per column by field and chunk: field u32, chunk u32, bytes u32, crc32c u32
//! the names, UTF-8
//! ```
//! A segment without the two sections is older than they: its chunks count as incomplete,
//! and filters ask the text of its attributes.

use std::collections::BTreeMap;
use std::ops::Range;

use vexlake_index::{CHUNK_ROWS, Column, Columns};

use super::container::u32_at;
use super::head::{Paged, Starts};

const HEADER_BYTES: usize = 16;
const COLUMN_BYTES: usize = 16;

/// The columns of rows pushed so far.
#[derive(Debug, Default)]
pub(crate) struct ColumnChunks {
    /// Encoded columns by (field, chunk).
    columns: BTreeMap<(String, u32), Vec<u8>>,
    /// Whether a chunk has a column for every field.
    complete: Vec<bool>,
    open: Columns,
}

impl ColumnChunks {
    /// Takes the attributes of the next row.
    pub(crate) fn push(&mut self, attrs: Option<&str>) {
        self.open.push(attrs);
        if self.open.rows() == CHUNK_ROWS {
            self.close_chunk();
        }
    }

    /// Ends the last chunk, however short.
    pub(crate) fn finish(&mut self) {
        if self.open.rows() > 0 {
            self.close_chunk();
        }
    }

    fn close_chunk(&mut self) {
        let chunk = self.complete.len() as u32;
        let open = std::mem::take(&mut self.open);
        self.complete.push(open.is_complete());
        let encoded = open.encode().into_iter();
        self.columns
            .extend(encoded.map(|(field, bytes)| ((field, chunk), bytes)));
    }

    /// The bytes of all columns, in the order of the directory.
    pub(super) fn columns(&self) -> impl Iterator<Item = &[u8]> {
        self.columns.values().map(Vec::as_slice)
    }

    /// The directory of finished chunks.
    pub(super) fn encode_directory(&self) -> Vec<u8> {
        let mut fields: Vec<&str> = self.columns.keys().map(|(field, _)| &**field).collect();
        fields.dedup();
        let counts = [fields.len(), self.complete.len(), self.columns.len(), 0];
        let mut words: Vec<u32> = counts.iter().map(|count| *count as u32).collect();
        words.extend(self.complete.iter().map(|complete| u32::from(*complete)));
        let names_end = fields.iter().scan(0, |end, field| {
            *end += field.len() as u32;
            Some(*end)
        });
        words.extend(names_end);
        let mut number = 0;
        for ((field, chunk), bytes) in &self.columns {
            if *field != fields[number] {
                number += 1;
            }
            let crc = crc32c::crc32c(bytes);
            words.extend([number as u32, *chunk, bytes.len() as u32, crc]);
        }
        let mut directory: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        fields
            .iter()
            .for_each(|field| directory.extend_from_slice(field.as_bytes()));
        directory
    }
}

/// The resident directory; see the file header.
#[derive(Debug, PartialEq)]
pub(crate) struct Attributes {
    rows: u32,
    complete: Vec<bool>,
    /// Names, ascending.
    fields: Vec<String>,
    /// (field, chunk) by page.
    columns: Vec<(u32, u32)>,
    pub(super) paged: Paged,
}

impl Attributes {
    /// Those of a segment that has no columns.
    pub(super) fn unknown(rows: u32) -> Self {
        Self {
            rows,
            complete: vec![false; chunks_of(rows)],
            fields: vec![],
            columns: vec![],
            paged: Paged {
                at: 0..0,
                starts: Starts::At(vec![0]),
                crcs: vec![],
            },
        }
    }

    /// Of the directory and the place of the columns; says why it cannot be.
    pub(super) fn parse(bytes: &[u8], at: Range<u64>, rows: u32) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("{} bytes", bytes.len()));
        }
        let [fields, chunks, count] = [0, 4, 8].map(|at| u32_at(bytes, at) as usize);
        let complete_at = HEADER_BYTES;
        let ends_at = complete_at.saturating_add(chunks.saturating_mul(4));
        let columns_at = ends_at.saturating_add(fields.saturating_mul(4));
        let names_at = columns_at.saturating_add(count.saturating_mul(COLUMN_BYTES));
        if chunks != chunks_of(rows) || names_at > bytes.len() {
            let length = bytes.len();
            return Err(format!(
                "{fields} fields, {chunks} chunks and {count} columns of {rows} rows in {length} bytes"
            ));
        }
        let words = |range: Range<usize>| bytes[range].chunks_exact(4).map(|word| u32_at(word, 0));
        let names = std::str::from_utf8(&bytes[names_at..]).map_err(|error| error.to_string())?;
        let mut named: Vec<String> = Vec::with_capacity(fields);
        let mut start = 0;
        for end in words(ends_at..columns_at) {
            let name = names.get(start..end as usize);
            let follows = |name: &&str| named.last().is_none_or(|last| last.as_str() < *name);
            let name = name.filter(follows);
            named.push(name.ok_or("names out of order")?.to_string());
            start = end as usize;
        }
        let (mut columns, mut starts, mut crcs) = (vec![], vec![0u64], vec![]);
        for column in bytes[columns_at..names_at].chunks_exact(COLUMN_BYTES) {
            let [field, chunk, length, crc] = [0, 4, 8, 12].map(|at| u32_at(column, at));
            let follows = columns.last().is_none_or(|last| *last < (field, chunk));
            if !follows || field as usize >= fields || chunk as usize >= chunks || length == 0 {
                return Err(format!(
                    "column of field {field} in chunk {chunk}, {length} bytes"
                ));
            }
            columns.push((field, chunk));
            starts.push(starts[starts.len() - 1] + u64::from(length));
            crcs.push(crc);
        }
        let wanted = at.end - at.start;
        if start != names.len() || starts.last() != Some(&wanted) {
            return Err(format!("columns that do not fill {wanted} bytes"));
        }
        Ok(Self {
            rows,
            complete: words(complete_at..ends_at).map(|word| word == 1).collect(),
            fields: named,
            columns,
            paged: Paged {
                at,
                starts: Starts::At(starts),
                crcs,
            },
        })
    }

    /// Chunks of rows: how many rows each has, and whether it has all columns.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u32, bool)> {
        let rows_of = |chunk: usize| {
            let first = chunk as u32 * CHUNK_ROWS;
            (self.rows - first).min(CHUNK_ROWS)
        };
        let numbered = self.complete.iter().enumerate();
        numbered.map(move |(chunk, complete)| (rows_of(chunk), *complete))
    }

    /// The page of a field's column in a chunk, where any row there has the field.
    pub(crate) fn page_of(&self, field: &str, chunk: u32) -> Option<u32> {
        let by_name = |name: &String| name.as_str().cmp(field);
        let field = self.fields.binary_search_by(by_name).ok()? as u32;
        let page = self.columns.binary_search(&(field, chunk)).ok()?;
        Some(page as u32)
    }

    /// Refuses bytes that are no column, which nobody could tell by their checksum.
    pub(super) fn check_page(&self, page: u32, bytes: &[u8]) -> Result<(), String> {
        let (_, chunk) = self.columns[page as usize];
        let rows = (self.rows - chunk * CHUNK_ROWS).min(CHUNK_ROWS);
        let decoded = Column::decode(bytes, rows);
        decoded.map(drop).map_err(|error| error.to_string())
    }

    /// Bytes held, near enough for a budget.
    pub(super) fn memory_bytes(&self) -> usize {
        let names = self
            .fields
            .iter()
            .map(|name| name.len() + size_of::<String>());
        self.complete.len()
            + names.sum::<usize>()
            + size_of_val(self.columns.as_slice())
            + self.paged.memory_bytes()
    }
}

fn chunks_of(rows: u32) -> usize {
    rows.div_ceil(CHUNK_ROWS) as usize
}
