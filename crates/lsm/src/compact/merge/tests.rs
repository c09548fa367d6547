//! Merges against flushes and other merges that come between, and their bounds.

mod deletes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use vexlake_distance::Metric;
use vexlake_manifest::crash;

use super::*;
use crate::testing::*;
use crate::{ErrorKind, GcOptions};

const COSINE: Metric = Metric::Cosine;

/// Three committed segments over two partitions, some records already beaten.
async fn begun() -> (Site, Log, Arc<Incarnation>) {
    let (site, mut log) = (Site::new(COSINE, 2).await, Log::default());
    let writer = site.open("ingest").await;
    for round in 0..3i64 {
        for number in 0..6u32 {
            log.upsert(
                number % 2,
                &format!("k{}", i64::from(number) + round),
                round,
                u64::from(number),
            );
        }
        log.put(0, "k0", round, Change::Delete);
        for partition in 0..2 {
            catch_up(&writer, &log, partition).await;
        }
        writer.flush().await.expect("flushed");
        site.tick(5);
    }
    (site, log, writer)
}

async fn held_at(
    site: &Site,
    point: &'static str,
) -> (
    Arc<Incarnation>,
    tokio::task::JoinHandle<Result<Merged>>,
    Gate,
) {
    let (hook, gate) = Gate::at(point);
    let worker = site
        .open_with(&site.store, "compactor", hook)
        .await
        .expect("opened");
    let task = tokio::spawn({
        let worker = worker.clone();
        async move { merge(&worker, &spec_of(&worker, None)).await }
    });
    gate.wait();
    (worker, task, gate)
}

#[test]
fn should_move_shadows_that_appear_while_it_runs_to_its_output() {
    run(async {
        for point in ["compact:uploaded", crash::COMMIT_BEFORE_CREATE] {
            let (site, mut log, writer) = begun().await;
            let before = writer.snapshot().state().entries();
            let (worker, task, gate) = held_at(&site, point).await;
            // Two updates, a delete, a delete of a deleted key, a new key.
            log.upsert(1, "k3", 50, 90);
            log.put(0, "k2", 50, Change::Delete);
            log.put(0, "k0", 51, Change::Delete);
            log.upsert(1, "new", 50, 91);
            log.upsert(1, "k5", 50, 92);
            for partition in 0..2 {
                catch_up(&writer, &log, partition).await;
                writer.flush().await.expect("flushed");
            }
            gate.open();
            let merged = task.await.expect("no panic").expect("merged");
            assert_eq!(
                (merged.status, merged.segments.len()),
                (Ended::Done, 1),
                "at {point}"
            );
            assert_eq!(merged.rows + merged.dropped, before);
            let output = &worker.snapshot().segments[&merged.segments[0]];
            assert_eq!(
                output.shadow.len(),
                4,
                "k3, k5, k2 and the delete of k0 were hidden meanwhile"
            );
            check(&worker, &log, COSINE).await;
            writer.follow().await.expect("followed");
            check(&writer, &log, COSINE).await;
            verify(&writer, &log).await;
        }
    });
}

#[test]
fn should_end_as_superseded_when_another_merge_took_an_input() {
    run(async {
        for point in ["compact:uploaded", crash::COMMIT_BEFORE_CREATE] {
            let (site, log, writer) = begun().await;
            let (worker, task, gate) = held_at(&site, point).await;
            let one = writer.snapshot().segments.keys().next().copied();
            merge(&writer, &spec_of(&writer, Some(one.into_iter().collect())))
                .await
                .expect("merged");
            gate.open();
            let merged = task.await.expect("no panic").expect("no error");
            assert_eq!(
                (merged.status, merged.segments.len()),
                (Ended::Superseded, 0),
                "at {point}"
            );
            check(&worker, &log, COSINE).await;
            verify(&worker, &log).await;
            site.tick(5);
            let options = GcOptions {
                grace_ms: 0,
                dry_run: false,
            };
            writer.collect_garbage(&options).await.expect("collected");
            let live = writer.snapshot().segments.len();
            let data = site
                .list("seg")
                .await
                .into_iter()
                .filter(|key| key.ends_with("data.parquet"))
                .count();
            assert_eq!(data, live, "the useless output was collected");
        }
    });
}

#[test]
fn should_end_as_superseded_when_its_inputs_are_gone_or_unknown() {
    run(async {
        let (site, log, writer) = begun().await;
        let spec = spec_of(&writer, None);
        assert_eq!(
            merge(&writer, &spec).await.expect("merged").status,
            Ended::Done
        );
        assert_eq!(
            merge(&writer, &spec).await.expect("no error").status,
            Ended::Superseded
        );
        let stale = site.open("compactor").await;
        let version = writer.snapshot().version();
        for inputs in [vec![Ulid::from_parts(1, 1)], vec![]] {
            let merged = merge(&stale, &spec_of(&writer, Some(inputs))).await;
            assert_eq!(merged.expect("no error").status, Ended::Superseded);
        }
        assert_eq!(stale.snapshot().version(), version, "nothing is committed");
        check(&writer, &log, COSINE).await;
    });
}

