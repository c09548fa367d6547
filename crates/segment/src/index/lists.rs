//! The inverted lists of a segment: their directory in memory, the lists by page.
//!
//! The lists object of crates/index lies in two sections: its head, resident, and the
//! lists, lazy. Lists are short, so that a cache of single ones would be mostly
//! bookkeeping: readers fetch and keep pages of whole neighbouring lists. Where pages
//! begin follows from the directory; each list is checked by its own checksum.
//!
//! Invariant: a segment's rows lie in list order, so a slot is an ordinal.

use std::ops::Range;

use vexlake_index::{IndexError, List, ListEntry, ListsHead};

/// A page takes lists until it has this many bytes: what the store would read between two
/// wanted lists anyway, since it joins ranges whose gap is below 64 KiB.
const PAGE_BYTES_MIN: u64 = 32 << 10;

/// The lists of a segment; see the file header.
#[derive(Debug, PartialEq)]
pub(crate) struct Lists {
    pub(crate) head: ListsHead,
    /// The lazy section.
    at: Range<u64>,
    /// Where each page starts in the lists object, and its end.
    starts: Vec<u64>,
}

impl Lists {
    /// Of the resident head and the place of the lists; says why it cannot be.
    pub(super) fn parse(head: &[u8], at: Range<u64>, rows: u32) -> Result<Self, String> {
        let bytes = head.len() as u64;
        let head = ListsHead::decode(head).map_err(|error| error.to_string())?;
        if head.rows() != rows || head.head_bytes() != bytes || !head.is_in_list_order() {
            return Err(format!("{} rows in a head of {bytes} bytes", head.rows()));
        }
        if head.bytes() - bytes != at.end - at.start {
            return Err(format!("{} bytes in {at:?}", head.bytes()));
        }
        let mut starts = vec![];
        for entry in head.entries() {
            let is_full = |start: &u64| entry.offset - start >= PAGE_BYTES_MIN;
            if starts.last().is_none_or(is_full) {
                starts.push(entry.offset);
            }
        }
        starts.push(head.bytes());
        Ok(Self { head, at, starts })
    }

    /// How many pages there are.
    pub(crate) fn pages(&self) -> u32 {
        self.starts.len() as u32 - 1
    }

    /// The page that holds a list.
    pub(crate) fn page_of(&self, entry: &ListEntry) -> u32 {
        self.starts.partition_point(|start| *start <= entry.offset) as u32 - 1
    }

    /// The bytes of a page in the file. Panics beyond the pages.
    pub(crate) fn page_range(&self, page: u32) -> Range<u64> {
        let at = |start: u64| self.at.start + start - self.head.head_bytes();
        at(self.starts[page as usize])..at(self.starts[page as usize + 1])
    }

    /// The bytes of a page in the lists object.
    pub(crate) fn object_range(&self, page: u32) -> Range<u64> {
        self.starts[page as usize]..self.starts[page as usize + 1]
    }

    /// Refuses bytes that are not the page, naming the list.
    pub(super) fn check_page(&self, page: u32, bytes: &[u8]) -> Result<(), String> {
        let range = self.object_range(page);
        if bytes.len() as u64 != range.end - range.start {
            return Err(format!("{} bytes", bytes.len()));
        }
        let entries = self.head.entries();
        let first = entries.partition_point(|entry| entry.offset < range.start);
        let end = entries.partition_point(|entry| entry.offset < range.end);
        for entry in &entries[first..end] {
            let checked = self.head.verify(entry, self.slice(entry, page, bytes));
            checked.map_err(|error| format!("list {}: {error}", entry.list))?;
        }
        Ok(())
    }

    /// A list of a page that was checked.
    pub(crate) fn open<'a>(
        &self,
        entry: &ListEntry,
        page: u32,
        bytes: &'a [u8],
    ) -> Result<List<'a>, IndexError> {
        self.head.open(entry, self.slice(entry, page, bytes))
    }

    fn slice<'a>(&self, entry: &ListEntry, page: u32, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.starts[page as usize];
        let range = self.head.range(entry);
        &bytes[(range.start - start) as usize..(range.end - start) as usize]
    }

    /// Bytes held, near enough for a budget.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.head.entries())
            + self.head.lists() as usize * size_of::<u32>()
            + self.starts.len() * size_of::<u64>()
    }
}
