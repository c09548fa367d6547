//! Collections with centroids, through the whole engine: recall, rounds of reads, merges,
//! damage, deaths and garbage. That the truth stays true is the model's to check.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_segment::rebuild_index;

use crate::append::{Batch, OnBad};
use crate::testing::*;
use crate::{Answers, Ended, ErrorKind, GcOptions, Incarnation, Policy, Schema, Scope, Search};

const DIM: usize = 48;
pub(super) const CLUSTERS: u64 = 40;
pub(super) const LISTS: u32 = 60;
const NO_GRACE: GcOptions = GcOptions {
    grace_ms: 0,
    dry_run: false,
};

fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Row `n`: near one of the clusters' centres.
pub(super) fn vector(n: u64) -> Vec<f32> {
    let mut centre = (n % CLUSTERS + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut own = (n + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let mut next = || random(&mut centre) + 0.8 * random(&mut own);
    (0..DIM).map(|_| next()).collect()
}

pub(super) async fn site(metric: Metric) -> Site {
    let schema = Schema {
        dim: DIM as u32,
        ..schema(metric)
    };
    Site::of(schema, sources(1)).await
}

/// Appends rows whose offsets are their numbers, and flushes them as one segment.
pub(super) async fn flush_rows(writer: &Incarnation, rows: Range<u64>) {
    append_rows(writer, rows).await;
    writer.flush().await.expect("flushed");
}

/// Appends rows whose offsets are their numbers, with these as attributes.
pub(super) async fn append_rows(writer: &Incarnation, rows: Range<u64>) {
    append_vectors(writer, rows, vector).await;
}

/// As [`append_rows`] with vectors of the test's own.
pub(super) async fn append_vectors(
    writer: &Incarnation,
    rows: Range<u64>,
    vector_of: impl Fn(u64) -> Vec<f32>,
) {
    let upsert = |n: u64| {
        let floats = vector_of(n).iter().flat_map(|x| x.to_le_bytes()).collect();
        let key = format!("k{n}").into_bytes();
        let attrs = format!("{{\"n\":{n}}}").into_bytes();
        [Some(key), Some(floats), None, Some(attrs), None, None, None]
    };
    append(writer, rows, upsert).await;
}

/// Appends one record per offset.
pub(super) async fn append(
    writer: &Incarnation,
    rows: Range<u64>,
    spans_of: impl Fn(u64) -> [Option<Vec<u8>>; 7],
) {
    let mut log = TableWriter::default();
    for n in rows.clone() {
        log.entry(n as i64, n as i64, spans_of(n));
    }
    let buffers = [log.buffer.as_slice()];
    let batch = Batch {
        source: 0,
        partition: 0,
        from: rows.start,
        to: rows.end,
        buffers: &buffers,
        table: &log.table,
        format: None,
        on_bad: OnBad::Fail,
    };
    writer.append(&batch).await.expect("appended");
}

pub(super) async fn train(handle: &Incarnation) -> Ended {
    let spec = crate::Spec {
        lists: LISTS,
        ..training_of(handle)
    };
    run_spec(handle, &spec).await.expect("trained").status
}

/// Segments without lists by the centroids in use.
pub(super) fn unlisted(handle: &Incarnation) -> usize {
    let snapshot = handle.snapshot();
    let current = snapshot.state().centroids.current;
    let metas = snapshot.segments.values().map(|view| view.reader.meta());
    metas.filter(|meta| meta.centroids != current).count()
}

/// A collection whose every segment has lists: some by flushes, some by rewrites.
pub(super) async fn listed(metric: Metric) -> (Site, Arc<Incarnation>) {
    let site = site(metric).await;
    let writer = site.open("ingest").await;
    for part in 0..3 {
        flush_rows(&writer, 1000 * part..1000 * (part + 1)).await;
    }
    assert_eq!(train(&writer).await, Ended::Done);
    assert_eq!(unlisted(&writer), 3);
    flush_rows(&writer, 3000..4000).await;
    assert_eq!(unlisted(&writer), 3, "a flush makes lists");
    let policy = Policy {
        fan_in: 100,
        ..Policy::default()
    };
    for spec in writer.plan(&policy) {
        assert!(spec.reason.starts_with("lists"), "{}", spec.reason);
        run_spec(&writer, &spec).await.expect("rewritten");
    }
    assert_eq!((unlisted(&writer), writer.plan(&policy).len()), (0, 0));
    (site, writer)
}

pub(super) fn query(n: u64, truth: bool) -> Search {
    Search {
        truth,
        ..Search::new(vector(1_000_000 + n), 10)
    }
}

pub(super) async fn ask(handle: &Incarnation, query: Search) -> Answers {
    let answers = handle.search(&[query], Scope::Fresh).await;
    answers.expect("searched")
}

/// Share of the true hits that default searches find.
async fn recall(handle: &Incarnation, queries: u64) -> f64 {
    let (mut found, mut all) = (0, 0);
    for n in 0..queries {
        let group = [query(n, true), query(n, false)];
        let answers = handle.search(&group, Scope::Fresh).await.expect("searched");
        let ids = |place: usize| -> BTreeSet<&str> {
            let hits = answers.hits[place].iter();
            hits.map(|hit| hit.id.as_str()).collect()
        };
        assert_eq!(answers.hits[1].len(), 10);
        found += ids(0).intersection(&ids(1)).count();
        all += 10;
        assert_eq!(answers.costs[0].lists, 0, "the truth needs no list");
        assert!(answers.costs[1].lists > 0);
    }
    found as f64 / f64::from(all)
}

pub(super) async fn assert_recall(handle: &Incarnation, queries: u64, least: f64) {
    let found = recall(handle, queries).await;
    assert!(found >= least, "recall {found}");
}

#[test]
fn should_find_the_nearest_through_lists_and_look_at_few_rows() {
    run(async {
        for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
            let (_site, writer) = listed(metric).await;
            let found = recall(&writer, 60).await;
            assert!(found >= 0.98, "{metric:?}: recall {found}");
            let truth = ask(&writer, query(7, true)).await.costs[0];
            let cost = ask(&writer, query(7, false)).await.costs[0];
            assert_eq!(truth.rows_scanned, 4000);
            assert!(cost.rows_scanned < 2000, "{metric:?}: {cost:?}");
            assert!((10..1000).contains(&cost.rows_reranked), "{cost:?}");
        }
    });
}

#[test]
fn should_look_at_more_for_more_effort_and_at_all_for_many_results() {
    run(async {
        let (_site, writer) = listed(Metric::L2).await;
        let mut scanned = vec![];
        for effort in [1, 20, 100, 400, 1_000_000] {
            let asked = Search {
                effort: Some(effort),
                ..query(3, false)
            };
            scanned.push(ask(&writer, asked).await.costs[0].rows_scanned);
        }
        assert!(scanned.is_sorted(), "{scanned:?}");
        assert!(scanned[0] < scanned[2] && scanned[4] == 4000, "{scanned:?}");
        let all = Search {
            k: 10_000,
            ..query(3, false)
        };
        let answers = ask(&writer, all.clone()).await;
        let truth = ask(&writer, Search { truth: true, ..all }).await;
        assert_eq!(answers.hits[0].len(), 4000);
        let distances = |answers: &Answers| -> Vec<f32> {
            answers.hits[0].iter().map(|hit| hit.distance).collect()
        };
        // Row kernels may round the last bit another way than single rows.
        let pairs = distances(&answers).into_iter().zip(distances(&truth));
        for (found, truth) in pairs {
            assert!((found - truth).abs() < 1e-5, "{found}, in truth {truth}");
        }
    });
}

#[test]
fn should_answer_a_cold_search_in_three_rounds_and_a_warm_one_in_none() {
    run(async {
        let (site, writer) = listed(Metric::Cosine).await;
        drop(writer);
        let reader = site.open_cached().await;
        let before = site.store.usage();
        let cold = ask(&reader, query(5, false)).await;
        let after = site.store.usage();
        assert_eq!(cold.rounds, 3, "lists, vectors, ids");
        assert_eq!(after.ranges - before.ranges, cold.reads.requests);
        assert_eq!(after.gets, before.gets);
        // Four segments, at most two files each in a round.
        assert!(cold.reads.requests <= 4 * 2 * 3, "{:?}", cold.reads);
        let all = 4000 * 4 * DIM as u64;
        assert!(cold.reads.bytes < all / 2, "{:?} of {all}", cold.reads);
        let warm = ask(&reader, query(5, false)).await;
        assert_eq!((warm.rounds, warm.reads.requests), (0, 0));
        assert!(warm.reads.held > 0);
        assert_eq!(warm.hits[0], cold.hits[0]);
    });
}

#[test]
fn should_merge_lists_of_one_version_into_what_building_anew_gives() {
    run(async {
        let (site, writer) = listed(Metric::Cosine).await;
        let merged = merge(&writer, &spec_of(&writer, None)).await;
        let id = merged.expect("merged").segments[0];
        let snapshot = writer.snapshot();
        let view = &snapshot.segments[&id];
        let centroids = snapshot.current_centroids().expect("trained");
        let head = view.reader.lists().expect("lists");
        assert!(head.is_in_list_order() && head.rows() == 4000);
        let store = site.store.scoped(&Incarnation::prefix(site.id));
        let stored = store.get(&format!("seg/{id}/index.vxi")).await;
        let schema = snapshot.state().schema.segment();
        let files = store.scoped(&format!("seg/{id}"));
        let meta = view.reader.meta();
        let anew = rebuild_index(&files, meta, &schema, Some(centroids)).await;
        assert_eq!(stored.expect("the index"), anew.expect("derived"));
        assert_recall(&writer, 30, 0.98).await;
    });
}

#[test]
fn should_merge_segments_of_other_centroids_and_of_none_under_a_small_memory() {
    run(async {
        let (site, writer) = listed(Metric::L2).await;
        site.tick(5);
        assert_eq!(train(&writer).await, Ended::Done);
        flush_rows(&writer, 4000..4500).await;
        // Two versions are searched side by side.
        assert_eq!(unlisted(&writer), 4);
        assert_recall(&writer, 30, 0.98).await;
        let spec = spec_of(&writer, None);
        let options = crate::MergeOptions {
            memory_bytes_max: 2 << 20,
            ..Default::default()
        };
        let never = std::sync::atomic::AtomicBool::new(false);
        let merged = writer.run(&spec, &options, &never, &|_| {}).await;
        assert_eq!(merged.expect("merged").rows, 4500);
        assert_eq!(unlisted(&writer), 0);
        assert_recall(&writer, 30, 0.98).await;
        let truth = ask(&writer, query(1, true)).await;
        assert_eq!(truth.costs[0].rows_scanned, 4500);
    });
}

/// Where in `index.vxi` the lists of a segment lie: behind all other lazy sections.
async fn flip_in_lists(site: &Site, handle: &Incarnation) -> Ulid {
    let snapshot = handle.snapshot();
    let (id, view) = snapshot.segments.first_key_value().expect("a segment");
    let head = view.reader.lists().expect("lists");
    let end = view
        .reader
        .meta()
        .file("index.vxi")
        .expect("an index")
        .bytes
        - view.reader.meta().index_head_bytes;
    let lists = head.bytes() - head.head_bytes();
    let path = site
        .path()
        .join(format!("lake/c/{}/seg/{id}/index.vxi", site.id));
    let mut bytes = std::fs::read(&path).expect("reads");
    for at in (end - lists..end).step_by(100) {
        bytes[at as usize] ^= 0x10;
    }
    std::fs::write(&path, bytes).expect("writes");
    *id
}

#[test]
fn should_derive_damaged_lists_again_and_name_the_damage_where_it_cannot() {
    run(async {
        let (site, writer) = listed(Metric::Cosine).await;
        let expected = ask(&writer, query(2, false)).await.hits;
        let id = flip_in_lists(&site, &writer).await;
        let reader = site.open_cached().await;
        assert_eq!(ask(&reader, query(2, false)).await.hits, expected);
        assert!(reader.snapshot().segments[&id].reader.is_rebuilt());

        let data = format!("lake/c/{}/seg/{id}/data.parquet", site.id);
        let path = site.path().join(data);
        let mut bytes = std::fs::read(&path).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        let reader = site.open_cached().await;
        let error = reader.search(&[query(2, false)], Scope::Fresh).await;
        let error = error.expect_err("nothing to derive it from");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    });
}

#[test]
fn should_refuse_damaged_or_lost_centroids() {
    run(async {
        let (site, writer) = listed(Metric::Cosine).await;
        drop(writer);
        let key = site.list("centroids").await.pop().expect("an object");
        let path = site.path().join(format!("lake/c/{}/{key}", site.id));
        let good = std::fs::read(&path).expect("reads");
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).expect("writes");
            let opened = site.open_with(&site.store, "query", crash::none()).await;
            let error = opened.map(drop).expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
        }
        std::fs::remove_file(&path).expect("removes");
        let opened = site.open_with(&site.store, "query", crash::none()).await;
        let error = opened.map(drop).expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    });
}

