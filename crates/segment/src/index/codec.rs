//! The sections of `index.vxi` and what is in each. n = entries, r = records.
//!
//! ```text
//!  1 stats          80 B: entry hash u128, log time min and max i64, data.parquet
//!                   bytes u64, tail offset u64, records u32, deletes u32, dim u32,
//!                   metric u32 (0 cosine, 1 l2, 2 ip, 3 l1), zeros
//!  2 vector pages   16 B each: values offset u64, first row u32, rows u32
//!  3 pages          24 B each: offset u64, column u32, first row u32, bytes u32, crc32c u32
//!  4 parquet tail   data.parquet from the tail offset to its end
//!  5 row checksums  u32 × r, CRC32C of each vector's little-endian bytes
//!  6 norms          f32 × r
//!  7 id offsets     u32 × (n + 1)        8 id bytes   UTF-8
//!  9 positions      log times i64 × n, offsets u64 × n, sources u32 × n, partitions u32 × n
//! 10 event times    i64 × n, i64::MIN = none
//! 11 key filter     xorf's BinaryFuse8: descriptor 20 B, fingerprints; empty = no filter
//! 12 key table      hashes u64 × n ascending, ordinals u32 × n
//! ```
//! Parsing trusts nothing: after checksums come lengths, bounds and order, so
//! that no later lookup can panic, even on a file forged with right checksums.

use super::Index;
use super::container::{Container, ContainerWriter, u32_at, u64_at};
use super::keys::{KeyFilter, KeyTable};
use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::hash::EntryHash;
use crate::meta::{INDEX_FILE, SegmentSchema};
use crate::pages::{Layout, Page, VectorPage, check_layout};
use bytemuck::{Pod, cast_slice, cast_slice_mut};
use bytes::Bytes;
use std::io::Write;
use vexlake_distance::Metric;

