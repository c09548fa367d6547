//! The first search of a process: nothing in its cache, nothing in the system's; prints JSON.
//!
//! Loads a set into the lake, if it has none yet, as a service would: flushes of 64 MiB, a
//! training, and what the planner then proposes. Then, once for each query: the lake is opened
//! with an empty cache, the system forgets the files below the folders of `forget`, the
//! query is timed, and again with all in memory. Last, recall of the same queries.
//!
//! `cargo run --profile fast -p vexlake-lsm --example cold -- '<json>'`, where the JSON has
//! store (as vexlake-store's configuration), set (a folder with base.f32 and queries.f32),
//! dim, metric, queries, spool, forget (folders) and cacheBytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use serde::Deserialize;
use serde_json::json;
use vexlake_lsm::append::{Batch, OnBad};
use vexlake_lsm::{
    CatalogState, Incarnation, Lake, LakeOptions, MergeOptions, NewSource, Policy, Schema, Scope,
    Search,
};
use vexlake_manifest::{Author, Context, system_clock};
use vexlake_store::StoreConfig;

/// Rows of one append, as a fetch brings them.
const ROWS_PER_BATCH: usize = 4096;
/// A service seals at as much.
const SEGMENT_BYTES: usize = 64 << 20;
/// Results per query.
const K: usize = 10;
/// Rounds of planning: a training, rewrites, and a few tiers of merges.
const PLANS_MAX: usize = 12;

type Failure = Box<dyn std::error::Error>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    store: StoreConfig,
    set: PathBuf,
    dim: usize,
    metric: String,
    queries: usize,
    spool: PathBuf,
    forget: Vec<PathBuf>,
    cache_bytes: usize,
}

fn main() -> Result<(), Failure> {
    let text = std::env::args().nth(1).ok_or("no options")?;
    let options = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{}", runtime.block_on(measure(&options))?);
    Ok(())
}

async fn open(options: &Options) -> Result<(Arc<Lake>, Arc<Incarnation>), Failure> {
    let lake = Lake::open(LakeOptions {
        store: options.store.clone(),
        author: Author {
            role: "bench".into(),
            instance: "cold".into(),
        },
        spool: options.spool.clone(),
        cache_bytes: options.cache_bytes,
        components: Context::new(system_clock()),
        search_threads: 0,
        recall_sample_ratio: 0.0,
        warm_bytes: 0,
    })
    .await?;
    let catalog = lake.catalog.head();
    let id = match catalog.state.names.get(&CatalogState::key(0, "cold")) {
        Some(known) => known.live,
        None => {
            let schema = Schema {
                dim: options.dim as u32,
                metric: options.metric.clone(),
                format: "f32".into(),
            };
            let source = NewSource {
                kind: "local".into(),
                cluster: "bench".into(),
                topic: "bench".into(),
                compacted: false,
                starts: BTreeMap::from([(0, 0)]),
            };
            lake.create(0, "cold", schema, source).await?
        }
    };
    let incarnation = lake.incarnation(id).await?;
    Ok((lake, incarnation))
}

