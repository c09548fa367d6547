//! Trainings against what comes between, and what they refuse. Recall and deaths are in
//! `tests/lists.rs`.

use std::sync::Arc;

use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_store::{Fault, Faults, Op, Rule};

use super::*;
use crate::testing::*;
use crate::{ErrorKind, GcOptions};

/// Two committed segments of 20 records each.
async fn begun(metric: Metric) -> (Site, Log, Arc<Incarnation>) {
    let (site, mut log) = (Site::new(metric, 1).await, Log::default());
    let writer = site.open("ingest").await;
    for round in 0..2 {
        for number in 0..20 {
            log.upsert(0, &format!("k{round}-{number}"), round, number);
        }
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        site.tick(5);
    }
    (site, log, writer)
}

#[test]
fn should_stand_although_it_cannot_be_shown() {
    run(async {
        let (site, log, writer) = begun(Metric::L2).await;
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let opened = site.open_with(&store, "compactor", crash::none()).await;
        let worker = opened.expect("opened");
        faults.add(Rule::every(Op::Get, "centroids/", Fault::FailBefore));
        let trained = run_spec(&worker, &training_of(&worker)).await;
        assert_eq!(trained.expect("the commit stands").status, Ended::Done);
        assert_eq!(worker.snapshot().state().centroids.current, None);
        faults.clear();
        worker.follow().await.expect("followed");
        writer.follow().await.expect("followed");
        for handle in [&worker, &writer] {
            assert!(handle.snapshot().current_centroids().is_some());
            check(handle, &log, Metric::L2).await;
        }
    });
}

#[test]
fn should_end_as_superseded_when_its_inputs_are_swept_under_its_reads() {
    run(async {
        let (site, _log, writer) = begun(Metric::L2).await;
        let worker = site.open("compactor").await;
        let spec = training_of(&worker);
        let (hook, gate) = Gate::at("sample");
        let training = tokio::spawn({
            let (worker, spec) = (worker.clone(), spec.clone());
            async move {
                let (never, options) = (AtomicBool::new(false), MergeOptions::default());
                let progress = move |at: Progress| hook(at.phase);
                worker.run(&spec, &options, &never, &progress).await
            }
        });
        gate.wait();
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        site.tick(5);
        let at_once = GcOptions {
            grace_ms: 0,
            dry_run: false,
        };
        writer.collect_garbage(&at_once).await.expect("collected");
        gate.open();
        let ended = training.await.expect("no panic").expect("no error");
        assert_eq!(ended.status, Ended::Superseded);
        assert!(site.list("centroids").await.is_empty());
    });
}

#[test]
fn should_stop_between_reads_when_cancelled_and_change_nothing() {
    run(async {
        let (site, _log, writer) = begun(Metric::Cosine).await;
        let (cancelled, version) = (AtomicBool::new(false), writer.snapshot().version());
        let hook = |_: Progress| cancelled.store(true, Ordering::SeqCst);
        let (spec, options) = (training_of(&writer), MergeOptions::default());
        let ended = writer.run(&spec, &options, &cancelled, &hook).await;
        assert_eq!(ended.expect("no error").status, Ended::Cancelled);
        assert_eq!(writer.snapshot().version(), version);
        assert!(site.list("centroids").await.is_empty());
    });
}

#[test]
fn should_refuse_a_metric_without_codes_and_a_spec_of_another_kind() {
    run(async {
        let (_site, log, writer) = begun(Metric::Manhattan).await;
        let other = Spec {
            kind: "split".to_owned(),
            ..training_of(&writer)
        };
        for spec in [training_of(&writer), other] {
            let refused = run_spec(&writer, &spec).await.expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
        }
        check(&writer, &log, Metric::Manhattan).await;
    });
}

#[test]
fn should_take_a_share_of_the_rows_where_memory_is_small() {
    run(async {
        let (_site, _log, writer) = begun(Metric::L2).await;
        let row_bytes = u64::from(DIM) * 4;
        let options = MergeOptions {
            memory_bytes_max: 10 * row_bytes * SAMPLE_MEMORY_SHARE,
            ..MergeOptions::default()
        };
        let never = AtomicBool::new(false);
        let spec = training_of(&writer);
        let trained = writer.run(&spec, &options, &never, &|_| {}).await;
        let read = trained.expect("trained").bytes_in / row_bytes;
        // One of four is drawn by a hash: ten of forty, more or less.
        assert!((1..=20).contains(&read), "{read} rows of 40");
        let trained = run_spec(&writer, &training_of(&writer)).await;
        assert_eq!(trained.expect("trained").bytes_in, 40 * row_bytes);
    });
}