#[test]
fn should_survive_a_death_at_every_point_of_a_training() {
    run(async {
        for (point, committed) in [
            ("train:uploaded", false),
            (crash::COMMIT_BEFORE_CREATE, false),
            (crash::COMMIT_AFTER_CREATE, true),
            ("train:committed", true),
        ] {
            let site = site(Metric::L2).await;
            let writer = site.open("ingest").await;
            flush_rows(&writer, 0..600).await;
            drop(writer);
            let opened = site
                .open_with(&site.store, "compactor", crash_at(point, 1))
                .await;
            let worker = opened.expect("opened");
            let died = tokio::spawn(async move { train(&worker).await });
            assert!(died.await.expect_err("dies").is_panic(), "at {point}");
            let reopened = site.open("ingest").await;
            let current = reopened.snapshot().state().centroids.current;
            assert_eq!(current.is_some(), committed, "at {point}");
            assert_eq!(site.list("centroids").await.len(), 1);
            site.tick(5);
            if !committed {
                assert_eq!(train(&reopened).await, Ended::Done);
            }
            flush_rows(&reopened, 600..900).await;
            assert_recall(&reopened, 5, 0.9).await;
            site.tick(5);
            let collected = reopened.collect_garbage(&NO_GRACE).await;
            collected.expect("collected");
            assert_eq!(site.list("centroids").await.len(), 1, "at {point}");
            assert_recall(&*site.open("query").await, 5, 0.9).await;
        }
    });
}

