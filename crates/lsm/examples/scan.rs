//! The exact scan against the machine's read bandwidth, in one run; prints JSON.
//!
//! Builds a lake of several segments in a temporary directory, fills the cache, then times
//! single-query searches at one thread and at all, each beside the stream-read bandwidth measured
//! at the same number of threads right before and after. Rows × dim × 4 bytes over the time of a
//! search is the scan's bandwidth.
//!
//! `cargo run --profile fast -p vexlake-lsm --example scan -- [--rows n] [--dim n] [--searches n]`

use std::collections::BTreeMap;
use std::time::Instant;

use vexlake_lsm::append::{Batch, OnBad};
use vexlake_lsm::{Lake, LakeOptions, NewSource, Schema, Scope, Search};
use vexlake_manifest::{Author, Context, system_clock};
use vexlake_store::StoreConfig;

/// Rows appended before each flush.
const ROWS_PER_SEGMENT: usize = 1 << 18;
/// Rows of one append, as a fetch brings them.
const ROWS_PER_BATCH: usize = 4096;
/// Bytes streamed for one bandwidth reading.
const BANDWIDTH_BYTES: usize = 1 << 30;

type Failure = Box<dyn std::error::Error>;

fn option(name: &str, default: usize) -> usize {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1))
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn main() -> Result<(), Failure> {
    let (rows, dim) = (option("--rows", 1_500_000), option("--dim", 256));
    let searches = option("--searches", 30);
    let threads = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut lines = Vec::new();
    for threads in [1, threads] {
        let line = runtime.block_on(measure(rows, dim, searches, threads))?;
        lines.push(line);
    }
    println!(
        "{{\"rows\": {rows}, \"dim\": {dim}, \"dataBytes\": {}, \"runs\": [{}]}}",
        rows * dim * 4,
        lines.join(", ")
    );
    Ok(())
}

async fn measure(
    rows: usize,
    dim: usize,
    searches: usize,
    threads: usize,
) -> Result<String, Failure> {
    let folder = tempfile::tempdir()?;
    let lake = Lake::open(LakeOptions {
        store: StoreConfig::at(folder.path().join("lake").display().to_string()),
        author: Author {
            role: "bench".into(),
            instance: "scan".into(),
        },
        spool: folder.path().join("spool"),
        cache_bytes: rows * dim * 4 * 2,
        components: Context::new(system_clock()),
        search_threads: threads,
        recall_sample_ratio: 0.0,
        warm_bytes: 0,
    })
    .await?;
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
        starts: BTreeMap::from([(0, 0)]),
    };
    let id = lake.create(0, "bench", schema, source).await?;
    let incarnation = lake.incarnation(id).await?;
    let mut state = 1u64;
    for from in (0..rows).step_by(ROWS_PER_BATCH) {
        let count = ROWS_PER_BATCH.min(rows - from);
        let (buffer, table) = batch(from, count, dim, &mut state);
        let batch = Batch {
            source: 0,
            partition: 0,
            from: from as u64,
            to: (from + count) as u64,
            buffers: &[&buffer],
            table: &table,
            format: None,
            on_bad: OnBad::Fail,
        };
        incarnation.append(&batch).await?;
        if (from + count).is_multiple_of(ROWS_PER_SEGMENT) || from + count == rows {
            incarnation.flush().await?;
        }
    }
    let query = Search {
        vector: floats(dim, &mut state),
        k: 10,
        score_min: None,
        with_attrs: false,
        effort: None,
        truth: true,
    };
    // The first search fills the cache; the second finds everything there.
    for _ in 0..2 {
        incarnation
            .search(std::slice::from_ref(&query), Scope::Fresh)
            .await?;
    }
    let before = vexlake_distance::read_bandwidth(BANDWIDTH_BYTES, threads);
    let mut millis = Vec::with_capacity(searches);
    for _ in 0..searches {
        let started = Instant::now();
        incarnation
            .search(std::slice::from_ref(&query), Scope::Fresh)
            .await?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let after = vexlake_distance::read_bandwidth(BANDWIDTH_BYTES, threads);
    millis.sort_by(f64::total_cmp);
    let (p50, bytes) = (millis[millis.len() / 2], (rows * dim * 4) as f64);
    let scan = bytes / p50 / 1e6;
    let stream = before.max(after);
    Ok(format!(
        "{{\"threads\": {threads}, \"segments\": {}, \"p50Millis\": {p50:.2}, \"p99Millis\": {:.2}, \
         \"scanGBs\": {scan:.2}, \"streamReadGBs\": [{before:.2}, {after:.2}], \"share\": {:.3}}}",
        incarnation.snapshot().segments.len(),
        millis[millis.len() * 99 / 100],
        scan / stream
    ))
}

/// xorshift floats in −1..1: the time of a scan does not depend on the values.
fn floats(dim: usize, state: &mut u64) -> Vec<f32> {
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..dim).map(|_| next(state)).collect()
}

/// Keys and vectors in one buffer, and the table of schemas/records.md that points into it.
fn batch(from: usize, count: usize, dim: usize, state: &mut u64) -> (Vec<u8>, Vec<u8>) {
    let (mut buffer, mut table) = (Vec::new(), Vec::new());
    for row in from..from + count {
        let key = buffer.len();
        buffer.extend_from_slice(format!("key-{row}").as_bytes());
        let value = buffer.len();
        for float in floats(dim, state) {
            buffer.extend_from_slice(&float.to_le_bytes());
        }
        table.extend_from_slice(&(row as i64).to_le_bytes());
        table.extend_from_slice(&(row as i64).to_le_bytes());
        for (start, end) in [(key, value), (value, buffer.len())] {
            for word in [0, start as u32, (end - start) as u32] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
        for _ in 0..5 {
            for word in [u32::MAX, 0, 0] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    (buffer, table)
}
