//! `index.vxi` in memory: entries, page layout, key filter and key table.
//!
//! One struct for all three ways it comes to be: built from pushed entries and a
//! finished Parquet file, derived again from Parquet alone, or parsed from bytes.
//! The first two give the same bytes, because everything in it is a function of
//! the entries and the file.

mod codec;
mod container;
mod keys;

#[cfg(test)]
mod tests;

use crate::entries::Entries;
use crate::error::Result;
use crate::meta::SegmentSchema;
use crate::pages::{Layout, survey};
use keys::{KeyFilter, KeyTable};
use parquet::file::reader::ChunkReader;
use ulid::Ulid;

/// Everything `index.vxi` says.
#[derive(Debug, PartialEq)]
pub(crate) struct Index {
    pub(crate) id: Ulid,
    pub(crate) schema: SegmentSchema,
    pub(crate) entries: Entries,
    pub(crate) layout: Layout,
    filter: KeyFilter,
    keys: KeyTable,
}

impl Index {
    /// Derives the index from the entries and the local `data.parquet` they were
    /// written to. Fails where an id occurs twice or the file does not hold the
    /// entries' vectors. O(file + n log n).
    pub(crate) fn build<R: ChunkReader>(
        id: Ulid,
        schema: SegmentSchema,
        entries: Entries,
        data: &R,
    ) -> Result<Self> {
        let keys = KeyTable::build(&entries)?;
        let filter = KeyFilter::build(keys.hashes());
        let layout = survey(data, &schema, &entries)?;
        Ok(Self {
            id,
            schema,
            entries,
            layout,
            filter,
            keys,
        })
    }

    /// The ordinal of an id whose [`key_hash`](crate::key_hash) is `hash`.
    /// O(log n), and O(1) for most absent ids.
    pub(crate) fn find(&self, hash: u64, id: &str) -> Option<u32> {
        if !self.filter.contains(hash) {
            return None;
        }
        self.keys
            .candidates(hash)
            .find(|ordinal| self.entries.id(*ordinal) == id)
    }
}
