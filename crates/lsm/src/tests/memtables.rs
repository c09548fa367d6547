//! Searches over memtables that grow: what a fixed view shows, and what codes find in them.
//! That the truth stays true is the model's to check.

use std::collections::BTreeSet;
use std::sync::Arc;

use vexlake_distance::Metric;

use super::lists::{append, append_rows, query, site, train, vector};
use crate::feed::FixedView;
use crate::testing::*;
use crate::{Answers, Ended, Incarnation, Scope, Search, View};

/// Rows that are committed and trained on.
const COMMITTED: u64 = 2000;
/// Rows after which a memtable of these vectors has two full chunks of 1,365.
const IN_MEMORY: u64 = 3000;

/// A collection with centroids and rows in memory.
async fn growing(metric: Metric) -> (Site, Arc<Incarnation>) {
    let site = site(metric).await;
    let writer = site.open("ingest").await;
    append_rows(&writer, 0..COMMITTED).await;
    writer.flush().await.expect("flushed");
    assert_eq!(train(&writer).await, Ended::Done);
    append_rows(&writer, COMMITTED..COMMITTED + IN_MEMORY).await;
    (site, writer)
}

async fn ask(handle: &Incarnation, query: Search) -> Answers {
    let answers = handle.search(&[query], Scope::Fresh).await;
    answers.expect("searched")
}

fn ids(answers: &Answers) -> BTreeSet<String> {
    answers.hits[0].iter().map(|hit| hit.id.clone()).collect()
}

/// Chunks of all memtables, and those of them that have codes.
fn chunks(view: &FixedView) -> (usize, usize) {
    let tables = view.tables.iter();
    let chunks = || tables.clone().flat_map(|table| table.rows.chunks());
    let coded = chunks().filter(|chunk| chunk.codes().is_some()).count();
    (chunks().count(), coded)
}

/// Ids of the rows that a fixed view shows in memtables.
fn shown(view: &FixedView) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    for table in &view.tables {
        for chunk in table.rows.chunks() {
            let rows = 0..chunk.norms().len() as u32;
            for row in rows.filter(|row| table.visible.contains(chunk.entry(*row))) {
                shown.insert(table.rows.id(chunk.first() + row).to_owned());
            }
        }
    }
    shown
}

#[test]
fn should_find_by_codes_what_an_exact_scan_finds_and_compare_few_rows() {
    run(async {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let (_site, writer) = growing(metric).await;
            assert_eq!(chunks(&writer.feed.read(View::fixed)), (3, 2));
            let (mut found, mut reranked) = (0, 0);
            for n in 0..50 {
                let near = ask(&writer, query(n, false)).await;
                let truth = ask(&writer, query(n, true)).await;
                assert_eq!(truth.costs[0].rows_reranked, 0);
                assert_eq!(near.costs[0].memtable_rows, IN_MEMORY);
                found += ids(&near).intersection(&ids(&truth)).count();
                reranked += near.costs[0].rows_reranked;
            }
            assert!(found >= 495, "{}: {found} of 500", metric.name());
            assert!(
                reranked < 50 * IN_MEMORY / 4,
                "{}: {reranked}",
                metric.name()
            );
        }
    });
}

#[test]
fn should_not_answer_what_was_deleted_or_overtaken_in_a_chunk_with_codes() {
    run(async {
        let (_site, writer) = growing(Metric::L2).await;
        let nearest: Vec<String> = ids(&ask(&writer, query(1, true)).await)
            .into_iter()
            .collect();
        let next = COMMITTED + IN_MEMORY;
        // Half of what is nearest is deleted, the other half moves far away.
        let change = |n: u64| {
            let key = nearest[(n - next) as usize].clone().into_bytes();
            let far: Vec<u8> = vector(n)
                .iter()
                .flat_map(|x| (x + 1e3).to_le_bytes())
                .collect();
            [
                Some(key),
                n.is_multiple_of(2).then_some(far),
                None,
                None,
                None,
                None,
                None,
            ]
        };
        append(&writer, next..next + nearest.len() as u64, change).await;
        let found = ask(&writer, query(1, false)).await;
        assert!(nearest.iter().all(|id| !ids(&found).contains(id)));
        let truth = ask(&writer, query(1, true)).await;
        assert_eq!(ids(&found), ids(&truth));
    });
}

#[test]
fn should_let_a_fixed_view_stay_what_it_was_while_the_feed_goes_on() {
    run(async {
        let (_site, writer) = growing(Metric::L2).await;
        let view = writer.feed.read(View::fixed);
        let before = shown(&view);
        assert_eq!(before.len() as u64, IN_MEMORY);
        let next = COMMITTED + IN_MEMORY;
        let delete = |n: u64| {
            let key = format!("k{}", n - IN_MEMORY).into_bytes();
            [Some(key), None, None, None, None, None, None]
        };
        append(&writer, next..next + 100, delete).await;
        append_rows(&writer, next + 100..next + 400).await;
        let now = shown(&writer.feed.read(View::fixed));
        assert_eq!(now.len() as u64, IN_MEMORY - 100 + 300);
        assert_eq!(shown(&view), before);
        writer.flush().await.expect("flushed");
        assert_eq!(shown(&writer.feed.read(View::fixed)), BTreeSet::new());
        assert_eq!(shown(&view), before);
    });
}

#[test]
fn should_scan_memtables_exactly_where_a_collection_has_no_centroids() {
    run(async {
        let site = site(Metric::Cosine).await;
        let writer = site.open("ingest").await;
        append_rows(&writer, 0..COMMITTED).await;
        assert_eq!(chunks(&writer.feed.read(View::fixed)), (2, 0));
        let (near, truth) = (query(1, false), query(1, true));
        assert_eq!(
            ask(&writer, near).await.hits,
            ask(&writer, truth).await.hits
        );
        // What was buffered before gets its codes with the first append after the training.
        writer.feed.seal(0).await;
        writer.flush_sealed().await.expect("flushed");
        append_rows(&writer, COMMITTED..COMMITTED + 1500).await;
        assert_eq!(train(&writer).await, Ended::Done);
        assert_eq!(chunks(&writer.feed.read(View::fixed)), (2, 0));
        append_rows(&writer, COMMITTED + 1500..COMMITTED + 1501).await;
        assert_eq!(chunks(&writer.feed.read(View::fixed)), (2, 1));
    });
}
