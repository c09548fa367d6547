//! What the examples share: a lake in a folder, one collection in it, rows appended as fetches
//! bring them, and options by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vexlake_lsm::append::{Batch, OnBad};
use vexlake_lsm::{Incarnation, Lake, LakeOptions, NewSource, Schema};
use vexlake_manifest::{Author, Context, system_clock};
use vexlake_store::StoreConfig;

/// Rows of one append, as a fetch brings them.
const ROWS_PER_BATCH: usize = 4096;

pub type Failure = Box<dyn std::error::Error>;

/// The number behind `name` on the command line.
pub fn option(name: &str, default: usize) -> usize {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1))
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Opens the lake in `folder`; 0 search threads are one per core.
pub async fn open(
    folder: &Path,
    role: &str,
    cache_bytes: usize,
    search_threads: usize,
) -> Result<Arc<Lake>, Failure> {
    let options = LakeOptions {
        store: StoreConfig::at(folder.join("lake").display().to_string()),
        author: Author {
            role: role.into(),
            instance: "bench".into(),
        },
        spool: folder.join(role),
        cache_bytes,
        components: Context::new(system_clock()),
        search_threads,
        recall_sample_ratio: 0.0,
        warm_bytes: 0,
    };
    Ok(Lake::open(options).await?)
}

/// A new collection of vectors compared by cosine, over partitions that begin at offset 0.
pub async fn create(lake: &Lake, dim: usize, partitions: u32) -> Result<Arc<Incarnation>, Failure> {
    let schema = Schema {
        dim: dim as u32,
        metric: "cosine".into(),
        format: "f32".into(),
    };
    let source = NewSource {
        kind: "local".into(),
        cluster: "bench".into(),
        topic: "bench".into(),
        compacted: false,
        starts: (0..partitions).map(|p| (p, 0)).collect::<BTreeMap<_, _>>(),
    };
    let id = lake.create(0, "bench", schema, source).await?;
    Ok(lake.incarnation(id).await?)
}

/// Appends rows by their number, which is their offset and their log time.
pub async fn append(
    to: &Incarnation,
    partition: u32,
    rows: Range<usize>,
    mut key_and_vector: impl FnMut(usize) -> (String, Vec<f32>),
) -> Result<(), Failure> {
    for from in rows.clone().step_by(ROWS_PER_BATCH) {
        let until = rows.end.min(from + ROWS_PER_BATCH);
        let (buffer, table) = batch(from..until, &mut key_and_vector);
        let batch = Batch {
            source: 0,
            partition,
            from: from as u64,
            to: until as u64,
            buffers: &[&buffer],
            table: &table,
            format: None,
            on_bad: OnBad::Fail,
        };
        to.append(&batch).await?;
    }
    Ok(())
}

/// Keys and vectors in one buffer, and the table of schemas/records.md that points into it.
fn batch(
    rows: Range<usize>,
    key_and_vector: &mut impl FnMut(usize) -> (String, Vec<f32>),
) -> (Vec<u8>, Vec<u8>) {
    let (mut buffer, mut table) = (Vec::new(), Vec::new());
    for row in rows {
        let (key, vector) = key_and_vector(row);
        let start = buffer.len();
        buffer.extend_from_slice(key.as_bytes());
        let value = buffer.len();
        for float in vector {
            buffer.extend_from_slice(&float.to_le_bytes());
        }
        table.extend_from_slice(&(row as i64).to_le_bytes());
        table.extend_from_slice(&(row as i64).to_le_bytes());
        for (start, end) in [(start, value), (value, buffer.len())] {
            for word in [0, start as u32, (end - start) as u32] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
        // Five parts that no row has.
        for word in [u32::MAX, 0, 0].into_iter().cycle().take(15) {
            table.extend_from_slice(&word.to_le_bytes());
        }
    }
    (buffer, table)
}
