//! Recall of live searches as it is measured, against what a brute force says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_segment::BlockCache;
use vexlake_store::{Fault, Faults, Op, Rule, Store};

use super::explain::{IN_MEMORY, mixed_site};
use super::lists::{append, append_rows, append_vectors, query};
use crate::search::{RecallCounts, Sampler};
use crate::testing::*;
use crate::{Answers, Context, Incarnation, Scope, Search};

/// For a scan of three thousand rows on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reader of the mixed collection that compares this share of its searches, without a rest.
async fn reader(site: &Site, store: &Store, ratio: f64) -> (Arc<Incarnation>, Arc<Sampler>) {
    let sampler = Sampler::with_rest(ratio, 3, 0);
    let context = Context {
        cache: BlockCache::new(64 << 20),
        recall: sampler.clone(),
        ..site.context("query", crash::none())
    };
    let opened = Incarnation::open(store, site.id, context).await;
    (opened.expect("opened"), sampler)
}

async fn settled(sampler: &Sampler, done: impl Fn(&RecallCounts) -> bool) -> RecallCounts {
    let end = Instant::now() + PATIENCE;
    while !done(&sampler.counts()) {
        assert!(Instant::now() < end, "{:?}", sampler.counts());
        tokio::task::yield_now().await;
    }
    sampler.counts()
}

async fn ask(handle: &Incarnation, query: &Search) -> Answers {
    let answers = handle
        .search(std::slice::from_ref(query), Scope::Fresh)
        .await;
    answers.expect("searched")
}

/// The share of the true hits that a search finds; no two of these rows are equally far.
async fn brute_force(handle: &Incarnation, query: &Search) -> f64 {
    let truth = Search {
        truth: true,
        ..query.clone()
    };
    let (truth, found) = (ask(handle, &truth).await, ask(handle, query).await);
    let is_found = |hit: &&crate::Hit| found.hits[0].iter().any(|other| other.id == hit.id);
    truth.hits[0].iter().filter(is_found).count() as f64 / truth.hits[0].len() as f64
}

/// Between two clusters, with the fewest lists that can be looked at: neighbours are missed.
fn hasty(n: u64) -> Search {
    let (here, there) = (query(n, false), query(n + 1, false));
    let between = here.vector.iter().zip(&there.vector);
    Search {
        effort: Some(1),
        vector: between.map(|(a, b)| (a + b) / 2.0).collect(),
        ..here
    }
}

#[test]
fn should_measure_what_a_brute_force_says() {
    run(async {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let site = mixed_site(metric).await;
            let (plain, _) = reader(&site, &site.store, 0.0).await;
            let (handle, sampler) = reader(&site, &site.store, 1.0).await;
            let next = plain.snapshot().next(0, 0);
            // In memory: new rows, and deletes of rows that lists hold.
            let delete = |n: u64| {
                let key = format!("k{}", 2000 + n - next - IN_MEMORY).into_bytes();
                [Some(key), None, None, None, None, None, None]
            };
            for handle in [&plain, &handle] {
                append_rows(handle, next..next + IN_MEMORY).await;
                append(handle, next + IN_MEMORY..next + IN_MEMORY + 300, delete).await;
            }
            let mut sum = 0.0;
            for n in 0..20 {
                sum += brute_force(&plain, &hasty(n)).await;
                ask(&handle, &hasty(n)).await;
                settled(&sampler, |counts| counts.compared == n + 1).await;
            }
            let counts = sampler.counts();
            assert!((counts.sum - sum).abs() < 1e-9, "{counts:?}, not {sum}");
            assert!(5.0 < sum && sum < 19.9, "neither all nor nothing: {sum}");
            assert_eq!(counts.by_bound.iter().sum::<u64>(), 20);
            assert_eq!((counts.dropped, counts.failed), (0, 0));
        }
    });
}

#[test]
fn should_compare_nothing_at_a_ratio_of_zero_and_no_search_that_is_exact() {
    run(async {
        let site = mixed_site(Metric::L2).await;
        let (handle, sampler) = reader(&site, &site.store, 0.0).await;
        for n in 0..50 {
            ask(&handle, &query(n, false)).await;
        }
        assert_eq!(sampler.counts(), RecallCounts::default());
        let (handle, sampler) = reader(&site, &site.store, 1.0).await;
        for n in 0..50 {
            ask(&handle, &query(n, true)).await;
        }
        let flat = handle.search(&[query(1, false)], Scope::At(1)).await;
        assert_eq!(flat.expect("searched").costs[0].segments_listed, 0);
        assert_eq!(sampler.counts(), RecallCounts::default());
    });
}

#[test]
fn should_compare_with_the_view_that_was_searched_and_not_with_a_newer_one() {
    run(async {
        let site = mixed_site(Metric::L2).await;
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let (handle, sampler) = reader(&site, &store, 1.0).await;
        let thorough = Search {
            effort: Some(1_000_000),
            ..query(1, false)
        };
        // Its rows are in memory afterwards, and its blocks are not.
        ask(&handle, &thorough).await;
        let first = settled(&sampler, |counts| counts.compared == 1).await;
        assert_eq!(first.sum, 1.0);
        let gate = Arc::new(Semaphore::new(0));
        let hold = Fault::Hold(gate.clone());
        faults.add(Rule::nth(Op::Ranges, "data.parquet", 1, hold));
        ask(&handle, &thorough).await;
        let end = Instant::now() + PATIENCE;
        while faults.fired() == 0 {
            assert!(Instant::now() < end, "nothing is read again");
            tokio::task::yield_now().await;
        }
        // All of the answer is overtaken by nearer rows, in memory and then committed.
        let next = handle.snapshot().next(0, 0);
        append_vectors(&handle, next..next + 20, |_| thorough.vector.clone()).await;
        handle.flush().await.expect("flushed");
        let overtaken = ask(&handle, &thorough).await;
        assert!(overtaken.hits[0].iter().all(|hit| hit.distance == 0.0));
        gate.add_permits(1);
        let counts = settled(&sampler, |counts| counts.compared == 2).await;
        assert_eq!(counts.sum, 2.0);
        assert_eq!(counts.dropped, 1, "one at a time");
    });
}

#[test]
fn should_count_a_comparison_that_could_not_read() {
    run(async {
        let site = mixed_site(Metric::L2).await;
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let (handle, sampler) = reader(&site, &store, 1.0).await;
        ask(&handle, &query(1, false)).await;
        settled(&sampler, |counts| counts.compared == 1).await;
        faults.add(Rule::every(Op::Ranges, "data.parquet", Fault::Refuse));
        ask(&handle, &query(1, false)).await;
        let counts = settled(&sampler, |counts| counts.failed == 1).await;
        assert_eq!(counts.compared, 1);
    });
}

#[test]
fn should_leave_the_cache_to_searches() {
    run(async {
        let site = mixed_site(Metric::L2).await;
        let (plain, _) = reader(&site, &site.store, 0.0).await;
        ask(&plain, &query(1, false)).await;
        let (handle, sampler) = reader(&site, &site.store, 1.0).await;
        ask(&handle, &query(1, false)).await;
        settled(&sampler, |counts| counts.compared == 1).await;
        let held = |handle: &Incarnation| handle.context.cache.stats().bytes;
        assert_eq!(held(&handle), held(&plain));
    });
}
