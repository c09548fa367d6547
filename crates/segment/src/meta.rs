//! What a commit says about a segment: its files, counts and extents. 64-bit
//! integers are JSON strings, because JSON numbers lose them beyond 2⁵³.

use crate::error::{Result, SegmentError};
use crate::hash::EntryHash;
use crate::record::DIM_MAX;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use vexlake_distance::Metric;

/// The records.
pub const DATA_FILE: &str = "data.parquet";
/// The deleted keys; exists only where there are any.
pub const DELETES_FILE: &str = "deletes.parquet";
/// The index.
pub const INDEX_FILE: &str = "index.vxi";

/// What all segments of an incarnation share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSchema {
    /// Floats per vector, 1..=[`DIM_MAX`].
    pub dim: u32,
    /// How vectors are compared.
    pub metric: Metric,
}

impl SegmentSchema {
    /// Refuses a dimension outside 1..=[`DIM_MAX`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.dim == 0 || self.dim > DIM_MAX {
            let expected = format!("1..={DIM_MAX}");
            return Err(SegmentError::invalid("the dimension", self.dim, expected));
        }
        Ok(())
    }

    /// Bytes of one vector.
    pub(crate) fn vector_bytes(&self) -> usize {
        self.dim as usize * size_of::<f32>()
    }
}

/// One file of a segment as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileMeta {
    /// [`DATA_FILE`], [`DELETES_FILE`] or [`INDEX_FILE`].
    pub name: String,
    /// Length in bytes.
    #[serde(with = "text")]
    pub bytes: u64,
    /// CRC32C (Castagnoli) of the whole file.
    pub crc32c: u32,
}

/// A segment as commits carry it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// The segment's name, unique in the lake.
    pub id: Ulid,
    /// Records; ordinals 0..rows.
    pub rows: u32,
    /// Deleted keys; ordinals rows..rows+deletes.
    pub deletes: u32,
    /// Its files: data, deletes where there are any, index.
    pub files: Vec<FileMeta>,
    /// How many bytes from the end of [`INDEX_FILE`] open the segment: one ranged read.
    /// 0 in metas of index format 1, whose index is derived again from Parquet.
    #[serde(with = "text", default)]
    pub index_head_bytes: u64,
    /// The least log time of an entry in ms; 0 without entries.
    #[serde(with = "text")]
    pub log_time_min: i64,
    /// The greatest log time of an entry in ms; 0 without entries.
    #[serde(with = "text")]
    pub log_time_max: i64,
    /// The multiset hash of all entries.
    pub hash: EntryHash,
    /// The version of the centroids that its lists belong to; absent = it has no lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centroids: Option<Ulid>,
    /// When the id was minted, ms since 1970.
    #[serde(with = "text")]
    pub created_ms: u64,
}

impl SegmentMeta {
    /// Records and deletes together.
    pub fn entries(&self) -> u32 {
        self.rows + self.deletes
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The file of a name; None where the segment has none.
    pub fn file(&self, name: &str) -> Option<&FileMeta> {
        self.files.iter().find(|file| file.name == name)
    }

    /// As [`SegmentMeta::file`], for files that every segment has.
    pub(crate) fn require(&self, name: &'static str) -> Result<&FileMeta> {
        self.file(name).ok_or_else(|| {
            SegmentError::corrupt(
                name,
                "segment meta",
                0,
                format!("segment {} names no such file", self.id),
            )
        })
    }
}

/// 64-bit integers as decimal JSON strings.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
