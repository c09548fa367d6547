//! Keys, ids, positions and event times, by index page.
//!
//! A lookup takes at most two rounds of reads: key pages turn hashes into ordinals, the
//! entry pages of those say whether it is the key or a collision. Keys that the filter
//! refuses, which is nearly all that the segment does not hold, cost no read at all.
//!
//! Limits: a wave holds `WAVE_PAGES_MAX` pages; longer lookups take several, each page
//! read once.

use super::{SegmentReader, check_range};
use crate::cache::ReadCounts;
use crate::error::{Result, SegmentError};
use crate::index::{ENTRIES_PER_PAGE, EntryPage, KeyPage, Section};
use crate::record::Position;
use bytes::Bytes;
use std::ops::Range;

/// Pages in memory at once for one lookup: 512 × 14 KiB are 7 MiB.
const WAVE_PAGES_MAX: usize = 512;

/// Where a segment holds a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The ordinal, of a record or of a delete.
    pub entry: u32,
    /// Where it was read.
    pub position: Position,
}

/// Ids, positions and event times of consecutive entries.
#[derive(Debug)]
pub struct EntryBatch {
    entries: Range<u32>,
    /// From the page that holds the first entry on, with how many entries each has.
    pages: Vec<(Bytes, usize)>,
}

impl EntryBatch {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The id at a place, 0..len; panics beyond, as indexing does.
    pub fn id(&self, place: usize) -> &str {
        let (page, place) = self.page(place);
        page.id(place)
    }

    /// The position at a place; panics beyond.
    pub fn position(&self, place: usize) -> Position {
        let (page, place) = self.page(place);
        page.position(place)
    }

    /// The event time in ms at a place; panics beyond.
    pub fn event_time(&self, place: usize) -> Option<i64> {
        let (page, place) = self.page(place);
        page.event_time(place)
    }

    fn page(&self, place: usize) -> (EntryPage<'_>, usize) {
        assert!(place < self.len(), "place {place} of {}", self.len());
        let place = (self.entries.start % ENTRIES_PER_PAGE) as usize + place;
        let (page, count) = &self.pages[place / ENTRIES_PER_PAGE as usize];
        (
            EntryPage::new(page, *count),
            place % ENTRIES_PER_PAGE as usize,
        )
    }
}

impl SegmentReader {
    /// Whether the segment may hold a key of this [`key_hash`](crate::key_hash): false for
    /// all but 1 of 65,536 keys that it does not hold. Memory only.
    pub fn may_hold(&self, hash: u64) -> bool {
        self.0.head.may_hold(hash)
    }

