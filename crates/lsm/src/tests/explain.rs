//! What an explained search says it took, against the store's counters and against a lake
//! that leaves no choice.

use std::sync::Arc;

use vexlake_distance::Metric;
use vexlake_store::Usage;

use super::lists::{append, append_rows, query, site, train};
use crate::testing::*;
use crate::{Answers, Ended, Incarnation, Scope, Search};

const ROWS: u64 = 3000;
const DELETES: u64 = 7;
pub(super) const IN_MEMORY: u64 = 5;

/// Two segments without lists, one with, and one of deletes alone.
pub(super) async fn mixed_site(metric: Metric) -> Site {
    let site = site(metric).await;
    let writer = site.open("ingest").await;
    for from in [0, 1000, 2000] {
        if from == 2000 {
            assert_eq!(train(&writer).await, Ended::Done);
        }
        append_rows(&writer, from..from + 1000).await;
        writer.flush().await.expect("flushed");
    }
    let delete = |n: u64| {
        let key = format!("k{}", n - ROWS).into_bytes();
        [Some(key), None, None, None, None, None, None]
    };
    append(&writer, ROWS..ROWS + DELETES, delete).await;
    writer.flush().await.expect("flushed");
    site
}

/// A reader of that, with rows in memory and nothing in the cache.
async fn mixed() -> (Site, Arc<Incarnation>) {
    let site = mixed_site(Metric::Cosine).await;
    let reader = site.open_cached().await;
    let next = ROWS + DELETES;
    append_rows(&reader, next..next + IN_MEMORY).await;
    (site, reader)
}

async fn explain(handle: &Incarnation, query: &Search) -> Answers {
    let answers = handle.explain(query, Scope::Fresh).await;
    answers.expect("searched")
}

/// Range reads and bytes since an earlier reading, and that nothing else was asked.
fn asked_since(site: &Site, before: Usage) -> (u64, u64) {
    let now = site.store.usage();
    assert_eq!((now.gets, now.sizes), (before.gets, before.sizes));
    (now.ranges - before.ranges, now.bytes_in - before.bytes_in)
}

#[test]
fn should_count_segments_and_rows_by_how_they_were_searched() {
    run(async {
        let (_site, reader) = mixed().await;
        let answers = explain(&reader, &query(1, false)).await;
        let cost = answers.costs[0];
        assert_eq!((cost.segments_listed, cost.centroids), (1, 1));
        assert_eq!((cost.segments_exact, cost.segments_pruned), (2, 1));
        assert_eq!(cost.memtable_rows, IN_MEMORY);
        assert!(cost.lists > 0 && cost.rows_reranked > 0 && cost.waves > 0);
        let exact = 2000 + IN_MEMORY;
        assert!(
            (exact + 1..exact + 1000).contains(&cost.rows_scanned),
            "{cost:?}"
        );

        let all = explain(&reader, &query(1, true)).await.costs[0];
        assert_eq!((all.segments_listed, all.centroids, all.lists), (0, 0, 0));
        assert_eq!((all.segments_exact, all.segments_pruned), (3, 1));
        assert_eq!(all.rows_scanned, ROWS + IN_MEMORY);
        assert_eq!((all.rows_reranked, all.waves), (0, 0));

        let committed = reader.explain(&query(1, true), Scope::Snapshot).await;
        let committed = committed.expect("searched").costs[0];
        assert_eq!((committed.memtable_rows, committed.rows_scanned), (0, ROWS));
    });
}

#[test]
fn should_count_the_requests_that_the_store_counts_attributes_and_checksums_included() {
    run(async {
        for truth in [false, true] {
            let (site, reader) = mixed().await;
            let asked = Search {
                with_attrs: true,
                ..query(2, truth)
            };
            let before = site.store.usage();
            let cold = explain(&reader, &asked).await;
            let (requests, bytes) = asked_since(&site, before);
            assert!(cold.hits[0].iter().all(|hit| hit.attrs.is_some()));
            assert_eq!(cold.reads.requests, requests, "truth {truth}");
            // The store receives the gaps between near ranges too.
            assert!(cold.reads.bytes <= bytes, "{} of {bytes}", cold.reads.bytes);
            assert!(
                cold.reads.bytes > bytes / 2,
                "{} of {bytes}",
                cold.reads.bytes
            );
            assert!(cold.reads.loaded > 0 && cold.rounds > 0);

            let bare = Search {
                with_attrs: false,
                ..asked
            };
            let before = site.store.usage();
            let warm = explain(&reader, &bare).await;
            assert_eq!(asked_since(&site, before), (0, 0));
            assert_eq!(
                (warm.rounds, warm.reads.requests, warm.reads.loaded),
                (0, 0, 0)
            );
            assert!(warm.reads.held > 0);
        }
    });
}

#[test]
fn should_time_the_stages_of_an_explained_search_alone() {
    run(async {
        let (_site, reader) = mixed().await;
        let searched = reader.search(&[query(3, false)], Scope::Fresh).await;
        let searched = searched.expect("searched");
        assert_eq!(searched.stages, None);
        let explained = explain(&reader, &query(3, false)).await;
        assert_eq!(explained.hits, searched.hits);
        let stages = explained.stages.expect("timed");
        let sum =
            stages.feed + stages.lists + stages.codes + stages.rerank + stages.exact + stages.names;
        // Stages follow each other, so none is counted twice.
        assert!(0 < sum && sum <= stages.total, "{stages:?}");
        // Two thousand rows are compared, and that takes some microseconds.
        assert!(stages.exact > 0, "{stages:?}");
        let truth = explain(&reader, &query(3, true))
            .await
            .stages
            .expect("timed");
        assert_eq!((truth.codes, truth.rerank), (0, 0), "{truth:?}");
    });
}
