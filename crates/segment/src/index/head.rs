//! The resident part of an open `index.vxi`: what a reader holds in memory.
//!
//! Stats, the layout of data.parquet, the key filter, and for each lazy section where
//! its pages lie and what their checksums are. About 2.7 bytes an entry, of which the
//! filter takes 2.3; the rest is fences and checksums (0.08) and the Parquet footer.
//!
//! Parsing trusts nothing: after checksums come lengths, bounds and order, so that no
//! later lookup can panic, even on a file forged with right checksums.

use super::attributes::Attributes;
use super::container::{Container, Kind, column, u32_at, u64_at};
use super::filter::KeyFilter;
use super::kinds::*;
use super::lists::Lists;
use super::pages::{ENTRIES_PER_PAGE, EntryPage, KEY_BYTES, KEYS_PER_PAGE, KeyPage};
use crate::error::{Result, SegmentError};
use crate::hash::EntryHash;
use crate::meta::{INDEX_FILE, SegmentSchema};
use crate::pages::{Layout, Page, VectorPage, check_layout};
use bytes::Bytes;
use std::ops::Range;
use ulid::Ulid;

/// The lazy sections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Section {
    /// u32 per record.
    RowChecksums,
    /// Ids, positions, event times.
    Entries,
    /// Hashes and ordinals.
    Keys,
    /// Whole lists of codes.
    Lists,
    /// Columns of attributes.
    Attributes,
}

/// Where the pages of a lazy section begin.
#[derive(Debug, PartialEq)]
pub(super) enum Starts {
    /// Every so many bytes.
    Every(u64),
    /// At these offsets in the section; one more than pages.
    At(Vec<u64>),
}

/// A lazy section: its place in the file, its pages and their checksums.
#[derive(Debug, PartialEq)]
pub(super) struct Paged {
    pub(super) at: Range<u64>,
    pub(super) starts: Starts,
    pub(super) crcs: Vec<u32>,
}

impl Paged {
    fn range(&self, page: u32) -> Range<u64> {
        let page = page as usize;
        match &self.starts {
            Starts::Every(bytes) => {
                let start = self.at.start + page as u64 * bytes;
                start..self.at.end.min(start + bytes)
            }
            Starts::At(starts) => self.at.start + starts[page]..self.at.start + starts[page + 1],
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let starts = match &self.starts {
            Starts::Every(_) => 0,
            Starts::At(starts) => starts.len() * 8,
        };
        starts + self.crcs.len() * 4
    }
}

/// Everything resident that `index.vxi` says.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) id: Ulid,
    pub(crate) schema: SegmentSchema,
    pub(crate) rows: u32,
    pub(crate) deletes: u32,
    pub(crate) hash: EntryHash,
    pub(crate) layout: Layout,
    filter: KeyFilter,
    row_checksums: Paged,
    entry_pages: Paged,
    key_pages: Paged,
    /// The first hash of each key page.
    fences: Vec<u64>,
    /// The inverted lists, where the segment has them.
    pub(crate) lists: Option<Lists>,
    /// Where the columns of attributes lie.
    pub(crate) attributes: Attributes,
}

impl Head {
    /// Parses the end of a file of `file_bytes` bytes: its head, or more of it. Errors
    /// name section and offset.
    pub(crate) fn parse(end: &[u8], file_bytes: u64) -> Result<Self> {
        let file = Container::open(end, file_bytes)?;
        let (stats, stats_at) = file.resident(STATS)?;
        if stats.len() != STATS_BYTES {
            return damaged(STATS, stats_at, format!("{} bytes", stats.len()));
        }
        let [rows, deletes, dim, metric] = [48, 52, 56, 60].map(|at| u32_at(stats, at));
        let Some(entries) = rows.checked_add(deletes) else {
            let message = format!("{rows} records and {deletes} deletes");
            return damaged(STATS, stats_at, message);
        };
        let Some(metric) = METRICS.get(metric as usize).copied() else {
            return damaged(STATS, stats_at, format!("metric {metric}"));
        };
        let schema = SegmentSchema { dim, metric };
        if let Err(error) = schema.check() {
            return damaged(STATS, stats_at, error.to_string());
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&stats[..16]);
        let layout = parse_layout(&file, stats, &schema, rows)?;

        let (filter, filter_at) = file.resident(KEY_FILTER)?;
        let filter = KeyFilter::parse(filter).or_else(|why| damaged(KEY_FILTER, filter_at, why))?;
        let (key_pages, fences) = parse_key_pages(&file, entries)?;
        Ok(Self {
            id: file.id,
            schema,
            rows,
            deletes,
            hash: EntryHash::from_le_bytes(hash),
            layout,
            filter,
            row_checksums: parse_row_checksums(&file, rows)?,
            entry_pages: parse_entry_pages(&file, entries)?,
            key_pages,
            fences,
            lists: parse_lists(&file, rows)?,
            attributes: parse_attributes(&file, rows)?,
        })
    }

    /// Records and deletes.
    pub(crate) fn entries(&self) -> u32 {
        self.rows + self.deletes
    }

