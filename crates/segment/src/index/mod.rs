//! `index.vxi`: written whole, read by its head and by pages.
//!
//! [`Index`] is what is written, [`Head`] what a reader holds. An index comes to be in
//! two ways: from pushed entries and a finished Parquet file, or derived again from
//! Parquet alone. Both give the same bytes, because everything in it is a function of
//! the entries and the file.
//!
//! A new section is a line in `kinds.rs`, a call in [`Index::write`] on the lazy or the
//! resident side, and its parsing in `head.rs`; old readers skip it.

mod attributes;
mod container;
mod filter;
mod head;
mod kinds;
mod lists;
mod pages;

#[cfg(test)]
mod tests;

pub(crate) use attributes::ColumnChunks;
pub(crate) use head::{Head, Section};
pub(crate) use lists::Lists;
pub(crate) use pages::{ENTRIES_PER_PAGE, EntryPage, KeyPage};

use crate::entries::Entries;
use crate::error::Result;
use crate::meta::SegmentSchema;
use crate::pages::{Layout, survey};
use bytemuck::cast_slice;
use container::ContainerWriter;
use filter::KeyFilter;
use kinds::*;
use pages::{KEYS_PER_PAGE, encode_entries, encode_keys, sort_keys};
use parquet::file::reader::ChunkReader;
use std::io::Write;
use ulid::Ulid;
use vexlake_index::ListsHead;

/// Everything that `index.vxi` will say.
#[derive(Debug)]
pub(crate) struct Index {
    id: Ulid,
    schema: SegmentSchema,
    pub(crate) entries: Entries,
    layout: Layout,
    filter: KeyFilter,
    /// Hash and ordinal, by hash.
    keys: Vec<(u64, u32)>,
    /// The lists object, in list order, where there are lists.
    lists: Option<Vec<u8>>,
}

impl Index {
    /// Derives the index from the entries and the local `data.parquet` they were
    /// written to. Fails where an id occurs twice or the file does not hold the
    /// entries' vectors. O(file + n log n).
    pub(crate) fn build<R: ChunkReader>(
        id: Ulid,
        schema: SegmentSchema,
        mut entries: Entries,
        data: &R,
        lists: Option<Vec<u8>>,
    ) -> Result<Self> {
        entries.attributes.finish();
        let keys = sort_keys(&entries)?;
        let filter = KeyFilter::build(keys.iter().map(|(hash, _)| *hash).collect());
        let layout = survey(data, &schema, &entries)?;
        Ok(Self {
            id,
            schema,
            entries,
            layout,
            filter,
            keys,
            lists,
        })
    }

    /// Writes the file; answers the output and the length of the head. The same index
    /// always gives the same bytes.
    pub(crate) fn write<W: Write>(&self, out: W) -> std::io::Result<(W, u64)> {
        let entries = &self.entries;
        let mut file = ContainerWriter::new(out, self.id)?;

        let row_pages = entries.row_crcs.chunks(ENTRIES_PER_PAGE as usize);
        let row_page_crcs: Vec<u32> = row_pages
            .map(|page| crc32c::crc32c(cast_slice(page)))
            .collect();
        file.section(ROW_CHECKSUMS, [cast_slice::<u32, u8>(&entries.row_crcs)])?;

        let count = entries.len() as usize;
        let (mut starts, mut entry_crcs) = (vec![0u64], vec![]);
        let entry_pages = (0..count).step_by(ENTRIES_PER_PAGE as usize).map(|first| {
            let range = first..count.min(first + ENTRIES_PER_PAGE as usize);
            let page = encode_entries(entries, range);
            starts.push(starts[starts.len() - 1] + page.len() as u64);
            entry_crcs.push(crc32c::crc32c(&page));
            page
        });
        file.section(ENTRY_PAGES, entry_pages)?;

        let (mut fences, mut key_crcs) = (vec![], vec![]);
        let key_pages = self.keys.chunks(KEYS_PER_PAGE).map(|keys| {
            let page = encode_keys(keys);
            fences.push(keys[0].0);
            key_crcs.push(crc32c::crc32c(&page));
            page
        });
        file.section(KEY_PAGES, key_pages)?;

        let (lists_head, lists) = self.split_lists();
        if let Some(lists) = lists {
            file.section(LISTS, [lists])?;
        }
        // The newest section comes last: where an older file is derived again, the pages
        // that its head knows lie where they lay.
        file.section(ATTRIBUTE_COLUMNS, entries.attributes.columns())?;

        file.begin_head()?;
        file.section(STATS, [&self.stats()])?;
        let mut vector_pages = Vec::with_capacity(self.layout.vector_pages.len() * 16);
        for page in &self.layout.vector_pages {
            vector_pages.extend_from_slice(&page.values_at.to_le_bytes());
            vector_pages.extend_from_slice(&page.first_row.to_le_bytes());
            vector_pages.extend_from_slice(&page.rows.to_le_bytes());
        }
        file.section(VECTOR_PAGES, [&vector_pages])?;
        let mut pages = Vec::with_capacity(self.layout.pages.len() * PAGE_BYTES);
        for page in &self.layout.pages {
            pages.extend_from_slice(&page.at.to_le_bytes());
            for word in [page.column, page.first_row, page.bytes, page.crc32c] {
                pages.extend_from_slice(&word.to_le_bytes());
            }
        }
        file.section(PAGES, [&pages])?;
        file.section(TAIL, [&self.layout.tail])?;
        file.section(ROW_CHECKSUM_PAGES, [cast_slice::<u32, u8>(&row_page_crcs)])?;
        let directory: [&[u8]; 2] = [cast_slice(&starts), cast_slice(&entry_crcs)];
        file.section(ENTRY_DIRECTORY, directory)?;
        let directory: [&[u8]; 2] = [cast_slice(&fences), cast_slice(&key_crcs)];
        file.section(KEY_FENCES, directory)?;
        file.section(KEY_FILTER, self.filter.bytes())?;
        if let Some(head) = lists_head {
            file.section(LISTS_HEAD, [head])?;
        }
        file.section(ATTRIBUTE_DIRECTORY, [entries.attributes.encode_directory()])?;
        file.finish()
    }

    /// The lists object cut in two: its head, and the lists.
    fn split_lists(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        let cut = |object: &'_ Vec<u8>| {
            let head = ListsHead::bytes_of_head(object).unwrap_or(0);
            object.len().min(head as usize)
        };
        self.lists
            .as_ref()
            .map(|object| object.split_at(cut(object)))
            .unzip()
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
}
