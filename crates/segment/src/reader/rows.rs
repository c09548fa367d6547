//! Single vectors through the cache: what re-ranking looks at.
//!
//! A query looks at some dozens of vectors scattered over a segment. Loading the block of
//! each would read a megabyte for 3 KiB; reading them past the cache would read the same
//! popular ones for ever. So a row whose block is not in memory is read and kept alone, at
//! some 128 bytes of bookkeeping.

use super::SegmentReader;
use crate::cache::{Part, ReadCounts};
use crate::error::Result;
use bytemuck::{cast_slice, cast_slice_mut};
use bytes::Bytes;

impl SegmentReader {
    /// Vectors of records by ascending, distinct ordinals, ordinals.len() × dim floats: from
    /// blocks or rows in memory, the others in one round of reads. Fails with Invalid for a
    /// delete or beyond `rows`.
    pub async fn rows_of(&self, ordinals: &[u32], counts: &ReadCounts) -> Result<Vec<f32>> {
        let dim = self.schema().dim as usize;
        let mut values = vec![0.0f32; ordinals.len() * dim];
        let mut missing = vec![];
        for (place, ordinal) in ordinals.iter().enumerate() {
            self.check_rows(u64::from(*ordinal)..u64::from(*ordinal) + 1)?;
            if !self.copy_held(*ordinal, &mut values[place * dim..(place + 1) * dim]) {
                missing.push((place, *ordinal));
            }
        }
        counts.add_held((ordinals.len() - missing.len()) as u64);
        if missing.is_empty() {
            return Ok(values);
        }
        let wanted: Vec<u32> = missing.iter().map(|(_, ordinal)| *ordinal).collect();
        let load = |wanted: Vec<u32>| async move {
            let values = self.counted_vectors(&wanted, counts).await?;
            let rows = values.chunks_exact(dim);
            Ok(rows
                .map(|row| Bytes::copy_from_slice(cast_slice(row)))
                .collect())
        };
        let cache = &self.0.cache;
        let rows = cache
            .pages(self.0.meta.id, Part::Row, &wanted, load)
            .await?;
        for ((place, _), row) in missing.into_iter().zip(rows) {
            cast_slice_mut(&mut values[place * dim..(place + 1) * dim]).copy_from_slice(&row);
        }
        Ok(values)
    }

    fn copy_held(&self, ordinal: u32, values: &mut [f32]) -> bool {
        let (cache, id) = (&self.0.cache, self.0.meta.id);
        let block = self.block_of(ordinal);
        if let Some(block) = block.and_then(|block| cache.peek_block(id, block as u32)) {
            values.copy_from_slice(block.vector(ordinal));
            return true;
        }
        match cache.held_page(id, Part::Row, ordinal) {
            Some(row) => cast_slice_mut(values).copy_from_slice(&row),
            None => return false,
        }
        true
    }
}
