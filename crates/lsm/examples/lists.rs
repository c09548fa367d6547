//! Search through lists in the whole engine; prints JSON.
//!
//! Builds a clustered collection in a temporary directory: a first part without centroids,
//! a training, rewrites, and the rest by flushes. Then times single-query searches by default
//! and exact ones, many segments and one, warm and cold, and compares their answers.
//!
//! `cargo run --profile fast -p vexlake-lsm --example lists -- [--rows n] [--dim n] [--queries n] [--segment n]`

#[path = "scratch/clusters.rs"]
mod clusters;
mod scratch;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clusters::Clusters;
use scratch::{Failure, create, open, option};
use vexlake_lsm::{Incarnation, MergeOptions, Policy, Scope, Search};

/// Results per query.
const K: usize = 10;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!("{{{}}}", runtime.block_on(measure())?.join(", "));
    Ok(())
}

async fn measure() -> Result<Vec<String>, Failure> {
    let (rows, dim) = (option("--rows", 200_000), option("--dim", 768));
    let (queries, segment) = (option("--queries", 300), option("--segment", 20_000));
    let folder = tempfile::tempdir()?;
    let cache_bytes = 2 * rows * dim * 4;
    let lake = open(folder.path(), "writer", cache_bytes, 0).await?;
    let incarnation = create(&lake, (dim, "cosine"), 1).await?;
    let id = incarnation.id;
    let data = Clusters::of_rows(rows, dim);
    let mut lines = vec![format!("\"rows\": {rows}, \"dim\": {dim}")];

    let half = rows / 2;
    let (started, mut flushing) = (Instant::now(), 0.0);
    append(&incarnation, &data, 0..half, segment, &mut flushing).await?;
    lines.push(format!("\"flushFlatSeconds\": {flushing:.2}"));
    let policy = Policy {
        fan_in: usize::MAX,
        ..Policy::default()
    };
    let plan = incarnation.plan(&policy);
    let training = plan.first().ok_or("no training was planned")?;
    let (options, never) = (MergeOptions::default(), AtomicBool::new(false));
    let training_began = Instant::now();
    incarnation.run(training, &options, &never, &|_| {}).await?;
    let seconds = training_began.elapsed().as_secs_f64();
    lines.push(format!(
        "\"lists\": {}, \"trainSeconds\": {seconds:.2}",
        training.lists
    ));
    let rewriting = Instant::now();
    for spec in incarnation.plan(&policy) {
        incarnation.run(&spec, &options, &never, &|_| {}).await?;
    }
    let seconds = rewriting.elapsed().as_secs_f64();
    lines.push(format!("\"rewriteSeconds\": {seconds:.2}"));
    flushing = 0.0;
    append(&incarnation, &data, half..rows, segment, &mut flushing).await?;
    lines.push(format!(
        "\"flushListedSeconds\": {flushing:.2}, \"loadSeconds\": {:.2}",
        started.elapsed().as_secs_f64()
    ));
    let asked: Vec<Vec<f32>> = (0..queries).map(|n| data.row(rows + 7 * n)).collect();
    lines.push(format!(
        "\"many\": {{{}}}",
        searches(&incarnation, &asked).await?
    ));
    let inputs = incarnation.snapshot().segments.keys().copied().collect();
    let merge = vexlake_lsm::Spec {
        id: "all".into(),
        kind: "merge".into(),
        inputs,
        lists: 0,
        replaces: None,
        ..training.clone()
    };
    let merging = Instant::now();
    incarnation.run(&merge, &options, &never, &|_| {}).await?;
    let seconds = merging.elapsed().as_secs_f64();
    lines.push(format!("\"mergeSeconds\": {seconds:.2}"));
    lines.push(format!(
        "\"one\": {{{}}}",
        searches(&incarnation, &asked).await?
    ));
    drop((incarnation, lake));

    let lake = open(folder.path(), "reader", cache_bytes, 0).await?;
    let incarnation = lake.incarnation(id).await?;
    let began = Instant::now();
    let answers = incarnation
        .search(&[query(&asked[0], false)], Scope::Fresh)
        .await?;
    lines.push(format!(
        "\"cold\": {{\"millis\": {:.2}, \"rounds\": {}, \"requests\": {}, \"bytes\": {}}}",
        began.elapsed().as_secs_f64() * 1e3,
        answers.rounds,
        answers.reads.requests,
        answers.reads.bytes
    ));
    Ok(lines)
}

