//! Vectors without decoding: their bytes are where the page map says.
//!
//! A block is a run of neighbouring pages of about 1 MiB: what one ranged read
//! fetches and what the cache holds. Scans take blocks; single vectors take their
//! own bytes, unless their block happens to be in memory: a re-rank of some
//! hundred scattered vectors would otherwise read some hundred MiB. The checksums of the
//! rows are read in the same round as the rows.

use super::SegmentReader;
use crate::cache::{ReadCounts, VectorBlock};
use crate::columns::VECTOR_PAGE_BYTES;
use crate::error::{Result, SegmentError};
use crate::index::{ENTRIES_PER_PAGE, Head, Section};
use crate::meta::DATA_FILE;
use crate::pages::{VectorPage, check_rows};
use bytemuck::cast_slice_mut;
use bytes::Bytes;
use futures::future::try_join;
use std::ops::Range;
use std::sync::Arc;

/// Pages this near each other share a block: headers and levels lie between
/// pages of one row group, all other columns between row groups.
const PAGE_GAP_BYTES_MAX: u64 = 64 << 10;

/// Consecutive vector pages that are loaded together.
pub(crate) struct Block {
    rows: Range<u32>,
    pages: Range<usize>,
}

/// Groups the pages of a segment into blocks; pure.
pub(crate) fn plan_blocks(head: &Head) -> Vec<Block> {
    let vector_bytes = head.schema.vector_bytes() as u64;
    let mut blocks: Vec<Block> = vec![];
    let mut end_of_last = 0u64;
    let mut block_bytes = 0u64;
    for (number, page) in head.layout.vector_pages.iter().enumerate() {
        let page_bytes = u64::from(page.rows) * vector_bytes;
        let is_near = page.values_at - end_of_last <= PAGE_GAP_BYTES_MAX;
        let end_row = page.first_row + page.rows;
        match blocks.last_mut() {
            Some(block) if is_near && block_bytes + page_bytes <= VECTOR_PAGE_BYTES as u64 => {
                block.rows.end = end_row;
                block.pages.end = number + 1;
                block_bytes += page_bytes;
            }
            _ => {
                blocks.push(Block {
                    rows: page.first_row..end_row,
                    pages: number..number + 1,
                });
                block_bytes = page_bytes;
            }
        }
        end_of_last = page.values_at + page_bytes;
    }
    blocks
}

impl SegmentReader {
    /// How many blocks the records' vectors are cut into.
    pub fn blocks(&self) -> usize {
        self.0.blocks.len()
    }

    /// The ordinals in a block. Panics beyond `blocks`, as indexing does.
    pub fn block_rows(&self, block: usize) -> Range<u32> {
        self.0.blocks[block].rows.clone()
    }

    /// The block that holds an ordinal; None for deletes and beyond.
    pub fn block_of(&self, ordinal: u32) -> Option<usize> {
        let block = self
            .0
            .blocks
            .partition_point(|block| block.rows.end <= ordinal);
        (block < self.0.blocks.len()).then_some(block)
    }

    /// A block, through the cache; every row's checksum is verified as it enters. Counts
    /// what it reads: nothing where somebody else reads the block already. Panics beyond
    /// `blocks`.
    pub async fn block(&self, block: usize, counts: &ReadCounts) -> Result<Arc<VectorBlock>> {
        let key = (self.0.meta.id, block as u32);
        self.0
            .cache
            .block(key, self.read_block(block, counts))
            .await
    }

    /// A block from memory, else read past the cache: for who looks at everything once and
    /// must not push out what searches keep asking for. Panics beyond `blocks`.
    pub async fn block_once(&self, block: usize) -> Result<Arc<VectorBlock>> {
        if let Some(held) = self.0.cache.peek_block(self.0.meta.id, block as u32) {
            return Ok(held);
        }
        let read = self.read_block(block, &ReadCounts::default()).await?;
        Ok(Arc::new(read))
    }

    async fn read_block(&self, block: usize, counts: &ReadCounts) -> Result<VectorBlock> {
        let (rows, pages) = (self.block_rows(block), self.0.blocks[block].pages.clone());
        let values = self.read_vectors(rows.clone(), pages, counts).await?;
        let dim = self.schema().dim as usize;
        Ok(VectorBlock::new(rows.start, dim, values))
    }

    /// A block if it is in memory. Panics beyond `blocks`.
    pub fn cached_block(&self, block: usize) -> Option<Arc<VectorBlock>> {
        assert!(
            block < self.0.blocks.len(),
            "block {block} of {}",
            self.0.blocks.len()
        );
        self.0.cache.held_block(self.0.meta.id, block as u32)
    }

    /// One record's vector, dim floats; 4·dim bytes are read where its block is
    /// not in memory. Fails with Invalid for a delete or beyond `rows`.
    pub async fn vector(&self, ordinal: u32) -> Result<Vec<f32>> {
        self.vectors(&[ordinal]).await
    }

    /// Many records' vectors in the order asked, ordinals.len() × dim floats, in
    /// one round of reads.
    pub async fn vectors(&self, ordinals: &[u32]) -> Result<Vec<f32>> {
        self.counted_vectors(ordinals, &ReadCounts::default()).await
    }

