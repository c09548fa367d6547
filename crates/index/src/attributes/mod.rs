//! Attributes of rows as columns, so that a filter need not parse JSON row by row.
//!
//! A chunk of at most [`CHUNK_ROWS`] rows has one column per attribute: its distinct
//! values in order of first appearance, and one code per row that says which of them
//! the row has. `json` reads a row's text, `values` keeps what was read, `columns`
//! gathers rows, `column` looks at one column and knows its bytes.
//!
//! What becomes of a JSON value is what Redis documents for FILTER: numbers are
//! float64, strings are texts, true and false are 1 and 0, null is a value of its own,
//! a flat array of those is a tuple. Nested objects, and arrays that hold an array or
//! an object, are as if the field were missing. Of equal names the first counts.
//! Escapes are all decoded, in names too; Redis leaves some as they are written.
//!
//! Invariant: a column never says anything else than the row's JSON text would. What
//! it cannot hold it calls *elsewhere*, which makes the reader ask the text.

mod column;
mod columns;
pub(crate) mod json;
pub(crate) mod values;

pub(crate) use column::Codes;
pub use column::Column;
pub use columns::Columns;

/// Rows of one chunk: codes of 32,768 different values and "missing" fit in 16 bits,
/// and the codes of a column (32 or 64 KiB) fit in a core's second-level cache.
pub const CHUNK_ROWS: u32 = 32_768;
/// Fields of one chunk that get a column; those that come first stay. 256 columns of
/// 16-bit codes are 16 MiB, the most that the codes of a chunk take.
const COLUMNS_MAX: usize = 256;
/// Bytes of a field's name; a longer one gets no column. 256 names are 64 KiB.
const NAME_BYTES_MAX: usize = 256;
/// Bytes of a text that is copied: titles, tags and ids, not bodies.
const TEXT_BYTES_MAX: usize = 1_024;
/// Elements of a tuple that is copied: tags of a row, not embeddings.
const TUPLE_ELEMENTS_MAX: usize = 64;
/// Bytes of a column's values. 32,768 different numbers take 9 bytes each, 288 KiB,
/// and always fit; so do as many texts of 23 bytes.
const VALUES_BYTES_MAX: usize = 1 << 20;
