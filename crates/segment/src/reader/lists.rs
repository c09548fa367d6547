//! Lists of codes: which page holds a list, and pages through the cache.

use super::SegmentReader;
use crate::cache::{Part, ReadCounts};
use crate::error::{Result, SegmentError};
use crate::index::{Lists, Section};
use bytes::Bytes;
use vexlake_index::{List, ListEntry, ListsHead};

/// Pages in memory at once while a whole object is copied: 64 of some 32 KiB.
const COPY_PAGES: usize = 64;

impl SegmentReader {
    /// The directory of the lists; None of a segment without.
    pub fn lists(&self) -> Option<&ListsHead> {
        self.0.head.lists.as_ref().map(|lists| &lists.head)
    }

    /// The page that holds a list. Panics of a segment without lists.
    pub fn list_page(&self, entry: &ListEntry) -> u32 {
        self.require_lists().page_of(entry)
    }

    /// A page if it is in memory.
    pub fn held_list_page(&self, page: u32) -> Option<Bytes> {
        let part = Part::Index(Section::Lists);
        self.0.cache.held_page(self.0.meta.id, part, page)
    }

    /// Pages of lists by ascending, distinct numbers, through the cache: one round of reads
    /// for those that it lacks. Panics beyond the pages.
    pub async fn list_pages(&self, pages: &[u32], counts: &ReadCounts) -> Result<Vec<Bytes>> {
        self.counted_pages(Section::Lists, pages, counts).await
    }

    /// A list in its page. O(1).
    pub fn list<'a>(&self, entry: &ListEntry, page: u32, bytes: &'a [u8]) -> Result<List<'a>> {
        let lists = self.require_lists();
        lists.open(entry, page, bytes).map_err(SegmentError::lists)
    }

    /// The lists where the whole object would have them, past the cache: what merges copy.
    /// The bytes of the head are left zero, as [`SegmentReader::lists`] has it.
    pub async fn lists_object(&self) -> Result<Vec<u8>> {
        let lists = self.require_lists();
        let mut object = vec![0; lists.head.bytes() as usize];
        let pages: Vec<u32> = (0..lists.pages()).collect();
        for wave in pages.chunks(COPY_PAGES) {
            let read = self.read_pages(Section::Lists, wave).await?;
            for (page, bytes) in wave.iter().zip(read) {
                let range = lists.object_range(*page);
                object[range.start as usize..range.end as usize].copy_from_slice(&bytes);
            }
        }
        Ok(object)
    }

    fn require_lists(&self) -> &Lists {
        let lists = self.0.head.lists.as_ref();
        lists.expect("asked only of segments that have lists")
    }
}