type Kind = (u32, &'static str);
const STATS: Kind = (1, "stats");
const VECTOR_PAGES: Kind = (2, "vector pages");
const PAGES: Kind = (3, "pages");
const TAIL: Kind = (4, "parquet tail");
const ROW_CRCS: Kind = (5, "row checksums");
const NORMS: Kind = (6, "norms");
const ID_OFFSETS: Kind = (7, "id offsets");
const ID_BYTES: Kind = (8, "id bytes");
const POSITIONS: Kind = (9, "positions");
const EVENT_TIMES: Kind = (10, "event times");
const KEY_FILTER: Kind = (11, "key filter");
const KEY_TABLE: Kind = (12, "key table");

const STATS_BYTES: usize = 80;
const VECTOR_PAGE_BYTES: usize = 16;
const PAGE_BYTES: usize = 24;
/// Numbers of metrics in the file; the place in this array.
const METRICS: [Metric; 4] = [
    Metric::Cosine,
    Metric::L2,
    Metric::InnerProduct,
    Metric::Manhattan,
];

impl Index {
    /// Writes the file. The same index always gives the same bytes.
    pub(crate) fn write<W: Write>(&self, out: W) -> std::io::Result<W> {
        let entries = &self.entries;
        let mut file = ContainerWriter::new(out, self.id)?;
        file.section(STATS.0, &[&self.stats()])?;
        let mut vector_pages =
            Vec::with_capacity(self.layout.vector_pages.len() * VECTOR_PAGE_BYTES);
        for page in &self.layout.vector_pages {
            vector_pages.extend_from_slice(&page.values_at.to_le_bytes());
            vector_pages.extend_from_slice(&page.first_row.to_le_bytes());
            vector_pages.extend_from_slice(&page.rows.to_le_bytes());
        }
        file.section(VECTOR_PAGES.0, &[&vector_pages])?;
        let mut pages = Vec::with_capacity(self.layout.pages.len() * PAGE_BYTES);
        for page in &self.layout.pages {
            pages.extend_from_slice(&page.at.to_le_bytes());
            for word in [page.column, page.first_row, page.bytes, page.crc32c] {
                pages.extend_from_slice(&word.to_le_bytes());
            }
        }
        file.section(PAGES.0, &[&pages])?;
        file.section(TAIL.0, &[&self.layout.tail])?;
        file.section(ROW_CRCS.0, &[cast_slice(&entries.row_crcs)])?;
        file.section(NORMS.0, &[cast_slice(&entries.norms)])?;
        file.section(ID_OFFSETS.0, &[cast_slice(&entries.id_offsets)])?;
        file.section(ID_BYTES.0, &[entries.ids.as_bytes()])?;
        let positions: [&[u8]; 4] = [
            cast_slice(&entries.log_times),
            cast_slice(&entries.offsets),
            cast_slice(&entries.sources),
            cast_slice(&entries.partitions),
        ];
        file.section(POSITIONS.0, &positions)?;
        file.section(EVENT_TIMES.0, &[cast_slice(&entries.event_times)])?;
        file.section(KEY_FILTER.0, &[self.filter.bytes()])?;
        let table: [&[u8]; 2] = [
            cast_slice(self.keys.hashes()),
            cast_slice(self.keys.ordinals()),
        ];
        file.section(KEY_TABLE.0, &table)?;
        file.finish()
    }

    fn stats(&self) -> [u8; STATS_BYTES] {
        let (log_time_min, log_time_max) = self.entries.log_time_extent();
        let metric = METRICS
            .iter()
            .position(|metric| *metric == self.schema.metric);
        let mut stats = [0; STATS_BYTES];
        stats[..16].copy_from_slice(&self.entries.hash.to_le_bytes());
        stats[16..24].copy_from_slice(&log_time_min.to_le_bytes());
        stats[24..32].copy_from_slice(&log_time_max.to_le_bytes());
        stats[32..40].copy_from_slice(&self.layout.file_bytes.to_le_bytes());
        stats[40..48].copy_from_slice(&self.layout.tail_at.to_le_bytes());
        let words = [
            self.entries.rows,
            self.entries.deletes,
            self.schema.dim,
            metric.unwrap_or(0) as u32,
        ];
        for (place, word) in words.into_iter().enumerate() {
            stats[48 + place * 4..52 + place * 4].copy_from_slice(&word.to_le_bytes());
        }
        stats
    }

    /// Parses a file. Errors name section and offset; memory is at most twice
    /// the file.
    pub(crate) fn parse(file: &[u8]) -> Result<Self> {
        let container = Container::open(file)?;
        let raw = |kind: Kind| container.section(kind.0, kind.1);

        let (stats, stats_at) = raw(STATS)?;
        if stats.len() != STATS_BYTES {
            return Err(damaged(STATS, stats_at, format!("{} bytes", stats.len())));
        }
        let [rows, deletes, dim, metric] = [48, 52, 56, 60].map(|at| u32_at(stats, at));
        let Some(count) = rows.checked_add(deletes).map(|count| count as usize) else {
            return Err(damaged(
                STATS,
                stats_at,
                format!("{rows} records and {deletes} deletes"),
            ));
        };
        let Some(metric) = METRICS.get(metric as usize).copied() else {
            return Err(damaged(STATS, stats_at, format!("metric {metric}")));
        };
        let schema = SegmentSchema { dim, metric };
        schema
            .check()
            .map_err(|error| damaged(STATS, stats_at, error.to_string()))?;
        let mut hash = [0; 16];
        hash.copy_from_slice(&stats[..16]);

        let layout = Layout {
            vector_pages: parse_vector_pages(raw(VECTOR_PAGES)?)?,
            pages: parse_pages(raw(PAGES)?)?,
            tail_at: u64_at(stats, 40),
            tail: Bytes::copy_from_slice(raw(TAIL)?.0),
            file_bytes: u64_at(stats, 32),
        };
        check_layout(&layout, &schema, rows)?;
        if layout.file_bytes - layout.tail_at != layout.tail.len() as u64 {
            return Err(damaged(
                TAIL,
                raw(TAIL)?.1,
                format!("{} bytes", layout.tail.len()),
            ));
        }

        let (id_offsets, ids) = parse_ids(raw(ID_OFFSETS)?, raw(ID_BYTES)?, count)?;
        let (positions, positions_at) = raw(POSITIONS)?;
        if Some(positions.len()) != count.checked_mul(24) {
            return Err(damaged(
                POSITIONS,
                positions_at,
                format!("{} bytes for {count} entries", positions.len()),
            ));
        }
        let (log_times, positions) = positions.split_at(count * 8);
        let (offsets, positions) = positions.split_at(count * 8);
        let (sources, partitions) = positions.split_at(count * 4);
        let entries = Entries {
            rows,
            deletes,
            ids,
            id_offsets,
            log_times: column(log_times),
            offsets: column(offsets),
            sources: column(sources),
            partitions: column(partitions),
            event_times: sized_column(EVENT_TIMES, raw(EVENT_TIMES)?, count)?,
            norms: sized_column(NORMS, raw(NORMS)?, rows as usize)?,
            row_crcs: sized_column(ROW_CRCS, raw(ROW_CRCS)?, rows as usize)?,
            hash: EntryHash::from_le_bytes(hash),
        };

        let (filter, filter_at) = raw(KEY_FILTER)?;
        let filter = KeyFilter::parse(filter).map_err(|why| damaged(KEY_FILTER, filter_at, why))?;
        let (table, table_at) = raw(KEY_TABLE)?;
        if Some(table.len()) != count.checked_mul(12) {
            return Err(damaged(
                KEY_TABLE,
                table_at,
                format!("{} bytes for {count} entries", table.len()),
            ));
        }
        let (hashes, ordinals) = table.split_at(count * 8);
        let keys = KeyTable::parse(column(hashes), column(ordinals), count as u32)
            .map_err(|why| damaged(KEY_TABLE, table_at, why))?;
        Ok(Self {
            id: container.id,
            schema,
            entries,
            layout,
            filter,
            keys,
        })
    }
}

fn damaged(kind: Kind, at: u64, message: String) -> SegmentError {
    SegmentError::corrupt(INDEX_FILE, kind.1, at, message)
}

/// A column of whole values; the caller has checked the length.
fn column<T: Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

fn sized_column<T: Pod>(kind: Kind, (bytes, at): (&[u8], u64), count: usize) -> Result<Vec<T>> {
    if Some(bytes.len()) != count.checked_mul(size_of::<T>()) {
        return Err(damaged(
            kind,
            at,
            format!("{} bytes for {count} values", bytes.len()),
        ));
    }
    Ok(column(bytes))
}

fn parse_vector_pages((bytes, at): (&[u8], u64)) -> Result<Vec<VectorPage>> {
    if bytes.len() % VECTOR_PAGE_BYTES != 0 {
        return Err(damaged(VECTOR_PAGES, at, format!("{} bytes", bytes.len())));
    }
    let page = |page: &[u8]| VectorPage {
        values_at: u64_at(page, 0),
        first_row: u32_at(page, 8),
        rows: u32_at(page, 12),
    };
    Ok(bytes.chunks_exact(VECTOR_PAGE_BYTES).map(page).collect())
}

fn parse_pages((bytes, at): (&[u8], u64)) -> Result<Vec<Page>> {
    if bytes.len() % PAGE_BYTES != 0 {
        return Err(damaged(PAGES, at, format!("{} bytes", bytes.len())));
    }
    let page = |page: &[u8]| Page {
        at: u64_at(page, 0),
        column: u32_at(page, 8),
        first_row: u32_at(page, 12),
        bytes: u32_at(page, 16),
        crc32c: u32_at(page, 20),
    };
    Ok(bytes.chunks_exact(PAGE_BYTES).map(page).collect())
}

fn parse_ids(offsets: (&[u8], u64), ids: (&[u8], u64), count: usize) -> Result<(Vec<u32>, String)> {
    let id_offsets: Vec<u32> = sized_column(ID_OFFSETS, offsets, count + 1)?;
    let text =
        std::str::from_utf8(ids.0).map_err(|error| damaged(ID_BYTES, ids.1, error.to_string()))?;
    let is_whole = id_offsets.first() == Some(&0)
        && id_offsets
            .last()
            .is_some_and(|end| *end as usize == text.len());
    // Boundaries are checked here, so that slicing an id cannot panic.
    if !is_whole
        || !id_offsets.is_sorted()
        || !id_offsets
            .iter()
            .all(|at| text.is_char_boundary(*at as usize))
    {
        return Err(damaged(
            ID_OFFSETS,
            offsets.1,
            "offsets that do not cut the ids".to_string(),
        ));
    }
    Ok((id_offsets, text.to_string()))
}
