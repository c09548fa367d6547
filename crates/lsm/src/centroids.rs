//! Centroids of an incarnation: their objects, and how rows become lists.
//!
//! An object is written once, before the commit that names it with length and checksum. A
//! snapshot opens the versions that its state calls live; they are a few megabytes, shared
//! by everything that is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ulid::Ulid;
use vexlake_index::{Centroids, EncodedRows, build_lists};
use vexlake_manifest::ManifestError;
use vexlake_store::Store;

use crate::error::{Error, Result};
use crate::state::{CentroidsMeta, IncarnationState, Schema, Trained};

/// Rows encoded at once by each thread: what crates/index gives a thread as one piece.
const ENCODE_ROWS: usize = 4096;
/// Floats of rows gathered for that at most: 32 MiB.
const ENCODE_FLOATS_MAX: usize = 8 << 20;

/// Where the object of a version lies.
pub fn object_key(version: &Ulid) -> String {
    format!("centroids/{version}")
}

/// Stores a version and answers what a commit says about it.
///
/// # Errors
/// Store errors.
pub async fn upload(
    store: &Store,
    version: Ulid,
    centroids: &Centroids,
    (probes, rows): (u32, u64),
    trained: Option<Trained>,
) -> Result<CentroidsMeta> {
    let bytes = Bytes::from(centroids.to_bytes());
    let meta = CentroidsMeta {
        version,
        bytes: bytes.len() as u64,
        crc32c: crc32c::crc32c(&bytes),
        lists: centroids.count() as u32,
        probes,
        rows,
        trained,
    };
    store.put(&object_key(&version), bytes).await?;
    Ok(meta)
}

/// The versions that a state calls live; those in `known` are taken over.
///
/// # Errors
/// Store errors; damage.
pub async fn open_live(
    store: &Store,
    state: &IncarnationState,
    known: Option<&BTreeMap<Ulid, Arc<Centroids>>>,
) -> Result<BTreeMap<Ulid, Arc<Centroids>>> {
    let mut opened = BTreeMap::new();
    // The objects of a retired incarnation go at once.
    let live = state.centroids.live.iter().filter(|_| !state.retired);
    for (version, meta) in live {
        let held = known.and_then(|known| known.get(version));
        let centroids = match held {
            Some(held) => held.clone(),
            None => open(store, meta, &state.schema).await?,
        };
        opened.insert(*version, centroids);
    }
    Ok(opened)
}

async fn open(store: &Store, meta: &CentroidsMeta, schema: &Schema) -> Result<Arc<Centroids>> {
    let key = object_key(&meta.version);
    let bytes = store.get(&key).await?;
    let damaged = |message: String| {
        Error::from(ManifestError::Corrupt {
            key: key.clone(),
            message,
            broken: None,
        })
    };
    let (length, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
    if (length, crc32c) != (meta.bytes, meta.crc32c) {
        let (bytes, crc) = (meta.bytes, meta.crc32c);
        return Err(damaged(format!(
            "{length} bytes with checksum {crc32c:08x}, the commit says {bytes} and {crc:08x}"
        )));
    }
    // Making the centroids' own codes takes milliseconds.
    let centroids = tokio::task::block_in_place(|| Centroids::from_bytes(&bytes))
        .map_err(|error| damaged(error.to_string()))?;
    let space = centroids.space();
    let found = (centroids.version(), space.dim(), space.metric());
    let expected = (
        u128::from(meta.version),
        schema.dim as usize,
        schema.metric(),
    );
    if found != expected {
        return Err(damaged(format!("{found:?}, expected {expected:?}")));
    }
    Ok(Arc::new(centroids))
}

/// Rows on their way into lists.
pub struct Encoder<'a> {
    centroids: &'a Centroids,
    threads: usize,
    batch: Vec<f32>,
    rows: EncodedRows,
}

impl<'a> Encoder<'a> {
    /// None yet.
    pub fn new(centroids: &'a Centroids, threads: usize) -> Self {
        Self {
            centroids,
            threads,
            batch: Vec::new(),
            rows: EncodedRows::default(),
        }
    }

    /// Takes the next row. O(lists / 32 + dim), in batches.
    ///
    /// # Errors
    /// None for vectors of the collection's dimension.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        self.batch.extend_from_slice(vector);
        let full = ENCODE_ROWS * self.threads * self.centroids.space().dim();
        if self.batch.len() >= full.min(ENCODE_FLOATS_MAX) {
            self.encode_batch()?;
        }
        Ok(())
    }

    /// All rows in the order they came.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn finish(mut self) -> Result<EncodedRows> {
        self.encode_batch()?;
        Ok(self.rows)
    }

    fn encode_batch(&mut self) -> Result<()> {
        let encoded = self.centroids.encode(&self.batch, self.threads)?;
        self.rows.append(encoded);
        self.batch.clear();
        Ok(())
    }
}

/// The lists object of encoded rows; see [`build_lists`].
///
/// # Errors
/// None for rows that these centroids encoded.
pub fn lists_object(
    centroids: &Centroids,
    rows: &EncodedRows,
    in_list_order: bool,
) -> Result<Vec<u8>> {
    let (lists, code_dim) = (centroids.count() as u32, centroids.space().code_dim());
    let version = centroids.version();
    Ok(build_lists(version, lists, code_dim, rows, in_list_order)?)
}