    /// As [`SegmentReader::vectors`], counting what is read.
    pub(super) async fn counted_vectors(
        &self,
        ordinals: &[u32],
        counts: &ReadCounts,
    ) -> Result<Vec<f32>> {
        let dim = self.schema().dim as usize;
        let mut values = vec![0.0f32; ordinals.len() * dim];
        let mut wanted = vec![];
        let mut ranges = vec![];
        for (place, ordinal) in ordinals.iter().enumerate() {
            self.check_rows(u64::from(*ordinal)..u64::from(*ordinal) + 1)?;
            let block = self.block_of(*ordinal);
            let held = |block| self.0.cache.peek_block(self.0.meta.id, block as u32);
            if let Some(block) = block.and_then(held) {
                values[place * dim..(place + 1) * dim].copy_from_slice(block.vector(*ordinal));
                continue;
            }
            let pages = &self.0.head.layout.vector_pages;
            let page = &pages[pages.partition_point(|page| page.first_row + page.rows <= *ordinal)];
            wanted.push((place, *ordinal));
            ranges.push(self.values_range(page, *ordinal..*ordinal + 1));
        }
        if ranges.is_empty() {
            return Ok(values);
        }
        let mut crc_pages: Vec<u32> = wanted
            .iter()
            .map(|(_, ordinal)| ordinal / ENTRIES_PER_PAGE)
            .collect();
        crc_pages.sort_unstable();
        crc_pages.dedup();
        let (parts, crcs) = try_join(
            self.read_data(&ranges),
            self.counted_pages(Section::RowChecksums, &crc_pages, counts),
        )
        .await?;
        let bytes = (ranges.len() * self.schema().vector_bytes()) as u64;
        let requests = self.0.store.requests_for(&ranges);
        counts.add_loaded(ranges.len() as u64, requests, bytes);
        for (((place, ordinal), range), bytes) in wanted.into_iter().zip(&ranges).zip(parts) {
            let page = crc_pages.partition_point(|page| *page < ordinal / ENTRIES_PER_PAGE);
            let at = (ordinal % ENTRIES_PER_PAGE) as usize * size_of::<u32>();
            let crc = [0, 1, 2, 3].map(|byte| crcs[page][at + byte]);
            let values = &mut values[place * dim..(place + 1) * dim];
            let crc = u32::from_le_bytes(crc);
            self.copy_checked(ordinal, &[crc], range, &bytes, values)?;
        }
        Ok(values)
    }

    async fn read_data(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Ok(self.0.store.get_ranges(DATA_FILE, ranges).await?)
    }

    /// The vectors of a range of records in one round of reads, past the cache. Fails with
    /// Invalid beyond `rows`.
    pub async fn vectors_between(&self, rows: Range<u32>) -> Result<Vec<f32>> {
        let rows = self.check_rows(u64::from(rows.start)..u64::from(rows.end))?;
        if rows.is_empty() {
            return Ok(vec![]);
        }
        let pages = &self.0.head.layout.vector_pages;
        let first = pages.partition_point(|page| page.first_row + page.rows <= rows.start);
        let end = pages.partition_point(|page| page.first_row < rows.end);
        self.read_vectors(rows, first..end, &ReadCounts::default())
            .await
    }

    /// Counts as one item, with its checksums.
    async fn read_vectors(
        &self,
        rows: Range<u32>,
        pages: Range<usize>,
        counts: &ReadCounts,
    ) -> Result<Vec<f32>> {
        let dim = self.schema().dim as usize;
        let part = |page: &VectorPage| {
            let start = rows.start.max(page.first_row);
            start..rows.end.min(page.first_row + page.rows)
        };
        let pages = &self.0.head.layout.vector_pages[pages];
        let ranges: Vec<_> = pages
            .iter()
            .map(|page| self.values_range(page, part(page)))
            .collect();
        let (parts, crcs) = try_join(
            self.read_data(&ranges),
            self.row_checksums(rows.clone(), counts),
        )
        .await?;
        let bytes = (rows.len() * self.schema().vector_bytes()) as u64;
        counts.add_loaded(1, self.0.store.requests_for(&ranges), bytes);
        let mut values = vec![0.0f32; rows.len() * dim];
        for ((page, range), bytes) in pages.iter().zip(&ranges).zip(parts) {
            let rows_of_page = part(page);
            let at = (rows_of_page.start - rows.start) as usize;
            let values = &mut values[at * dim..(at + rows_of_page.len()) * dim];
            self.copy_checked(rows_of_page.start, &crcs[at..], range, &bytes, values)?;
        }
        Ok(values)
    }

    /// The bytes of some rows of one page; they lie inside it.
    fn values_range(&self, page: &VectorPage, rows: Range<u32>) -> Range<u64> {
        let vector_bytes = self.schema().vector_bytes() as u64;
        let start = page.values_at + u64::from(rows.start - page.first_row) * vector_bytes;
        start..start + rows.len() as u64 * vector_bytes
    }

    fn copy_checked(
        &self,
        first_row: u32,
        crcs: &[u32],
        range: &Range<u64>,
        bytes: &[u8],
        values: &mut [f32],
    ) -> Result<()> {
        if bytes.len() != size_of_val(values) {
            let message = format!("{} bytes instead of {}", bytes.len(), size_of_val(values));
            return Err(SegmentError::corrupt(
                DATA_FILE,
                "vectors",
                range.start,
                message,
            ));
        }
        check_rows(self.schema(), crcs, first_row, range.start, bytes)?;
        cast_slice_mut(values).copy_from_slice(bytes);
        Ok(())
    }
}
