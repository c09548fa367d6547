//! Entry pages and key pages: how they are laid out, checked and asked.
//!
//! ```text
//! entry page  of k entries: log times i64 × k, offsets u64 × k, event times i64 × k,
//!             sources u32 × k, partitions u32 × k, ends of the ids u32 × k, the ids' UTF-8
//! key page    of k keys:    hashes u64 × k ascending, ordinals u32 × k
//! ```
//! Each page stands alone. It is checked once, as it comes from the store: its checksum
//! first, then its shape, so that no lookup in it can panic, even on a page forged with
//! a right checksum. The key pages hold hashes and not ids: ids are compared in the
//! entry pages, so equal hashes of unequal ids are harmless.

use super::container::{u32_at, u64_at};
use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::hash::key_hash;
use crate::record::{EVENT_TIME_NONE, Position};
use bytemuck::cast_slice;
use std::ops::Range;

/// Entries of one entry page, and records of one page of row checksums. An entry takes
/// 36 bytes and its id: 256 with ids of 20 bytes are 14 KiB, what naming one hit reads.
/// A page's place and checksum, 12 bytes in memory, are 0.05 bytes an entry.
pub(crate) const ENTRIES_PER_PAGE: u32 = 256;
/// Keys of one key page: 12 KiB. Its fence and checksum in memory are 0.01 bytes a key.
pub(super) const KEYS_PER_PAGE: usize = 1024;

/// Bytes of an entry beside its id.
const ENTRY_BYTES: usize = 3 * 8 + 3 * 4;
/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 8 + 4;

/// Writes one entry page.
pub(super) fn encode_entries(entries: &Entries, range: Range<usize>) -> Vec<u8> {
    let columns: [&[u8]; 5] = [
        cast_slice(&entries.log_times[range.clone()]),
        cast_slice(&entries.offsets[range.clone()]),
        cast_slice(&entries.event_times[range.clone()]),
        cast_slice(&entries.sources[range.clone()]),
        cast_slice(&entries.partitions[range.clone()]),
    ];
    let ids_at = entries.id_offsets[range.start];
    let ids = &entries.ids[ids_at as usize..entries.id_offsets[range.end] as usize];
    let mut page = Vec::with_capacity(range.len() * ENTRY_BYTES + ids.len());
    for column in columns {
        page.extend_from_slice(column);
    }
    for end in &entries.id_offsets[range.start + 1..=range.end] {
        page.extend_from_slice(&(end - ids_at).to_le_bytes());
    }
    page.extend_from_slice(ids.as_bytes());
    page
}

/// Why a page cannot be what it should be.
type Shape = std::result::Result<(), String>;

/// An entry page whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct EntryPage<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> EntryPage<'a> {
    /// Of a page that [`EntryPage::check`] let pass with the same count.
    pub(crate) fn new(bytes: &'a [u8], count: usize) -> Self {
        Self { count, bytes }
    }

    /// Whether bytes are a page of `count` entries.
    pub(super) fn check(bytes: &'a [u8], count: usize) -> Shape {
        let Some((_, ids)) = bytes.split_at_checked(count * ENTRY_BYTES) else {
            return Err(format!("{} bytes for {count} entries", bytes.len()));
        };
        let ids = std::str::from_utf8(ids).map_err(|error| error.to_string())?;
        let page = Self { count, bytes };
        let mut start = 0;
        for place in 0..count {
            let end = page.id_end(place);
            // Boundaries are checked here, so that slicing an id cannot panic.
            if end < start || !ids.is_char_boundary(end) {
                return Err(format!("id {place} ends at {end} of {}", ids.len()));
            }
            start = end;
        }
        match start == ids.len() {
            true => Ok(()),
            false => Err(format!("ids end at {start} of {}", ids.len())),
        }
    }

    fn id_end(&self, place: usize) -> usize {
        u32_at(self.bytes, self.count * 32 + place * 4) as usize
    }

    /// Panics beyond the count, as indexing does.
    pub(crate) fn id(&self, place: usize) -> &'a str {
        let start = if place == 0 {
            0
        } else {
            self.id_end(place - 1)
        };
        let ids = &self.bytes[self.count * ENTRY_BYTES..];
        let id = std::str::from_utf8(&ids[start..self.id_end(place)]);
        id.expect("check() saw UTF-8 cut at its boundaries")
    }

    /// Panics beyond the count.
    pub(crate) fn position(&self, place: usize) -> Position {
        let (wide, narrow) = (place * 8, place * 4);
        Position {
            log_time: u64_at(self.bytes, wide) as i64,
            offset: u64_at(self.bytes, self.count * 8 + wide),
            source: u32_at(self.bytes, self.count * 24 + narrow),
            partition: u32_at(self.bytes, self.count * 28 + narrow),
        }
    }

    /// Panics beyond the count.
    pub(crate) fn event_time(&self, place: usize) -> Option<i64> {
        let time = u64_at(self.bytes, self.count * 16 + place * 8) as i64;
        (time != EVENT_TIME_NONE).then_some(time)
    }
}

