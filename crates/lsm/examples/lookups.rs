//! What key look-ups cost; prints JSON.
//!
//! Builds a lake of several segments in a temporary directory and opens it anew, so that
//! nothing is cached. Then: bytes that the open readers hold, look-ups of keys that are not
//! there, of keys that are (cold, then warm), single gets, and, while a newer version is
//! followed with a full memtable, how long a reader of the view had to wait at most.
//!
//! `cargo run --profile fast -p vexlake-lsm --example lookups -- [--rows n] [--segments n] [--dim n]
//! [--keys n] [--cache-mib n]`

mod scratch;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use scratch::{Failure, create, open, option};
use vexlake_lsm::{Incarnation, Scope, Want};
use vexlake_segment::key_hash;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{}", runtime.block_on(measure())?);
    Ok(())
}

async fn measure() -> Result<String, Failure> {
    let (rows, segments) = (option("--rows", 1_000_000), option("--segments", 20));
    let (dim, count) = (option("--dim", 8), option("--keys", 100_000));
    let folder = tempfile::tempdir()?;
    let cache_bytes = option("--cache-mib", 64) << 20;
    let lake = open(folder.path(), "writer", cache_bytes, 0).await?;
    let writer = create(&lake, (dim, "cosine"), 2).await?;
    let filled = Instant::now();
    for segment in 0..segments {
        let (from, to) = (rows * segment / segments, rows * (segment + 1) / segments);
        append(&writer, 0, from..to, dim).await?;
        writer.flush().await?;
    }
    let filled = filled.elapsed();

    let reader_lake = open(folder.path(), "reader", cache_bytes, 0).await?;
    let opened = Instant::now();
    let reader = reader_lake.incarnation(writer.id).await?;
    let opened = opened.elapsed();
    let snapshot = reader.snapshot();
    let readers = || snapshot.segments.values().map(|view| &view.reader);
    let resident: usize = readers().map(|reader| reader.memory_bytes()).sum();
    let index_bytes: u64 = readers()
        .filter_map(|reader| reader.meta().file("index.vxi"))
        .map(|file| file.bytes)
        .sum();

    // A stride that meets every segment and hardly two neighbours.
    let present: Vec<String> = (0..count).map(|n| key(n * 7919 % rows)).collect();
    let absent: Vec<String> = (0..count).map(|n| key(rows + n)).collect();
    let mut lines = vec![];
    for (name, keys) in [
        ("absent", &absent),
        ("presentCold", &present),
        ("presentAgain", &present),
    ] {
        let keys: Vec<(u64, &str)> = keys.iter().map(|key| (key_hash(key), &**key)).collect();
        let before = reader_lake.store.usage();
        let started = Instant::now();
        let located = snapshot.locate_many(&keys).await?;
        let micros = started.elapsed().as_secs_f64() * 1e6;
        let now = reader_lake.store.usage();
        lines.push(format!(
            "\"{name}\": {{\"found\": {}, \"microsPerKey\": {:.3}, \"reads\": {}, \"mibRead\": {:.1}}}",
            located.iter().flatten().count(),
            micros / count as f64,
            now.ranges - before.ranges,
            (now.bytes_in - before.bytes_in) as f64 / f64::from(1 << 20)
        ));
    }
    let want = Want {
        vector: false,
        attrs: false,
    };
    let (mut cold, mut warm) = (vec![], vec![]);
    for key in present.iter().step_by(count.div_ceil(500)) {
        for micros in [&mut cold, &mut warm] {
            let started = Instant::now();
            reader.get(&[key], Scope::Fresh, want).await?;
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    for micros in [&mut cold, &mut warm] {
        micros.sort_by(f64::total_cmp);
    }
    let follow = follow_under_readers(&writer, &reader, rows, count, dim).await?;
    Ok(format!(
        "{{\"rows\": {rows}, \"segments\": {}, \"fillSeconds\": {:.1}, \"openMillis\": {:.1}, \
         \"residentBytesPerRecord\": {:.2}, \"indexBytesPerRecord\": {:.1}, {}, \
         \"getMicros\": {{\"first\": {:.0}, \"again\": {:.0}}}, {follow}}}",
        snapshot.segments.len(),
        filled.as_secs_f64(),
        opened.as_secs_f64() * 1e3,
        resident as f64 / rows as f64,
        index_bytes as f64 / rows as f64,
        lines.join(", "),
        cold[cold.len() / 2],
        warm[warm.len() / 2],
    ))
}

/// Fills the reader's active memtable with keys that are there, commits another segment,
/// and lets the reader follow while a thread keeps looking at its view.
async fn follow_under_readers(
    writer: &Incarnation,
    reader: &Arc<Incarnation>,
    rows: usize,
    count: usize,
    dim: usize,
) -> Result<String, Failure> {
    let appended = Instant::now();
    append(reader, 1, 0..count.min(rows), dim).await?;
    let appended = appended.elapsed();
    append(writer, 0, rows..rows + 1000, dim).await?;
    writer.flush().await?;
    let followed = Instant::now();
    let worst = wait_while(reader, async { drop(reader.follow().await) }).await?;
    let followed = followed.elapsed();
    // As long again with nothing going on: what other programs on the machine cost.
    let noise = wait_while(reader, tokio::time::sleep(followed)).await?;
    Ok(format!(
        "\"appendMicrosPerRecord\": {:.2}, \"followMillis\": {:.0}, \"readerWaitMillisMax\": {worst:.2}, \
         \"noiseMillisMax\": {noise:.2}",
        appended.as_secs_f64() * 1e6 / count as f64,
        followed.as_secs_f64() * 1e3
    ))
}

/// The longest that a thread waited for a look at the view while `doing` was done.
async fn wait_while(
    reader: &Arc<Incarnation>,
    doing: impl Future<Output = ()>,
) -> Result<f64, Failure> {
    let (looker, ended) = (reader.clone(), Arc::new(AtomicBool::new(false)));
    let until = ended.clone();
    let looking = std::thread::spawn(move || {
        let mut worst = 0.0f64;
        while !until.load(Ordering::Relaxed) {
            let started = Instant::now();
            looker.feed.read(|view| std::hint::black_box(view.card()));
            worst = worst.max(started.elapsed().as_secs_f64() * 1e3);
        }
        worst
    });
    doing.await;
    ended.store(true, Ordering::Relaxed);
    Ok(looking.join().map_err(|_| "the looking thread panicked")?)
}

/// 20 bytes, as ULID-like keys have.
fn key(number: usize) -> String {
    format!("key-{number:016}")
}

async fn append(
    to: &Incarnation,
    partition: u32,
    rows: Range<usize>,
    dim: usize,
) -> Result<(), Failure> {
    let float = |row, place| ((row * 31 + place * 17) % 1000) as f32 / 500.0 - 1.0;
    let vector = |row| (0..dim).map(|place| float(row, place)).collect();
    scratch::append(to, partition, rows, |row| (key(row), vector(row), None)).await
}
