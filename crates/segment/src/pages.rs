//! Where things lie inside `data.parquet`.
//!
//! 1. The footer's offset index lists every page of every column.
//! 2. In an uncompressed PLAIN page of the vector column the values are its tail:
//!    `values_at = page offset + compressed size − 4·dim·rows in page`.
//! 3. Every page is read back once: vector rows against the checksums taken when
//!    they were pushed, other pages to take theirs. So a change of parquet-rs's
//!    layout fails the flush that meets it, not a reader a month later.
//! 4. What follows the last page, the footer with its indexes, is kept whole.
//!
//! Invariants: vector pages are contiguous in rows and cover them all; pages are
//! in file order; nothing lies between the pages of a column chunk.

use crate::columns::VECTOR;
use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::meta::{DATA_FILE, SegmentSchema};
use bytes::Bytes;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;

/// "PAR1", before the first page.
const MAGIC_BYTES: u64 = 4;

/// The vectors of one page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct VectorPage {
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
    /// Byte offset of the first float in the file.
    pub(crate) values_at: u64,
}

/// One page of another column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// Number of the leaf column in the Parquet schema.
    pub(crate) column: u32,
    pub(crate) first_row: u32,
    /// Byte offset of the page header in the file.
    pub(crate) at: u64,
    /// Length with header, compressed.
    pub(crate) bytes: u32,
    pub(crate) crc32c: u32,
}

/// The layout of one `data.parquet`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Layout {
    pub(crate) vector_pages: Vec<VectorPage>,
    /// Pages of all other columns, in file order.
    pub(crate) pages: Vec<Page>,
    /// Byte offset of everything after the last page.
    pub(crate) tail_at: u64,
    /// Everything after the last page.
    pub(crate) tail: Bytes,
    pub(crate) file_bytes: u64,
}

/// Parses the footer of a local Parquet file, offset index included.
pub(crate) fn open_footer<R: ChunkReader>(
    file: &'static str,
    reader: &R,
) -> Result<ParquetMetaData> {
    ParquetMetaDataReader::new()
        .with_offset_index_policy(PageIndexPolicy::Optional)
        .with_column_index_policy(PageIndexPolicy::Skip)
        .parse_and_finish(reader)
        .map_err(SegmentError::parquet(file))
}

/// The leaf columns' numbers by the name of their root.
pub(crate) fn leaf(metadata: &ParquetMetaData, name: &str) -> Option<usize> {
    let columns = metadata.file_metadata().schema_descr().columns();
    columns.iter().position(|column| {
        column
            .path()
            .parts()
            .first()
            .is_some_and(|root| root == name)
    })
}

/// Maps a local `data.parquet` and reads every page of it once. O(file).
pub(crate) fn survey<R: ChunkReader>(
    reader: &R,
    schema: &SegmentSchema,
    entries: &Entries,
) -> Result<Layout> {
    let metadata = open_footer(DATA_FILE, reader)?;
    let mut layout = map_pages(&metadata, schema, entries.rows, reader.len())?;
    let read = |at: u64, bytes: usize| {
        reader
            .get_bytes(at, bytes)
            .map_err(SegmentError::parquet(DATA_FILE))
    };
    for page in &layout.vector_pages {
        let values = read(page.values_at, page.rows as usize * schema.vector_bytes())?;
        let crcs = &entries.row_crcs[page.first_row as usize..];
        check_rows(schema, crcs, page.first_row, page.values_at, &values)?;
    }
    for page in &mut layout.pages {
        page.crc32c = crc32c::crc32c(&read(page.at, page.bytes as usize)?);
    }
    layout.tail = read(
        layout.tail_at,
        (layout.file_bytes - layout.tail_at) as usize,
    )?;
    Ok(layout)
}

/// Checks consecutive rows, as raw bytes, against their checksums, `first_row`'s first.
pub(crate) fn check_rows(
    schema: &SegmentSchema,
    crcs: &[u32],
    first_row: u32,
    at: u64,
    values: &[u8],
) -> Result<()> {
    for (row, (bytes, expected)) in values
        .chunks_exact(schema.vector_bytes())
        .zip(crcs)
        .enumerate()
    {
        let actual = crc32c::crc32c(bytes);
        if actual != *expected {
            return Err(SegmentError::corrupt(
                DATA_FILE,
                format!("vector of row {}", first_row as usize + row),
                at + (row * schema.vector_bytes()) as u64,
                format!("checksum {actual:08x}, expected {expected:08x}"),
            ));
        }
    }
    Ok(())
}

fn damaged(section: impl Into<String>, at: u64, message: impl Into<String>) -> SegmentError {
    SegmentError::corrupt(DATA_FILE, section, at, message)
}

