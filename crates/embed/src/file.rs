//! The model's file. Little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `VXEMBED1` |
//! | 4, 4, 4 | u32 dimension, u32 number of features n, f32 weight of unknown features |
//! | 8 n | u64 features, ascending |
//! | 4 n | f32 weights |
//! | 4 n · dim | f32 directions |
//! | 8 | u64 xxh3-64 of everything before |

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{DIM_MAX, Model};

const MAGIC: &[u8; 8] = b"VXEMBED1";
const HEADER_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 8;

/// Why bytes are no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadModel(pub String);

impl std::fmt::Display for BadModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not a model of vexlake-embed: {}", self.0)
    }
}

impl std::error::Error for BadModel {}

impl Model {
    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(file_bytes(self.dim, self.features.len()));
        bytes.extend(MAGIC);
        bytes.extend((self.dim as u32).to_le_bytes());
        bytes.extend((self.features.len() as u32).to_le_bytes());
        bytes.extend(self.unknown_weight.to_le_bytes());
        bytes.extend(
            self.features
                .iter()
                .flat_map(|feature| feature.to_le_bytes()),
        );
        let floats = self.weights.iter().chain(&self.directions);
        bytes.extend(floats.flat_map(|float| float.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a file's bytes; refuses any that [`Model::to_bytes`] did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, BadModel> {
        let bad = |why: String| Err(BadModel(why));
        if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES || !bytes.starts_with(MAGIC) {
            return bad(format!("{} bytes without its magic", bytes.len()));
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if xxh3_64(content).to_le_bytes() != checksum {
            return bad("its checksum is another".to_string());
        }
        let word = |at: usize| {
            [
                content[at],
                content[at + 1],
                content[at + 2],
                content[at + 3],
            ]
        };
        let dim = u32::from_le_bytes(word(8)) as usize;
        let count = u32::from_le_bytes(word(12)) as usize;
        if dim == 0 || dim > DIM_MAX || bytes.len() != file_bytes(dim, count) {
            return bad(format!(
                "{} bytes for {count} features of dimension {dim}",
                bytes.len()
            ));
        }
        let (features, floats) = content[HEADER_BYTES..].split_at(count * size_of::<u64>());
        let mut floats = floats
            .as_chunks::<4>()
            .0
            .iter()
            .map(|float| f32::from_le_bytes(*float));
        Ok(Model {
            dim,
            unknown_weight: f32::from_le_bytes(word(16)),
            features: features
                .as_chunks::<8>()
                .0
                .iter()
                .map(|f| u64::from_le_bytes(*f))
                .collect(),
            weights: floats.by_ref().take(count).collect(),
            directions: floats.collect(),
        })
    }
}

fn file_bytes(dim: usize, count: usize) -> usize {
    HEADER_BYTES + count * (size_of::<u64>() + size_of::<f32>() * (1 + dim)) + CHECKSUM_BYTES
}