#[test]
fn should_end_a_training_that_another_one_overtook_as_superseded() {
    run(async {
        let site = site(Metric::L2).await;
        let first = site.open("compactor").await;
        flush_rows(&first, 0..300).await;
        let (hook, gate) = Gate::at("train:uploaded");
        let late = site
            .open_with(&site.store, "late", hook)
            .await
            .expect("opened");
        let task = tokio::spawn(async move { train(&late).await });
        gate.wait();
        assert_eq!(train(&first).await, Ended::Done);
        let version = first.snapshot().version();
        gate.open();
        assert_eq!(task.await.expect("no panic"), Ended::Superseded);
        assert_eq!(first.follow().await.expect("followed").version(), version);
    });
}

#[test]
fn should_keep_centroids_as_long_as_a_readable_segment_needs_them() {
    run(async {
        let (site, writer) = listed(Metric::L2).await;
        site.tick(5);
        let old = writer
            .snapshot()
            .state()
            .centroids
            .current
            .expect("trained");
        assert_eq!(train(&writer).await, Ended::Done);
        site.tick(5);
        writer.collect_garbage(&NO_GRACE).await.expect("collected");
        let live = |handle: &Incarnation| -> Vec<Ulid> {
            let snapshot = handle.snapshot();
            snapshot.state().centroids.live.keys().copied().collect()
        };
        assert_eq!(live(&writer).len(), 2, "its segments are live");
        let pinned = writer.snapshot().version();
        writer.pin("old", pinned).await.expect("pinned");
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        site.tick(5);
        writer.collect_garbage(&NO_GRACE).await.expect("collected");
        assert!(!live(&writer).contains(&old), "nothing new may use it");
        assert_eq!(site.list("centroids").await.len(), 2, "a pin holds it");
        let then = writer.search(&[query(1, false)], Scope::At(pinned)).await;
        assert!(then.expect("searched").costs[0].lists > 0);
        writer.unpin("old", pinned).await.expect("unpinned");
        site.tick(5);
        writer.collect_garbage(&NO_GRACE).await.expect("collected");
        site.tick(5);
        writer.collect_garbage(&NO_GRACE).await.expect("collected");
        assert_eq!(site.list("centroids").await.len(), 1);
        assert_recall(&*site.open("query").await, 10, 0.95).await;
    });
}
