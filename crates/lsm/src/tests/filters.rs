//! Filters through the whole engine: memtables, segments with and without lists, shadows.
//! The model checks that the truth stays true with filters; here are recall, plans and reads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use vexlake_distance::Metric;

use super::lists::{CLUSTERS, append, query, site, train, vector};
use crate::testing::*;
use crate::{Answers, Ended, Filter, Incarnation, Policy, Scope, Search};

/// Rows of the grown collection, and of the part of it that is committed.
const ROWS: u64 = 9000;
const COMMITTED: u64 = 7000;

fn attrs(n: u64) -> String {
    let topic = n % CLUSTERS;
    format!(
        r#"{{"n":{n},"name":"row {n}","topic":"t{topic}","flags":[{},"x"],"deep":{{"n":1}}}}"#,
        n % 3
    )
}

async fn append_rows(writer: &Incarnation, rows: Range<u64>) {
    let upsert = |n: u64| {
        let floats = vector(n).iter().flat_map(|x| x.to_le_bytes()).collect();
        let key = format!("k{n}").into_bytes();
        let attrs = (n % 1000 != 999).then(|| attrs(n).into_bytes());
        [Some(key), Some(floats), None, attrs, None, None, None]
    };
    append(writer, rows, upsert).await;
}

/// Six segments with lists, one without, and two thousand rows in memory.
async fn grown(metric: Metric) -> (Site, Arc<Incarnation>) {
    let site = site(metric).await;
    let writer = site.open("ingest").await;
    for part in 0..4 {
        append_rows(&writer, 1000 * part..1000 * (part + 1)).await;
        writer.flush().await.expect("flushed");
    }
    assert_eq!(train(&writer).await, Ended::Done);
    let policy = Policy {
        fan_in: 100,
        ..Policy::default()
    };
    for spec in writer.plan(&policy).iter().skip(1) {
        run_spec(&writer, spec).await.expect("rewritten");
    }
    for part in 4..7 {
        append_rows(&writer, 1000 * part..1000 * (part + 1)).await;
        writer.flush().await.expect("flushed");
    }
    append_rows(&writer, COMMITTED..ROWS).await;
    (site, writer)
}

fn filtered(n: u64, text: &str, truth: bool) -> Search {
    Search {
        filter: Some(Filter::parse(text).expect("an expression")),
        ..query(n, truth)
    }
}

async fn ask(handle: &Incarnation, group: &[Search]) -> Answers {
    let answers = handle.search(group, Scope::Fresh).await;
    answers.expect("searched")
}

fn number(id: &str) -> u64 {
    id[1..].parse().expect("k and a number")
}

fn ids(answers: &Answers, place: usize) -> BTreeSet<&str> {
    let hits = answers.hits[place].iter();
    hits.map(|hit| hit.id.as_str()).collect()
}

/// A filter, and whether a row passes it.
type Case = (&'static str, fn(u64) -> bool);

const CASES: [Case; 7] = [
    (".n % 2 == 0", |n| n % 2 == 0),
    (".n < 900", |n| n < 900),
    (".n >= 3000 and .n < 3090", |n| (3000..3090).contains(&n)),
    (".n in [1, 5001, 8500, 8501]", |n| {
        [1, 5001, 8500, 8501].contains(&n)
    }),
    (".topic == 't7'", |n| n % CLUSTERS == 7),
    ("not (.topic in ['t7', 't9']) and 'x' in .flags", |n| {
        ![7, 9].contains(&(n % CLUSTERS))
    }),
    (".name == 'row 4321' or 2 in .flags", |n| {
        n == 4321 || n % 3 == 2
    }),
];

#[test]
fn should_keep_recall_whatever_a_filter_lets_pass() {
    run(async {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let (_site, handle) = grown(metric).await;
            for (text, passes) in CASES {
                let passing = (0..ROWS).filter(|n| n % 1000 != 999 && passes(*n)).count();
                let (mut found, mut all) = (0, 0);
                for n in 0..25 {
                    let group = [filtered(n, text, true), filtered(n, text, false)];
                    let answers = ask(&handle, &group).await;
                    let truth = ids(&answers, 0);
                    assert_eq!(truth.len(), passing.min(10), "{text}");
                    assert_eq!(ids(&answers, 1).len(), truth.len(), "{text}");
                    for id in truth.iter().chain(&ids(&answers, 1)) {
                        assert!(passes(number(id)), "{id} does not pass {text}");
                    }
                    found += truth.intersection(&ids(&answers, 1)).count();
                    all += truth.len();
                }
                let recall = found as f64 / all as f64;
                assert!(recall >= 0.98, "{metric:?} {text}: recall {recall}");
            }
        }
    });
}