/// Hash and ordinal of every key, by hash; fails where an id occurs twice.
pub(super) fn sort_keys(entries: &Entries) -> Result<Vec<(u64, u32)>> {
    let mut keys: Vec<(u64, u32)> = (0..entries.len())
        .map(|ordinal| (key_hash(entries.id(ordinal)), ordinal))
        .collect();
    keys.sort_unstable();
    for same in keys.chunk_by(|a, b| a.0 == b.0) {
        for (place, (_, ordinal)) in same.iter().enumerate() {
            let id = entries.id(*ordinal);
            if same[..place]
                .iter()
                .any(|(_, other)| entries.id(*other) == id)
            {
                return Err(SegmentError::invalid(
                    "an id",
                    format!("twice in one segment: {id:?}"),
                    "unique",
                ));
            }
        }
    }
    Ok(keys)
}

/// Writes one key page.
pub(super) fn encode_keys(keys: &[(u64, u32)]) -> Vec<u8> {
    let hashes = keys.iter().flat_map(|(hash, _)| hash.to_le_bytes());
    let ordinals = keys.iter().flat_map(|(_, ordinal)| ordinal.to_le_bytes());
    hashes.chain(ordinals).collect()
}

/// A key page whose shape was checked.
#[derive(Clone, Copy)]
pub(crate) struct KeyPage<'a>(&'a [u8]);

impl<'a> KeyPage<'a> {
    /// Of a page that [`KeyPage::check`] let pass.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether bytes are a page of whole keys from `first` on, of a segment with this
    /// many entries.
    pub(super) fn check(bytes: &'a [u8], first: u64, entries: u32) -> Shape {
        let page = Self(bytes);
        let count = page.count();
        if count * KEY_BYTES != bytes.len() || count == 0 {
            return Err(format!("{} bytes are no keys", bytes.len()));
        }
        if page.hash(0) != first || !(1..count).all(|at| page.hash(at - 1) <= page.hash(at)) {
            return Err("hashes out of order".to_string());
        }
        let ordinals = (0..count).map(|place| page.ordinal(place));
        match ordinals.max() {
            Some(max) if max >= entries => Err(format!("ordinal {max} of {entries} entries")),
            _ => Ok(()),
        }
    }

    fn count(&self) -> usize {
        self.0.len() / KEY_BYTES
    }

    fn hash(&self, place: usize) -> u64 {
        u64_at(self.0, place * 8)
    }

    fn ordinal(&self, place: usize) -> u32 {
        u32_at(self.0, self.count() * 8 + place * 4)
    }

    /// The ordinals with a hash: one or none, but for collisions.
    pub(crate) fn candidates(self, hash: u64) -> impl Iterator<Item = u32> + 'a {
        let (mut first, mut end) = (0, self.count());
        while first < end {
            let middle = first.midpoint(end);
            match self.hash(middle) < hash {
                true => first = middle + 1,
                false => end = middle,
            }
        }
        (first..self.count())
            .take_while(move |place| self.hash(*place) == hash)
            .map(move |place| self.ordinal(place))
    }
}
