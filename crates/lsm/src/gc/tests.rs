//! What a collection costs and when it does nothing; what a bad clock may do. That it
//! never takes what is needed is the model's to check (tests/model.rs).

use std::sync::Arc;

use vexlake_distance::Metric;

use super::*;
use crate::testing::*;

const L2: Metric = Metric::L2;
const HOUR_MS: u64 = 3_600_000;

fn grace(grace_ms: u64) -> GcOptions {
    GcOptions {
        grace_ms,
        dry_run: false,
    }
}

/// A committed record of the same key for each of `count` seconds.
async fn overwritten(writer: &Incarnation, site: &Site, log: &mut Log, count: u32) {
    for _ in 0..count {
        log.upsert(0, "a", 1, 1);
        catch_up(writer, log, 0).await;
        writer.flush().await.expect("flushed");
        site.tick(1_000);
    }
}

async fn begun() -> (Site, Log, Arc<Incarnation>) {
    let site = Site::new(L2, 1).await;
    let writer = site.open("ingest").await;
    (site, Log::default(), writer)
}

#[test]
fn should_read_a_base_once_for_all_versions_on_it() {
    run(async {
        let (site, _log, writer) = begun().await;
        for _ in 0..100 {
            writer.pin("p", 0).await.expect("pinned");
            writer.unpin("p", 0).await.expect("unpinned");
            site.tick(1_000);
        }
        let before = site.store.usage().gets;
        let collected = writer.collect_garbage(&grace(90_000)).await;
        // Two commits a second for 100 seconds, and their first eleven seconds are over.
        assert_eq!(collected.expect("collected").retain_from, 22);
        let gets = site.store.usage().gets - before;
        // 180 versions on 3 or 4 bases, once; what a search in time and a commit read.
        assert!(gets < 60, "{gets} reads");
    });
}

#[test]
fn should_make_no_mark_for_the_last_mark() {
    run(async {
        let (site, mut log, writer) = begun().await;
        overwritten(&writer, &site, &mut log, 4).await;
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        site.tick(2 * HOUR_MS);
        let first = writer.collect_garbage(&grace(HOUR_MS)).await;
        assert!(first.expect("collected").slots > 0);
        let version = writer.snapshot().version();
        for _ in 0..3 {
            site.tick(2 * HOUR_MS);
            let collected = writer.collect_garbage(&grace(HOUR_MS)).await;
            assert!(collected.expect("collected").objects.is_empty());
        }
        assert_eq!(writer.snapshot().version(), version, "nothing was done");
    });
}

#[test]
fn should_keep_the_grace_after_a_run_by_a_clock_that_is_ahead() {
    run(async {
        let (site, mut log, writer) = begun().await;
        overwritten(&writer, &site, &mut log, 3).await;
        site.tick(10 * HOUR_MS);
        let ahead = site.open("ahead").await;
        ahead.collect_garbage(&grace(0)).await.expect("collected");
        let back = 10 * HOUR_MS;
        site.clock
            .fetch_sub(back, std::sync::atomic::Ordering::SeqCst);
        writer.follow().await.expect("followed");
        let kept = writer.snapshot().version();
        overwritten(&writer, &site, &mut log, 3).await;
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");

        let collected = writer.collect_garbage(&grace(HOUR_MS)).await;

        let collected = collected.expect("collected");
        assert!(collected.retain_from <= kept, "{collected:?} after {kept}");
        let old = site.open("query").await.at(kept).await;
        assert_eq!(old.expect("readable").version(), kept);
    });
}

#[test]
fn should_leave_what_is_uploaded_to_a_clock_that_is_ahead() {
    run(async {
        let (site, mut log, writer) = begun().await;
        overwritten(&writer, &site, &mut log, 3).await;
        let (hook, gate) = Gate::at("flush:uploaded");
        let opened = site.open_with(&site.store, "ingest", hook).await;
        let uploading = opened.expect("opened");
        log.upsert(0, "b", 1, 1);
        catch_up(&uploading, &log, 0).await;
        let flushing = tokio::spawn({
            let uploading = uploading.clone();
            async move { uploading.flush().await }
        });
        gate.wait();
        site.tick(10 * HOUR_MS);
        let ahead = site.open("ahead").await;
        let uploaded = site.list("seg").await.len();
        let collected = ahead.collect_garbage(&grace(HOUR_MS)).await;
        assert!(collected.expect("collected").slots > 0);
        assert_eq!(site.list("seg").await.len(), uploaded);
        gate.open();
        flushing.await.expect("no panic").expect("flushed");
        check(&*site.open("check").await, &log, L2).await;
    });
}
