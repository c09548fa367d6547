//! Pages of the lazy index sections: from the cache, from the store, or, once the stored
//! index proved damaged, from one derived from Parquet.
//!
//! A wave is one call: all its pages are asked for together, and neighbours are read
//! together (the store joins near ranges). Every page is checked against the head before
//! anybody sees it, also those of a derived index.

use super::{Inner, SegmentReader, is_damage};
use crate::cache::{Part, ReadCounts};
use crate::error::Result;
use crate::index::{ENTRIES_PER_PAGE, Section};
use crate::meta::INDEX_FILE;
use crate::rebuild::rebuild_index;
use bytes::Bytes;
use std::ops::Range;

impl SegmentReader {
    /// Pages by ascending, distinct numbers, through the cache: one round of reads for
    /// those that it lacks. Panics beyond the section's pages.
    pub(super) async fn pages(&self, section: Section, numbers: &[u32]) -> Result<Vec<Bytes>> {
        self.counted_pages(section, numbers, &ReadCounts::default())
            .await
    }

    /// As [`SegmentReader::pages`], counting what is read.
    pub(super) async fn counted_pages(
        &self,
        section: Section,
        numbers: &[u32],
        counts: &ReadCounts,
    ) -> Result<Vec<Bytes>> {
        let load = |wanted: Vec<u32>| async move {
            let pages = self.read_pages(section, &wanted).await?;
            let ranges: Vec<Range<u64>> = wanted
                .iter()
                .map(|page| self.0.head.page_range(section, *page))
                .collect();
            let bytes = pages.iter().map(|page| page.len() as u64).sum();
            let requests = self.0.store.requests_for(&ranges);
            counts.add_loaded(wanted.len() as u64, requests, bytes);
            // A page may be a slice of a longer read, all of which it would keep alive.
            Ok(pages
                .iter()
                .map(|page| Bytes::copy_from_slice(page))
                .collect())
        };
        let (cache, part) = (&self.0.cache, Part::Index(section));
        cache.pages(self.0.meta.id, part, numbers, load).await
    }

    /// As [`SegmentReader::pages`], past the cache.
    pub(super) async fn read_pages(&self, section: Section, numbers: &[u32]) -> Result<Vec<Bytes>> {
        let head = &self.0.head;
        let ranges: Vec<Range<u64>> = numbers
            .iter()
            .map(|page| head.page_range(section, *page))
            .collect();
        let check = |pages: &[Bytes]| {
            let mut numbered = numbers.iter().zip(pages);
            numbered.try_for_each(|(number, page)| head.check_page(section, *number, page))
        };
        if !self.is_rebuilt() {
            let read = self.0.store.get_ranges(INDEX_FILE, &ranges).await;
            let read = read.map_err(Into::into);
            match read.and_then(|pages| check(&pages).map(|()| pages)) {
                Err(error) if is_damage(&error) => {}
                read => return read,
            }
        }
        let rebuild = || {
            let Inner {
                store, centroids, ..
            } = &*self.0;
            rebuild_index(store, self.meta(), self.schema(), centroids.as_ref())
        };
        let index = self.0.rebuilt.get_or_try_init(rebuild).await?;
        let slice = |range: &Range<u64>| {
            let end = (range.end as usize).min(index.len());
            index.slice((range.start as usize).min(end)..end)
        };
        let pages: Vec<Bytes> = ranges.iter().map(slice).collect();
        check(&pages)?;
        Ok(pages)
    }

    /// The checksums of consecutive records, past the cache: a block is checked once.
    /// Their requests and bytes are counted, as part of that block.
    pub(super) async fn row_checksums(
        &self,
        rows: Range<u32>,
        counts: &ReadCounts,
    ) -> Result<Vec<u32>> {
        let first = rows.start / ENTRIES_PER_PAGE;
        let numbers: Vec<u32> = (first..rows.end.div_ceil(ENTRIES_PER_PAGE)).collect();
        let pages = self.read_pages(Section::RowChecksums, &numbers).await?;
        let ranges: Vec<Range<u64>> = numbers
            .iter()
            .map(|page| self.0.head.page_range(Section::RowChecksums, *page))
            .collect();
        let bytes = pages.iter().map(|page| page.len() as u64).sum();
        counts.add_loaded(0, self.0.store.requests_for(&ranges), bytes);
        let skipped = (rows.start - first * ENTRIES_PER_PAGE) as usize;
        let crcs = pages.iter().flat_map(|page| page.chunks_exact(4));
        let crcs = crcs.skip(skipped).take(rows.len());
        Ok(crcs
            .map(|crc| u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]))
            .collect())
    }
}