    /// Where the segment holds each key, given with its [`key_hash`](crate::key_hash); an
    /// id is in a segment at most once, as a record or a delete. In the order asked.
    pub async fn find(&self, keys: &[(u64, &str)]) -> Result<Vec<Option<Found>>> {
        let mut found = vec![None; keys.len()];
        let candidates = self.candidates(keys).await?;
        let visit = |entry: u32, page: EntryPage<'_>, place: usize, key: usize| {
            if page.id(place) == keys[key].1 {
                let position = page.position(place);
                found[key] = Some(Found { entry, position });
            }
        };
        let counts = ReadCounts::default();
        self.each_entry(candidates, &counts, visit).await?;
        Ok(found)
    }

    /// The ids of records or deletes in the order asked, in one round of reads, which are
    /// counted. Fails
    /// with Invalid beyond `entries`.
    pub async fn ids(&self, entries: &[u32], counts: &ReadCounts) -> Result<Vec<String>> {
        if let Some(entry) = entries.iter().find(|entry| **entry >= self.entries()) {
            let expected = format!("below {}", self.entries());
            return Err(SegmentError::invalid("an ordinal", entry, expected));
        }
        let mut ids = vec![String::new(); entries.len()];
        let asked = entries.iter().copied().zip(0..).collect();
        let visit = |_, page: EntryPage<'_>, place: usize, asked: usize| {
            ids[asked] = page.id(place).to_string();
        };
        self.each_entry(asked, counts, visit).await?;
        Ok(ids)
    }

    /// Ids, positions and event times of consecutive entries in one round of reads, past
    /// the cache. Memory is what was asked for, and a page more. Fails with Invalid beyond
    /// `entries`.
    pub async fn entries_between(&self, entries: Range<u32>) -> Result<EntryBatch> {
        let range = u64::from(entries.start)..u64::from(entries.end);
        check_range("a range of entries", range, self.entries())?;
        let numbers: Vec<u32> = match entries.is_empty() {
            true => vec![],
            false => {
                (entries.start / ENTRIES_PER_PAGE..entries.end.div_ceil(ENTRIES_PER_PAGE)).collect()
            }
        };
        let pages = self.read_pages(Section::Entries, &numbers).await?;
        let counts = numbers.iter().map(|page| self.0.head.entries_in(*page));
        Ok(EntryBatch {
            entries,
            pages: pages.into_iter().zip(counts).collect(),
        })
    }

    /// The entries whose hash is a key's, each with the number of that key.
    async fn candidates(&self, keys: &[(u64, &str)]) -> Result<Vec<(u32, usize)>> {
        let head = &self.0.head;
        let hashes = keys.iter().map(|(hash, _)| *hash).enumerate();
        let mut wanted: Vec<(u32, usize)> = hashes
            .filter(|(_, hash)| head.may_hold(*hash))
            .flat_map(|(key, hash)| head.key_pages_of(hash).map(move |page| (page, key)))
            .collect();
        wanted.sort_unstable();
        let mut candidates = vec![];
        for wave in waves(&wanted) {
            let pages = self.pages(Section::Keys, &numbers(wave)).await?;
            for (same_page, bytes) in wave.chunk_by(|a, b| a.0 == b.0).zip(&pages) {
                for (_, key) in same_page {
                    let ordinals = KeyPage::new(bytes).candidates(keys[*key].0);
                    candidates.extend(ordinals.map(|ordinal| (ordinal, *key)));
                }
            }
        }
        Ok(candidates)
    }

    /// Visits entries, each with its page, its place there, and what it was asked with.
    async fn each_entry(
        &self,
        mut asked: Vec<(u32, usize)>,
        counts: &ReadCounts,
        mut visit: impl FnMut(u32, EntryPage<'_>, usize, usize),
    ) -> Result<()> {
        asked.sort_unstable();
        let wanted: Vec<(u32, usize)> = asked
            .iter()
            .enumerate()
            .map(|(number, (entry, _))| (entry / ENTRIES_PER_PAGE, number))
            .collect();
        for wave in waves(&wanted) {
            let numbers = numbers(wave);
            let pages = self.counted_pages(Section::Entries, &numbers, counts);
            let pages = pages.await?;
            for (same_page, bytes) in wave.chunk_by(|a, b| a.0 == b.0).zip(&pages) {
                let page = EntryPage::new(bytes, self.0.head.entries_in(same_page[0].0));
                for (_, number) in same_page {
                    let (entry, with) = asked[*number];
                    visit(entry, page, (entry % ENTRIES_PER_PAGE) as usize, with);
                }
            }
        }
        Ok(())
    }
}

/// Cuts (page, what for), sorted by page, so that each part wants few enough pages and no
/// page is in two parts.
fn waves(wanted: &[(u32, usize)]) -> Vec<&[(u32, usize)]> {
    let mut waves = vec![];
    let (mut start, mut pages) = (0, 0);
    let mut at = 0;
    for same_page in wanted.chunk_by(|a, b| a.0 == b.0) {
        if pages == WAVE_PAGES_MAX {
            waves.push(&wanted[start..at]);
            (start, pages) = (at, 0);
        }
        pages += 1;
        at += same_page.len();
    }
    if start < at {
        waves.push(&wanted[start..]);
    }
    waves
}

/// The page numbers of a wave, each once.
fn numbers(wave: &[(u32, usize)]) -> Vec<u32> {
    wave.chunk_by(|a, b| a.0 == b.0)
        .map(|same_page| same_page[0].0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{WAVE_PAGES_MAX, numbers, waves};

    #[test]
    fn should_cut_long_lookups_into_waves_that_share_no_page() {
        // Page p is wanted p % 4 times, every fourth not at all.
        let wanted: Vec<(u32, usize)> = (0..2000u32)
            .flat_map(|page| (0..page as usize % 4).map(move |what| (page, what)))
            .collect();
        let waves = waves(&wanted);
        assert_eq!(waves.concat(), wanted);
        let pages: Vec<Vec<u32>> = waves.iter().map(|wave| numbers(wave)).collect();
        let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
        assert_eq!(
            lengths,
            [WAVE_PAGES_MAX, WAVE_PAGES_MAX, 1500 - 2 * WAVE_PAGES_MAX]
        );
        let every: Vec<u32> = (0..2000).filter(|page| page % 4 != 0).collect();
        assert_eq!(pages.concat(), every);
        assert!(super::waves(&[]).is_empty());
    }
}
