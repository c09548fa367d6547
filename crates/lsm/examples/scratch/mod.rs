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

/// A record to append: its key, vector, and attributes where it has any.
pub type Row = (String, Vec<f32>, Option<String>);

/// The number behind `name` on the command line.
pub fn option(name: &str, default: usize) -> usize {
    let number = text_option(name).and_then(|text| text.parse().ok());
    number.unwrap_or(default)
}

/// The text behind `name` on the command line.
pub fn text_option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
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

/// A new collection, over partitions that begin at offset 0.
pub async fn create(
    lake: &Lake,
    (dim, metric): (usize, &str),
    partitions: u32,
) -> Result<Arc<Incarnation>, Failure> {
    let schema = Schema {
        dim: dim as u32,
        metric: metric.into(),
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
    mut row_of: impl FnMut(usize) -> Row,
) -> Result<(), Failure> {
    for from in rows.clone().step_by(ROWS_PER_BATCH) {
        let until = rows.end.min(from + ROWS_PER_BATCH);
        let (buffer, table) = batch(from..until, &mut row_of);
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

/// Rows in one buffer, and the table of schemas/records.md that points into it.
fn batch(rows: Range<usize>, row_of: &mut impl FnMut(usize) -> Row) -> (Vec<u8>, Vec<u8>) {
    let (mut buffer, mut table) = (Vec::new(), Vec::new());
    for row in rows {
        let (key, vector, attrs) = row_of(row);
        let vector = vector.iter().flat_map(|float| float.to_le_bytes());
        let vector: Vec<u8> = vector.collect();
        table.extend_from_slice(&(row as i64).to_le_bytes());
        table.extend_from_slice(&(row as i64).to_le_bytes());
        let parts = [
            Some(key.as_bytes()),
            Some(&vector),
            None,
            attrs.as_deref().map(str::as_bytes),
            None,
            None,
            None,
        ];
        for part in parts {
            let span = part.map_or([u32::MAX, 0, 0], |part| {
                let start = buffer.len() as u32;
                buffer.extend_from_slice(part);
                [0, start, part.len() as u32]
            });
            for word in span {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    (buffer, table)
}