#[test]
fn should_know_how_many_rows_pass_and_look_at_no_others() {
    run(async {
        let (_site, handle) = grown(Metric::Cosine).await;
        let memtable = ROWS - COMMITTED;
        for (text, passes) in CASES {
            let passed = (0..COMMITTED)
                .filter(|n| n % 1000 != 999 && passes(*n))
                .count() as u64;
            let group = [filtered(3, text, true), filtered(3, text, false)];
            let [truth, likely] = ask(&handle, &group).await.costs[..] else {
                panic!("two costs");
            };
            assert_eq!(
                (truth.rows_passed, likely.rows_passed),
                (passed, passed),
                "{text}"
            );
            assert_eq!(truth.rows_scanned, passed + memtable, "{text}");
            assert!(
                likely.rows_scanned <= passed + memtable,
                "{text}: {likely:?}"
            );
        }
        let group = [
            filtered(3, ".n == 5001", false),
            filtered(3, ".n < 0", false),
            query(3, false),
        ];
        let costs = ask(&handle, &group).await.costs;
        // Of so few rows exact keys are computed, and no code is looked at.
        assert_eq!(
            (costs[0].rows_passed, costs[0].lists, costs[0].rows_reranked),
            (1, 0, 1)
        );
        assert_eq!((costs[0].segments_listed, costs[0].segments_pruned), (1, 6));
        assert_eq!((costs[1].segments_listed, costs[1].segments_pruned), (0, 7));
        assert_eq!((costs[2].segments_listed, costs[2].rows_passed), (6, 0));
        assert!(costs[2].lists > 0);
    });
}

#[test]
fn should_lay_shadows_over_what_was_kept_of_a_filter() {
    run(async {
        let (_site, handle) = grown(Metric::L2).await;
        let text = ".topic == 't3'";
        let before = ask(&handle, &[filtered(2, text, true)]).await;
        let first = before.hits[0][0].id.clone();
        // The row loses its attributes: in memory first, then committed.
        let floats: Vec<u8> = vector(number(&first))
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let key = first.clone().into_bytes();
        let upsert = |_| {
            [
                Some(key.clone()),
                Some(floats.clone()),
                None,
                None,
                None,
                None,
                None,
            ]
        };
        append(&handle, ROWS..ROWS + 1, upsert).await;
        for _ in 0..2 {
            let all = Search {
                k: 10_000,
                ..query(2, true)
            };
            let group = [filtered(2, text, true), filtered(2, text, false), all];
            let after = ask(&handle, &group).await;
            assert!(
                !ids(&after, 0).contains(first.as_str()),
                "the newer row does not pass"
            );
            assert_eq!(ids(&after, 0), ids(&after, 1));
            assert_eq!(after.hits[0].len(), 10, "the eleventh comes up");
            assert!(
                ids(&after, 2).contains(first.as_str()),
                "without a filter it is there"
            );
            handle.flush().await.expect("flushed");
        }
    });
}

#[test]
fn should_read_the_columns_that_a_filter_names_once() {
    run(async {
        let (site, writer) = grown(Metric::Cosine).await;
        writer.flush().await.expect("flushed");
        drop(writer);
        let reader = site.open_cached().await;
        let text = ".n % 2 == 0 and .topic != 't1'";
        let cold = ask(&reader, &[filtered(5, text, false)]).await;
        assert_eq!(
            cold.rounds, 5,
            "columns, lists, vectors, blocks without lists, ids"
        );
        let warm = ask(&reader, &[filtered(5, text, false)]).await;
        assert_eq!((warm.rounds, warm.reads.requests), (0, 0));
        assert_eq!(warm.hits[0], cold.hits[0]);
        // Another filter over the same columns, which lets the same rows pass.
        let other = ".topic != 't1' and .n % 2 == 0";
        let other = ask(&reader, &[filtered(5, other, false)]).await;
        assert_eq!(other.reads.requests, 0, "{:?}", other.reads);
        assert_eq!(other.hits[0], cold.hits[0]);
    });
}
