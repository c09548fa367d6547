//! From an id to its ordinal: a filter that says no to most absent keys, and a
//! table sorted by hash.
//!
//! The filter is a binary fuse filter with 8-bit fingerprints (Graf and Lemire
//! 2022): 9 bits a key and 1 of 256 absent keys passes, where a Bloom filter
//! takes 11.5 bits for that. The table holds whole 64-bit hashes and not ids:
//! ids are compared afterwards, so equal hashes of unequal ids are harmless.

use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::hash::key_hash;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

/// Seed, segment length, its mask, and segment count length, as xorf lays them out.
const DESCRIPTOR_BYTES: usize = <BinaryFuse8 as DmaSerializable>::DESCRIPTOR_LEN;

/// Descriptor and fingerprints; no bytes at all mean "everything may be there".
#[derive(Debug, PartialEq)]
pub(crate) struct KeyFilter(Vec<u8>);

impl KeyFilter {
    /// Of sorted hashes, which may repeat. Without keys, and in the one in a
    /// great many cases where construction does not converge, an empty filter.
    pub(crate) fn build(hashes: &[u64]) -> Self {
        let mut distinct = hashes.to_vec();
        distinct.dedup();
        if distinct.is_empty() {
            return Self(vec![]);
        }
        let Ok(filter) = BinaryFuse8::try_from(distinct) else {
            return Self(vec![]);
        };
        let mut bytes = vec![0; DESCRIPTOR_BYTES];
        filter.dma_copy_descriptor_to(&mut bytes);
        bytes.extend_from_slice(filter.dma_fingerprints());
        Self(bytes)
    }

    /// From stored bytes; the text says why they cannot be a filter. A descriptor
    /// that passes cannot send a lookup outside the fingerprints.
    pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self(vec![]));
        }
        let Some((descriptor, fingerprints)) = bytes.split_at_checked(DESCRIPTOR_BYTES) else {
            return Err(format!("{} bytes are no filter", bytes.len()));
        };
        let word = |at: usize| {
            let word = [
                descriptor[at],
                descriptor[at + 1],
                descriptor[at + 2],
                descriptor[at + 3],
            ];
            u64::from(u32::from_le_bytes(word))
        };
        let (segment, mask, counted) = (word(8), word(12), word(16));
        let is_shaped = segment.is_power_of_two()
            && mask == segment - 1
            && counted > 0
            && counted % segment == 0;
        if !is_shaped || counted + 2 * segment != fingerprints.len() as u64 {
            return Err(format!(
                "segments of {segment}, mask {mask}, {counted} counted, {} fingerprints",
                fingerprints.len()
            ));
        }
        Ok(Self(bytes.to_vec()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// False only for keys that are not there.
    pub(crate) fn contains(&self, hash: u64) -> bool {
        let Some((descriptor, fingerprints)) = self.0.split_at_checked(DESCRIPTOR_BYTES) else {
            return true;
        };
        BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&hash)
    }
}

/// Hashes in ascending order and the ordinal of each.
#[derive(Debug, PartialEq)]
pub(crate) struct KeyTable {
    hashes: Vec<u64>,
    ordinals: Vec<u32>,
}

impl KeyTable {
    /// Of all entries; fails where an id occurs twice.
    pub(crate) fn build(entries: &Entries) -> Result<Self> {
        let mut pairs: Vec<(u64, u32)> = (0..entries.len())
            .map(|ordinal| (key_hash(entries.id(ordinal)), ordinal))
            .collect();
        pairs.sort_unstable();
        for same in pairs.chunk_by(|a, b| a.0 == b.0) {
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
        let (hashes, ordinals) = pairs.into_iter().unzip();
        Ok(Self { hashes, ordinals })
    }

    /// From stored columns; the text says why they cannot be a table.
    pub(crate) fn parse(
        hashes: Vec<u64>,
        ordinals: Vec<u32>,
        entries: u32,
    ) -> std::result::Result<Self, String> {
        if hashes.len() != entries as usize || ordinals.len() != hashes.len() {
            return Err(format!("{} keys for {entries} entries", hashes.len()));
        }
        if !hashes.is_sorted() {
            return Err("hashes out of order".to_string());
        }
        match ordinals.iter().find(|ordinal| **ordinal >= entries) {
            Some(ordinal) => Err(format!("ordinal {ordinal} of {entries} entries")),
            None => Ok(Self { hashes, ordinals }),
        }
    }

    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub(crate) fn ordinals(&self) -> &[u32] {
        &self.ordinals
    }

    /// The ordinals with a hash: one or none, but for collisions.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let first = self.hashes.partition_point(|other| *other < hash);
        let same = self.hashes[first..]
            .iter()
            .take_while(move |other| **other == hash)
            .count();
        self.ordinals[first..first + same].iter().copied()
    }
}