/// The layout without checksums and tail, from the footer alone.
fn map_pages(
    metadata: &ParquetMetaData,
    schema: &SegmentSchema,
    rows: u32,
    file_bytes: u64,
) -> Result<Layout> {
    let vector = leaf(metadata, VECTOR).ok_or_else(|| damaged("schema", 0, "no vector column"))?;
    let mut layout = Layout {
        vector_pages: vec![],
        pages: vec![],
        tail_at: MAGIC_BYTES,
        tail: Bytes::new(),
        file_bytes,
    };
    let mut first_of_group = 0i64;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let index = metadata
            .offset_index()
            .and_then(|groups| groups.get(number));
        let index = index.ok_or_else(|| {
            damaged(
                "footer",
                0,
                format!("row group {number} has no offset index"),
            )
        })?;
        for (column, (chunk, pages)) in group.columns().iter().zip(index).enumerate() {
            let section = || format!("row group {number} column {column}");
            let (start, length) = chunk.byte_range();
            let pages = pages.page_locations();
            let mut at = start;
            for (place, page) in pages.iter().enumerate() {
                let next = pages
                    .get(place + 1)
                    .map_or(group.num_rows(), |next| next.first_row_index);
                let first_row = u32::try_from(first_of_group + page.first_row_index);
                let page_rows = u32::try_from(next - page.first_row_index);
                let bytes = u32::try_from(page.compressed_page_size);
                let (Ok(first_row), Ok(page_rows), Ok(bytes)) = (first_row, page_rows, bytes)
                else {
                    return Err(damaged(
                        section(),
                        at,
                        "a page with a negative or too large extent",
                    ));
                };
                if page.offset as u64 != at {
                    return Err(damaged(section(), at, format!("a page at {}", page.offset)));
                }
                at += u64::from(bytes);
                if column == vector {
                    let values_bytes = u64::from(page_rows) * schema.vector_bytes() as u64;
                    if values_bytes > u64::from(bytes) {
                        return Err(damaged(
                            section(),
                            at,
                            "a vector page shorter than its values",
                        ));
                    }
                    layout.vector_pages.push(VectorPage {
                        first_row,
                        rows: page_rows,
                        values_at: at - values_bytes,
                    });
                } else {
                    layout.pages.push(Page {
                        column: column as u32,
                        first_row,
                        at: page.offset as u64,
                        bytes,
                        crc32c: 0,
                    });
                }
            }
            if at != start + length {
                return Err(damaged(
                    section(),
                    at,
                    format!("pages end before {}", start + length),
                ));
            }
            layout.tail_at = layout.tail_at.max(at);
        }
        first_of_group += group.num_rows();
    }
    check_layout(&layout, schema, rows)?;
    Ok(layout)
}

/// The invariants of a layout, whether mapped from a footer or parsed from an
/// index; after this, arithmetic on it cannot overflow or leave the file.
pub(crate) fn check_layout(layout: &Layout, schema: &SegmentSchema, rows: u32) -> Result<()> {
    if layout.tail_at < MAGIC_BYTES || layout.tail_at > layout.file_bytes {
        let at = layout.tail_at;
        return Err(damaged(
            "footer",
            at,
            format!("beyond the file of {} bytes", layout.file_bytes),
        ));
    }
    let mut next_row = 0u32;
    let mut next_at = 0u64;
    for page in &layout.vector_pages {
        let bytes = u64::from(page.rows) * schema.vector_bytes() as u64;
        let end = page.values_at.checked_add(bytes);
        let in_file = page.values_at >= next_at && end.is_some_and(|end| end <= layout.tail_at);
        let next = page
            .first_row
            .checked_add(page.rows)
            .filter(|_| page.first_row == next_row && page.rows > 0);
        let (Some(next), true) = (next, in_file) else {
            return Err(damaged(
                "vector pages",
                page.values_at,
                format!("a page of rows from {}", page.first_row),
            ));
        };
        next_row = next;
        next_at = page.values_at + bytes;
    }
    if next_row != rows {
        return Err(damaged(
            "vector pages",
            next_at,
            format!("{next_row} rows instead of {rows}"),
        ));
    }
    let mut next_at = MAGIC_BYTES;
    for page in &layout.pages {
        let end = page.at.checked_add(u64::from(page.bytes));
        let Some(end) = end.filter(|end| page.at >= next_at && *end <= layout.tail_at) else {
            return Err(damaged(
                "pages",
                page.at,
                format!("a page of column {}", page.column),
            ));
        };
        next_at = end;
    }
    Ok(())
}