#[test]
fn should_end_as_superseded_when_its_inputs_are_swept_under_its_reads() {
    run(async {
        let (site, log, writer) = begun().await;
        let worker = site.open("compactor").await;
        let spec = spec_of(&worker, None);
        let (hook, gate) = Gate::at("batch");
        let merging = tokio::spawn({
            let (worker, spec) = (worker.clone(), spec.clone());
            let progress = move |_: Progress| hook("batch");
            async move {
                worker
                    .merge(
                        &spec,
                        &MergeOptions::default(),
                        &AtomicBool::new(false),
                        &progress,
                    )
                    .await
            }
        });
        gate.wait();
        merge(&writer, &spec).await.expect("merged");
        site.tick(5);
        writer
            .collect_garbage(&GcOptions {
                grace_ms: 0,
                dry_run: false,
            })
            .await
            .expect("collected");
        gate.open();
        let merged = merging.await.expect("no panic");
        assert_eq!(merged.expect("no error").status, Ended::Superseded);
        check(&worker, &log, COSINE).await;
    });
}

/// Marks with no grace, long after `site`'s newest commit.
async fn mark(site: &Site, other: &Incarnation) {
    site.tick(10);
    other.pin("later", 0).await.expect("pinned");
    site.tick(10);
    let options = GcOptions {
        grace_ms: 0,
        dry_run: false,
    };
    other.collect_garbage(&options).await.expect("collected");
}

#[test]
fn should_commit_a_merge_that_takes_longer_than_the_grace() {
    run(async {
        let (site, log, writer) = begun().await;
        let (hook, gate) = Gate::at("batch");
        let worker = site.open("compactor").await;
        let merging = tokio::spawn({
            let (worker, spec) = (worker.clone(), spec_of(&worker, None));
            let progress = move |_: Progress| hook("batch");
            let never = AtomicBool::new(false);
            async move {
                let options = MergeOptions::default();
                worker.merge(&spec, &options, &never, &progress).await
            }
        });
        gate.wait();
        mark(&site, &writer).await;
        gate.open();
        let merged = merging.await.expect("no panic").expect("merged");
        assert_eq!(merged.status, Ended::Done);
        check(&worker, &log, COSINE).await;
        verify(&worker, &log).await;
    });
}

#[test]
fn should_say_conflict_when_a_mark_overtakes_its_upload() {
    run(async {
        let (site, log, writer) = begun().await;
        let (worker, task, gate) = held_at(&site, "compact:uploaded").await;
        mark(&site, &writer).await;
        gate.open();
        let late = task.await.expect("no panic").expect_err("swept");
        assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");
        let again = merge(&worker, &spec_of(&worker, None)).await;
        assert_eq!(again.expect("merged").status, Ended::Done);
        check(&worker, &log, COSINE).await;
    });
}

#[test]
fn should_stop_between_batches_when_cancelled_and_change_nothing() {
    run(async {
        let (site, log, writer) = begun().await;
        let (cancelled, version) = (AtomicBool::new(false), writer.snapshot().version());
        let hook = |_: Progress| cancelled.store(true, Ordering::SeqCst);
        let merged = writer
            .merge(
                &spec_of(&writer, None),
                &MergeOptions::default(),
                &cancelled,
                &hook,
            )
            .await;
        assert_eq!(merged.expect("no error").status, Ended::Cancelled);
        assert_eq!(writer.snapshot().version(), version);
        let left = std::fs::read_dir(site.path().join("spool"))
            .expect("a spool")
            .count();
        assert_eq!(left, 0, "the spool is empty");
        check(&writer, &log, COSINE).await;
    });
}

#[test]
fn should_refuse_more_entries_than_its_memory_holds() {
    run(async {
        let (_site, _log, writer) = begun().await;
        let options = MergeOptions {
            memory_bytes_max: 1000,
            bytes_per_second_max: 0,
        };
        let refused = writer
            .merge(
                &spec_of(&writer, None),
                &options,
                &AtomicBool::new(false),
                &|_| {},
            )
            .await;
        assert_eq!(refused.expect_err("too many").kind(), ErrorKind::Invalid);
    });
}

#[test]
fn should_replace_wholly_shadowed_inputs_by_nothing() {
    run(async {
        let (site, mut log) = (Site::new(COSINE, 1).await, Log::default());
        let writer = site.open("ingest").await;
        for round in 0..2 {
            log.upsert(0, "a", round, 1);
            catch_up(&writer, &log, 0).await;
            writer.flush().await.expect("flushed");
        }
        let oldest = writer.snapshot().segments.keys().next().copied();
        let merged = merge(
            &writer,
            &spec_of(&writer, Some(oldest.into_iter().collect())),
        )
        .await
        .expect("merged");
        assert_eq!(
            (merged.status, merged.segments.len(), merged.dropped),
            (Ended::Done, 0, 1)
        );
        check(&writer, &log, COSINE).await;
        verify(&writer, &log).await;
    });
}
