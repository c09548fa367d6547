//! The exact scan against the machine's read bandwidth, in one run; prints JSON.
//!
//! Builds a lake of several segments in a temporary directory, fills the cache, then times
//! single-query searches at one thread and at all, each beside the stream-read bandwidth measured
//! at the same number of threads right before and after. Rows × dim × 4 bytes over the time of a
//! search is the scan's bandwidth.
//!
//! `cargo run --profile fast -p vexlake-lsm --example scan -- [--rows n] [--dim n] [--searches n]`

mod scratch;

use std::time::Instant;

use scratch::{Failure, append, create, open, option};
use vexlake_lsm::{Scope, Search};

/// Rows appended before each flush.
const ROWS_PER_SEGMENT: usize = 1 << 18;
/// Bytes streamed for one bandwidth reading.
const BANDWIDTH_BYTES: usize = 1 << 30;

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
    let lake = open(folder.path(), "scan", rows * dim * 4 * 2, threads).await?;
    let incarnation = create(&lake, (dim, "cosine"), 1).await?;
    let mut state = 1u64;
    for from in (0..rows).step_by(ROWS_PER_SEGMENT) {
        let segment = from..rows.min(from + ROWS_PER_SEGMENT);
        append(&incarnation, 0, segment, |row| {
            (format!("key-{row}"), floats(dim, &mut state), None)
        })
        .await?;
        incarnation.flush().await?;
    }
    let query = Search {
        truth: true,
        ..Search::new(floats(dim, &mut state), 10)
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
