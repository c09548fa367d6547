//! The key filter: says no to nearly every key that a segment does not hold.
//!
//! A binary fuse filter with 16-bit fingerprints (Graf and Lemire 2022): about 18 bits
//! a key, and 1 of 65,536 absent keys passes. A key that passes costs a read of the key
//! pages, so what counts is how many pass: with unique keys a flush of n keys over s
//! segments looks up n × s / 256 keys for nothing with 8 bits, which at 110,000 keys
//! and 30 segments are 13,000, that is every key page at every flush; with 16 bits 50.

use super::container::{column, u32_at};
use bytemuck::cast_slice;
use xorf::{BinaryFuse16, BinaryFuse16Ref, DmaSerializable, Filter, FilterRef};

/// Seed, segment length, its mask, and segment count length, as xorf lays them out.
const DESCRIPTOR_BYTES: usize = <BinaryFuse16 as DmaSerializable>::DESCRIPTOR_LEN;

/// Descriptor and fingerprints; no descriptor at all means "everything may be there".
#[derive(Debug, PartialEq)]
pub(super) struct KeyFilter {
    descriptor: Vec<u8>,
    fingerprints: Vec<u16>,
}

impl KeyFilter {
    const NONE: Self = Self {
        descriptor: vec![],
        fingerprints: vec![],
    };

    /// Of sorted hashes, which may repeat. Without keys, and in the one in a
    /// great many cases where construction does not converge, an empty filter.
    pub(super) fn build(mut hashes: Vec<u64>) -> Self {
        hashes.dedup();
        if hashes.is_empty() {
            return Self::NONE;
        }
        let Ok(filter) = BinaryFuse16::try_from(hashes) else {
            return Self::NONE;
        };
        let mut descriptor = vec![0; DESCRIPTOR_BYTES];
        filter.dma_copy_descriptor_to(&mut descriptor);
        Self {
            descriptor,
            fingerprints: filter.fingerprints.into_vec(),
        }
    }

    /// From stored bytes; the text says why they cannot be a filter. A descriptor
    /// that passes cannot send a lookup outside the fingerprints.
    pub(super) fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::NONE);
        }
        let Some((descriptor, fingerprints)) = bytes.split_at_checked(DESCRIPTOR_BYTES) else {
            return Err(format!("{} bytes are no filter", bytes.len()));
        };
        let word = |at: usize| u64::from(u32_at(descriptor, at));
        let (segment, mask, counted) = (word(8), word(12), word(16));
        let is_shaped = segment.is_power_of_two()
            && mask == segment - 1
            && counted > 0
            && counted % segment == 0;
        let expected = 2 * (counted + 2 * segment);
        if !is_shaped || expected != fingerprints.len() as u64 {
            return Err(format!(
                "segments of {segment}, mask {mask}, {counted} counted, {} bytes of fingerprints",
                fingerprints.len()
            ));
        }
        Ok(Self {
            descriptor: descriptor.to_vec(),
            fingerprints: column(fingerprints),
        })
    }

    /// The stored form, in parts.
    pub(super) fn bytes(&self) -> [&[u8]; 2] {
        [&self.descriptor, cast_slice(&self.fingerprints)]
    }

    /// False only for keys that are not there.
    pub(super) fn contains(&self, hash: u64) -> bool {
        if self.descriptor.is_empty() {
            return true;
        }
        let fingerprints = cast_slice(&self.fingerprints);
        BinaryFuse16Ref::from_dma(&self.descriptor, fingerprints).contains(&hash)
    }
}