fn query(vector: &[f32], truth: bool) -> Search {
    Search {
        truth,
        ..Search::new(vector.to_vec(), K)
    }
}

/// Recall and times over all queries, the second time each is asked.
async fn searches(incarnation: &Arc<Incarnation>, asked: &[Vec<f32>]) -> Result<String, Failure> {
    let (mut found, mut micros, mut exact, mut scanned) = (0, vec![], vec![], 0);
    let (mut reranked, mut waves, mut cold) = (0, 0, vec![]);
    for vector in asked {
        let mut ids = vec![];
        // Lists first: an exact search brings every vector into the cache.
        for turn in [0, 1] {
            let began = Instant::now();
            let answers = incarnation
                .search(&[query(vector, false)], Scope::Fresh)
                .await?;
            let took = began.elapsed().as_secs_f64() * 1e6;
            if turn == 0 {
                cold.push(took);
                continue;
            }
            micros.push(took);
            scanned += answers.costs[0].rows_scanned;
            reranked += answers.costs[0].rows_reranked;
            waves += answers.costs[0].waves;
            ids = answers.hits[0].iter().map(|hit| hit.id.clone()).collect();
        }
        let began = Instant::now();
        let truth = incarnation
            .search(&[query(vector, true)], Scope::Fresh)
            .await?;
        exact.push(began.elapsed().as_secs_f64() * 1e6);
        found += truth.hits[0]
            .iter()
            .filter(|hit| ids.contains(&hit.id))
            .count();
    }
    let at = |times: &mut Vec<f64>, share: f64| {
        times.sort_by(f64::total_cmp);
        times[((times.len() - 1) as f64 * share) as usize]
    };
    let snapshot = incarnation.snapshot();
    let memory: usize = snapshot
        .segments
        .values()
        .map(|view| view.reader.memory_bytes())
        .sum();
    let codes: u64 = snapshot
        .segments
        .values()
        .filter_map(|view| Some(view.reader.lists()?.bytes()))
        .sum();
    let count = asked.len() as f64;
    Ok(format!(
        "\"segments\": {}, \"recall\": {:.4}, \"p50Micros\": {:.0}, \"p99Micros\": {:.0}, \"firstP50Micros\": {:.0}, \
         \"truthP50Micros\": {:.0}, \"scanned\": {:.0}, \"reranked\": {:.1}, \"waves\": {:.2}, \
         \"residentBytesPerRow\": {:.1}, \"codeBytesPerRow\": {:.1}",
        snapshot.segments.len(),
        f64::from(found as u32) / (count * K as f64),
        at(&mut micros, 0.5),
        at(&mut micros, 0.99),
        at(&mut cold, 0.5),
        at(&mut exact, 0.5),
        scanned as f64 / count,
        reranked as f64 / count,
        waves as f64 / count,
        memory as f64 / snapshot.live_rows as f64,
        codes as f64 / snapshot.live_rows as f64,
    ))
}

/// Appends rows and flushes every `segment` of them; adds up the time of flushes.
async fn append(
    incarnation: &Incarnation,
    data: &Clusters,
    rows: Range<usize>,
    segment: usize,
    flushing: &mut f64,
) -> Result<(), Failure> {
    for from in rows.clone().step_by(segment) {
        let part = from..rows.end.min(from + segment);
        let keyed = |row| (format!("key-{row}"), data.row(row), None);
        scratch::append(incarnation, 0, part, keyed).await?;
        let began = Instant::now();
        incarnation.flush().await?;
        *flushing += began.elapsed().as_secs_f64();
    }
    Ok(())
}