async fn measure(options: &Options) -> Result<serde_json::Value, Failure> {
    let loading = Instant::now();
    let (lake, incarnation) = open(options).await?;
    if incarnation.snapshot().live_rows == 0 {
        load(&incarnation, options).await?;
    }
    let load_seconds = loading.elapsed().as_secs_f64();
    drop((incarnation, lake));

    let queries = floats(
        &File::open(options.set.join("queries.f32"))?,
        0,
        options.queries * options.dim,
    )?;
    let queries: Vec<&[f32]> = queries.chunks_exact(options.dim).collect();
    let (mut opens, mut colds, mut warms) = (vec![], vec![], vec![]);
    let (mut requests, mut bytes, mut rounds, mut reranked) = (vec![], vec![], vec![], vec![]);
    let mut parts = [vec![], vec![], vec![]];
    for vector in &queries {
        forget(&options.forget)?;
        let began = Instant::now();
        let (_lake, incarnation) = open(options).await?;
        opens.push(began.elapsed().as_secs_f64() * 1e3);
        forget(&options.forget)?;
        let before = incarnation.store.usage();
        let began = Instant::now();
        let cold = incarnation
            .explain(&query(vector, false), Scope::Fresh)
            .await?;
        colds.push(began.elapsed().as_secs_f64() * 1e3);
        let usage = incarnation.store.usage();
        requests.push((usage.ranges + usage.gets - before.ranges - before.gets) as f64);
        bytes.push((usage.bytes_in - before.bytes_in) as f64);
        rounds.push(cold.rounds as f64);
        reranked.push(cold.costs[0].rows_reranked as f64);
        let stages = cold.stages.ok_or("an explained search is timed")?;
        for (micros, of) in [stages.lists, stages.rerank, stages.names]
            .into_iter()
            .zip(&mut parts)
        {
            of.push(micros as f64 / 1e3);
        }
        let began = Instant::now();
        search(&incarnation, vector, false).await?;
        warms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (_lake, incarnation) = open(options).await?;
    let mut found = 0;
    for vector in &queries {
        let truth = search(&incarnation, vector, true).await?;
        let hits = search(&incarnation, vector, false).await?;
        let is_hit = |hit: &&vexlake_lsm::Hit| hits.hits[0].iter().any(|h| h.id == hit.id);
        found += truth.hits[0].iter().filter(is_hit).count();
    }
    let snapshot = incarnation.snapshot();
    let [lists, vectors, names] = parts.map(summed);
    Ok(json!({
        "rows": snapshot.live_rows, "dim": options.dim, "segments": snapshot.segments.len(),
        "loadSeconds": load_seconds, "queries": queries.len(),
        "openMillis": summed(opens), "coldMillis": summed(colds), "warmMillis": summed(warms),
        "rounds": summed(rounds), "requests": summed(requests), "bytes": summed(bytes),
        "reranked": summed(reranked),
        "partsMillis": {"lists": lists, "vectors": vectors, "names": names},
        "recall": found as f64 / (queries.len() * K) as f64,
    }))
}

fn summed(mut values: Vec<f64>) -> serde_json::Value {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    json!({"p50": at(0.5), "p90": at(0.9), "max": at(1.0)})
}

async fn search(
    incarnation: &Incarnation,
    vector: &[f32],
    truth: bool,
) -> Result<vexlake_lsm::Answers, Failure> {
    let asked = [query(vector, truth)];
    Ok(incarnation.search(&asked, Scope::Fresh).await?)
}

fn query(vector: &[f32], truth: bool) -> Search {
    Search {
        truth,
        ..Search::new(vector.to_vec(), K)
    }
}

async fn load(incarnation: &Incarnation, options: &Options) -> Result<(), Failure> {
    let base = File::open(options.set.join("base.f32"))?;
    let row_bytes = options.dim * size_of::<f32>();
    let rows = base.metadata()?.len() as usize / row_bytes;
    let mut buffered = 0;
    for from in (0..rows).step_by(ROWS_PER_BATCH) {
        let to = rows.min(from + ROWS_PER_BATCH);
        let mut vectors = vec![0; (to - from) * row_bytes];
        base.read_exact_at(&mut vectors, (from * row_bytes) as u64)?;
        let (buffer, table) = batch(from..to, &vectors, row_bytes);
        let batch = Batch {
            source: 0,
            partition: 0,
            from: from as u64,
            to: to as u64,
            buffers: &[&buffer],
            table: &table,
            format: None,
            on_bad: OnBad::Fail,
        };
        incarnation.append(&batch).await?;
        buffered += buffer.len();
        if buffered > SEGMENT_BYTES || to == rows {
            incarnation.flush().await?;
            buffered = 0;
        }
    }
    let (merge, never) = (MergeOptions::default(), AtomicBool::new(false));
    for _ in 0..PLANS_MAX {
        let plan = incarnation.plan(&Policy::default());
        if plan.is_empty() {
            break;
        }
        for spec in plan {
            incarnation.run(&spec, &merge, &never, &|_| {}).await?;
        }
    }
    Ok(())
}

/// Keys and vectors in one buffer, and the table of schemas/records.md that points into it.
fn batch(rows: std::ops::Range<usize>, vectors: &[u8], row_bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut buffer, mut table) = (Vec::new(), Vec::new());
    for (row, vector) in rows.zip(vectors.chunks_exact(row_bytes)) {
        let key = buffer.len();
        buffer.extend_from_slice(format!("key-{row}").as_bytes());
        let value = buffer.len();
        buffer.extend_from_slice(vector);
        table.extend_from_slice(&(row as i64).to_le_bytes());
        table.extend_from_slice(&(row as i64).to_le_bytes());
        for (start, end) in [(key, value), (value, buffer.len())] {
            for word in [0, start as u32, (end - start) as u32] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
        for word in [u32::MAX, 0, 0].into_iter().cycle().take(15) {
            table.extend_from_slice(&word.to_le_bytes());
        }
    }
    (buffer, table)
}

fn floats(file: &File, from: usize, count: usize) -> Result<Vec<f32>, Failure> {
    let mut bytes = vec![0; count * size_of::<f32>()];
    file.read_exact_at(&mut bytes, (from * size_of::<f32>()) as u64)?;
    let chunks = bytes.as_chunks::<4>().0.iter();
    Ok(chunks.map(|float| f32::from_le_bytes(*float)).collect())
}

/// Lets go of what the system keeps of all files below some folders: what is written is
/// synced first, since only clean pages go. This machine's other caches are left alone.
fn forget(folders: &[PathBuf]) -> Result<(), Failure> {
    folders.iter().try_for_each(|folder| forget_below(folder))
}

fn forget_below(folder: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget_below(&entry.path())?;
        } else if kind.is_file() {
            // A running server may remove a file under us.
            let Ok(file) = File::open(entry.path()) else {
                continue;
            };
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