    /// False only for keys that are not there.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        self.filter.contains(hash)
    }

    /// The key pages that may hold a hash: one, but where equal hashes meet a fence.
    pub(crate) fn key_pages_of(&self, hash: u64) -> Range<u32> {
        let first = self.fences.partition_point(|fence| *fence < hash);
        let end = self.fences.partition_point(|fence| *fence <= hash);
        first.saturating_sub(1) as u32..end as u32
    }

    /// How many entries an entry page holds.
    pub(crate) fn entries_in(&self, page: u32) -> usize {
        let first = page * ENTRIES_PER_PAGE;
        (self.entries() - first).min(ENTRIES_PER_PAGE) as usize
    }

    /// A section whose pages its directory cuts; None of lists, which say it themselves.
    fn paged(&self, section: Section) -> Option<&Paged> {
        match section {
            Section::RowChecksums => Some(&self.row_checksums),
            Section::Entries => Some(&self.entry_pages),
            Section::Keys => Some(&self.key_pages),
            Section::Attributes => Some(&self.attributes.paged),
            Section::Lists => None,
        }
    }

    /// The lists. Panics of a segment without.
    fn lists(&self) -> &Lists {
        let lists = self.lists.as_ref();
        lists.expect("pages of lists are asked for only where there are lists")
    }

    /// How many pages a section has.
    #[cfg(test)]
    pub(super) fn pages(&self, section: Section) -> u32 {
        self.paged(section)
            .map_or_else(|| self.lists().pages(), |paged| paged.crcs.len() as u32)
    }

    /// The bytes of a page in the file. Panics beyond the section's pages.
    pub(crate) fn page_range(&self, section: Section, page: u32) -> Range<u64> {
        match self.paged(section) {
            Some(paged) => paged.range(page),
            None => self.lists().page_range(page),
        }
    }

    /// Refuses bytes that are not the page: checksum first, then shape.
    pub(crate) fn check_page(&self, section: Section, page: u32, bytes: &[u8]) -> Result<()> {
        let kind = match section {
            Section::RowChecksums => ROW_CHECKSUMS,
            Section::Entries => ENTRY_PAGES,
            Section::Keys => KEY_PAGES,
            Section::Lists => LISTS,
            Section::Attributes => ATTRIBUTE_COLUMNS,
        };
        let Some(paged) = self.paged(section) else {
            let (lists, at) = (self.lists(), self.page_range(section, page).start);
            let checked = lists.check_page(page, bytes);
            return checked.or_else(|why| damaged(kind, at, format!("page {page}: {why}")));
        };
        let at = paged.range(page);
        let (crc, expected) = (crc32c::crc32c(bytes), paged.crcs[page as usize]);
        if bytes.len() as u64 != at.end - at.start || crc != expected {
            let message = format!("page {page}: checksum {crc:08x}, expected {expected:08x}");
            return damaged(kind, at.start, message);
        }
        let shaped = match section {
            Section::RowChecksums => Ok(()),
            Section::Entries => EntryPage::check(bytes, self.entries_in(page)),
            Section::Keys => KeyPage::check(bytes, self.fences[page as usize], self.entries()),
            Section::Attributes => self.attributes.check_page(page, bytes),
            Section::Lists => Ok(()),
        };
        shaped.or_else(|why| damaged(kind, at.start, format!("page {page}: {why}")))
    }

    /// Bytes held, near enough for a budget.
    pub(crate) fn memory_bytes(&self) -> usize {
        let paged = [&self.row_checksums, &self.entry_pages, &self.key_pages];
        size_of::<Self>()
            + self
                .filter
                .bytes()
                .iter()
                .map(|part| part.len())
                .sum::<usize>()
            + paged
                .iter()
                .map(|paged| paged.memory_bytes())
                .sum::<usize>()
            + self.fences.len() * 8
            + self.layout.pages.len() * size_of::<Page>()
            + self.layout.vector_pages.len() * size_of::<VectorPage>()
            + self.layout.tail.len()
            + self.lists.as_ref().map_or(0, Lists::memory_bytes)
            + self.attributes.memory_bytes()
    }
}

fn damaged<T>(kind: Kind, at: u64, message: String) -> Result<T> {
    Err(SegmentError::corrupt(INDEX_FILE, kind.1, at, message))
}

