//! Warming: into the cache with what searches read first.
//!
//! Of a segment with lists those are the pages of its lists, in the order in which they
//! lie; of one without, its blocks, since every search compares all its rows. Ids and
//! single vectors are left to whoever asks: which ones is not known before.

use super::SegmentReader;
use crate::cache::ReadCounts;
use crate::error::Result;

/// Pages in memory at once beside the cache: 64 of some 32 KiB.
const WAVE_PAGES: usize = 64;

impl SegmentReader {
    /// Brings at most `bytes_max` bytes of lists or vectors into the cache. Counts what it
    /// reads, which for blocks is their checksums too, and nothing that is there already.
    pub async fn warm(&self, bytes_max: u64, counts: &ReadCounts) -> Result<()> {
        let Some(lists) = &self.0.head.lists else {
            return self.warm_blocks(bytes_max, counts).await;
        };
        let end = lists.head.head_bytes() + bytes_max;
        let fits = |page: &u32| lists.object_range(*page).end <= end;
        let pages: Vec<u32> = (0..lists.pages()).take_while(fits).collect();
        for wave in pages.chunks(WAVE_PAGES) {
            self.list_pages(wave, counts).await?;
        }
        Ok(())
    }

    async fn warm_blocks(&self, bytes_max: u64, counts: &ReadCounts) -> Result<()> {
        let vector_bytes = self.schema().vector_bytes() as u64;
        let fits =
            |block: &usize| u64::from(self.block_rows(*block).end) * vector_bytes <= bytes_max;
        for block in (0..self.blocks()).take_while(fits) {
            self.block(block, counts).await?;
        }
        Ok(())
    }
}