fn parse_layout(
    file: &Container<'_>,
    stats: &[u8],
    schema: &SegmentSchema,
    rows: u32,
) -> Result<Layout> {
    let vector_page = |page: &[u8]| VectorPage {
        values_at: u64_at(page, 0),
        first_row: u32_at(page, 8),
        rows: u32_at(page, 12),
    };
    let page = |page: &[u8]| Page {
        at: u64_at(page, 0),
        column: u32_at(page, 8),
        first_row: u32_at(page, 12),
        bytes: u32_at(page, 16),
        crc32c: u32_at(page, 20),
    };
    let records = |kind: Kind, bytes_each: usize| {
        let (bytes, at) = file.resident(kind)?;
        if bytes.len() % bytes_each != 0 {
            return damaged(kind, at, format!("{} bytes", bytes.len()));
        }
        Ok(bytes.chunks_exact(bytes_each))
    };
    let (tail, tail_at) = file.resident(TAIL)?;
    let layout = Layout {
        vector_pages: records(VECTOR_PAGES, VECTOR_PAGE_BYTES)?
            .map(vector_page)
            .collect(),
        pages: records(PAGES, PAGE_BYTES)?.map(page).collect(),
        tail_at: u64_at(stats, 40),
        tail: Bytes::copy_from_slice(tail),
        file_bytes: u64_at(stats, 32),
    };
    check_layout(&layout, schema, rows)?;
    if layout.file_bytes - layout.tail_at != tail.len() as u64 {
        return damaged(TAIL, tail_at, format!("{} bytes", tail.len()));
    }
    Ok(layout)
}

/// A lazy section of fixed pages with its directory, as (crcs, what else the directory says).
fn parse_directory<'a>(
    file: &Container<'a>,
    kind: Kind,
    wide: usize,
    pages: usize,
) -> Result<(&'a [u8], Vec<u32>)> {
    let (bytes, at) = file.resident(kind)?;
    if bytes.len() != wide * 8 + pages * 4 {
        return damaged(kind, at, format!("{} bytes for {pages} pages", bytes.len()));
    }
    let (words, crcs) = bytes.split_at(wide * 8);
    Ok((words, column(crcs)))
}

fn parse_fixed(
    file: &Container<'_>,
    kind: Kind,
    items: u32,
    item_bytes: u64,
    page_items: u64,
    crcs: Vec<u32>,
) -> Result<Paged> {
    let at = file.lazy(kind)?;
    if at.end - at.start != u64::from(items) * item_bytes {
        let message = format!("{} bytes for {items}", at.end - at.start);
        return damaged(kind, at.start, message);
    }
    let starts = Starts::Every(item_bytes * page_items);
    Ok(Paged { at, starts, crcs })
}

fn parse_row_checksums(file: &Container<'_>, rows: u32) -> Result<Paged> {
    let pages = rows.div_ceil(ENTRIES_PER_PAGE) as usize;
    let (_, crcs) = parse_directory(file, ROW_CHECKSUM_PAGES, 0, pages)?;
    parse_fixed(
        file,
        ROW_CHECKSUMS,
        rows,
        4,
        u64::from(ENTRIES_PER_PAGE),
        crcs,
    )
}

fn parse_key_pages(file: &Container<'_>, entries: u32) -> Result<(Paged, Vec<u64>)> {
    let pages = (entries as usize).div_ceil(KEYS_PER_PAGE);
    let (fences, crcs) = parse_directory(file, KEY_FENCES, pages, pages)?;
    let fences: Vec<u64> = column(fences);
    if !fences.is_sorted() {
        let (_, at) = file.resident(KEY_FENCES)?;
        return damaged(KEY_FENCES, at, "out of order".to_string());
    }
    let (key_bytes, page_keys) = (KEY_BYTES as u64, KEYS_PER_PAGE as u64);
    let paged = parse_fixed(file, KEY_PAGES, entries, key_bytes, page_keys, crcs)?;
    Ok((paged, fences))
}

fn parse_lists(file: &Container<'_>, rows: u32) -> Result<Option<Lists>> {
    if !file.has(LISTS_HEAD) {
        return Ok(None);
    }
    let (head, head_at) = file.resident(LISTS_HEAD)?;
    let parsed = Lists::parse(head, file.lazy(LISTS)?, rows);
    parsed
        .map(Some)
        .or_else(|why| damaged(LISTS_HEAD, head_at, why))
}

fn parse_attributes(file: &Container<'_>, rows: u32) -> Result<Attributes> {
    if !file.has(ATTRIBUTE_DIRECTORY) {
        return Ok(Attributes::unknown(rows));
    }
    let (directory, at) = file.resident(ATTRIBUTE_DIRECTORY)?;
    let parsed = Attributes::parse(directory, file.lazy(ATTRIBUTE_COLUMNS)?, rows);
    parsed.or_else(|why| damaged(ATTRIBUTE_DIRECTORY, at, why))
}

fn parse_entry_pages(file: &Container<'_>, entries: u32) -> Result<Paged> {
    let pages = entries.div_ceil(ENTRIES_PER_PAGE) as usize;
    let (starts, crcs) = parse_directory(file, ENTRY_DIRECTORY, pages + 1, pages)?;
    let starts: Vec<u64> = column(starts);
    let at = file.lazy(ENTRY_PAGES)?;
    let is_whole = starts.first() == Some(&0) && starts.last() == Some(&(at.end - at.start));
    // Strictly: an empty page would be an empty range, which stores refuse.
    if !is_whole || !starts.is_sorted_by(|a, b| a < b) {
        let message = format!("pages that do not cut {} bytes", at.end - at.start);
        return damaged(ENTRY_DIRECTORY, at.start, message);
    }
    let starts = Starts::At(starts);
    Ok(Paged { at, starts, crcs })
}
