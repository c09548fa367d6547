//! Flushes, resets, seals and newer snapshots while a batch is judged or a look-up runs.

use tokio::sync::Semaphore;
use vexlake_store::{Fault, Faults, Op, Rule};

use super::*;

/// A writer that has key "x" in a segment and appends `batch`, which patches it, up to
/// the moment when the base is read; then `meanwhile` runs.
async fn append_around<F: Future<Output = ()>>(
    log: Log,
    before: u64,
    batch: std::ops::Range<u64>,
    meanwhile: impl FnOnce(Arc<Incarnation>) -> F,
) -> (Arc<Incarnation>, crate::error::Result<Appended>, Site) {
    let site = Site::new(L2, 1).await;
    let faults = Faults::scripted([]);
    let store = site.store.clone().with_faults(faults.clone());
    let writer = site
        .open_with(&store, "ingest", vexlake_manifest::crash::none())
        .await
        .expect("opened");
    deliver(&writer, &log, 0, 0..1).await.expect("appended");
    writer.flush().await.expect("flushed");
    deliver(&writer, &log, 0, 1..before)
        .await
        .expect("appended");
    let gate = Arc::new(Semaphore::new(0));
    faults.add(Rule::nth(
        Op::Ranges,
        "data.parquet",
        1,
        Fault::Hold(gate.clone()),
    ));
    let appending = tokio::spawn({
        let writer = writer.clone();
        async move { deliver(&writer, &log, 0, batch).await }
    });
    while faults.fired() == 0 {
        tokio::task::yield_now().await;
    }
    meanwhile(writer.clone()).await;
    gate.close();
    let appended = appending.await.expect("no panic");
    (writer, appended, site)
}

#[test]
fn should_keep_a_patch_whose_base_is_flushed_while_its_batch_is_judged() {
    run(async {
        let mut log = Log::default();
        let patch = || Change::SetAttrs("{\"p\":1}".to_owned());
        log.upsert(0, "x", 1, 1);
        log.upsert(0, "a", 2, 2);
        log.put(0, "a", 3, patch());
        log.put(0, "x", 3, patch());
        let flush =
            |writer: Arc<Incarnation>| async move { drop(writer.flush().await.expect("flushed")) };
        let (writer, appended, _site) = append_around(log.clone(), 2, 2..4, flush).await;
        assert_eq!(
            appended.expect("appended").bad,
            [],
            "the base of \"a\" moved from the feed to the snapshot"
        );
        assert_eq!(writer.snapshot().version(), 2);
        check(&writer, &log, L2).await;
    });
}

#[test]
fn should_not_swallow_records_when_the_feed_is_reset_while_a_batch_is_judged() {
    run(async {
        let mut log = Log::default();
        log.upsert(0, "x", 1, 1);
        log.upsert(0, "a", 2, 2);
        log.put(0, "x", 3, Change::SetVector([3.0, 3.0, 3.0]));
        let reset = |writer: Arc<Incarnation>| async move { writer.feed.reset().await };
        let (writer, appended, _site) = append_around(log.clone(), 2, 2..3, reset).await;
        let error =
            appended.expect_err("offset 1 is gone from the feed, so the batch leaves a gap");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        check(&writer, &log, L2).await;
        catch_up(&writer, &log, 0).await;
        check(&writer, &log, L2).await;
        assert_eq!(card(&writer), 2);
    });
}

/// Key "x" in a segment, which the reader has opened or, for its second read, is yet to
/// open; that read of an index can be held up by the test.
async fn held_up(nth: u64) -> (Site, Log, Arc<Incarnation>, Arc<Faults>, Arc<Semaphore>) {
    let (site, mut log) = (Site::new(L2, 2).await, Log::default());
    let faults = Faults::scripted([]);
    let store = site.store.clone().with_faults(faults.clone());
    log.upsert(0, "x", 1, 1);
    let writer = site.open("ingest").await;
    let reader = site
        .open_with(&store, "query", vexlake_manifest::crash::none())
        .await
        .expect("opened");
    if nth == 1 {
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
    } else {
        // Of what the reader has, the snapshot covers the first entry; the second is to be
        // looked up in it.
        catch_up(&reader, &log, 0).await;
        log.upsert(1, "x", 2, 2);
        catch_up(&reader, &log, 1).await;
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
    }
    let gate = Arc::new(Semaphore::new(0));
    let hold = Fault::Hold(gate.clone());
    faults.add(Rule::nth(Op::Ranges, "index.vxi", nth, hold));
    (site, log, reader, faults, gate)
}

#[test]
fn should_let_readers_and_other_partitions_go_on_while_a_batch_looks_up_its_keys() {
    run(async {
        let (_site, mut log, reader, faults, gate) = held_up(1).await;
        log.upsert(0, "x", 3, 3);
        log.upsert(1, "z", 3, 4);
        let appending = tokio::spawn({
            let (reader, log) = (reader.clone(), log.clone());
            async move { deliver(&reader, &log, 0, 1..2).await }
        });
        while faults.fired() == 0 {
            tokio::task::yield_now().await;
        }
        catch_up(&reader, &log, 1).await;
        reader.feed.seal(0).await;
        assert_eq!((card(&reader), tables(&reader)), (2, 2));
        gate.close();
        appending.await.expect("no panic").expect("appended");
        assert_eq!(applied(&reader, 0), 2);
        check(&reader, &log, L2).await;
    });
}

#[test]
fn should_look_up_again_when_the_snapshot_is_replaced_while_a_batch_looks_up_its_keys() {
    run(async {
        let (site, mut log, reader, faults, gate) = held_up(1).await;
        log.upsert(1, "x", 9, 3);
        let appending = tokio::spawn({
            let (reader, log) = (reader.clone(), log.clone());
            async move { deliver(&reader, &log, 1, 0..1).await }
        });
        while faults.fired() == 0 {
            tokio::task::yield_now().await;
        }
        log.upsert(0, "x", 5, 4);
        let writer = site.open("ingest").await;
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        assert_eq!((reader.snapshot().version(), applied(&reader, 1)), (2, 0));
        gate.close();
        appending.await.expect("no panic").expect("appended");
        assert_eq!(card(&reader), 1);
        check(&reader, &log, L2).await;
    });
}

#[test]
fn should_relate_what_arrives_while_a_newer_snapshot_is_looked_up() {
    run(async {
        for meanwhile in 0..3 {
            // The head of the new segment is the first read, the look-up of "x" the second.
            let (_site, mut log, reader, faults, gate) = held_up(2).await;
            let following = tokio::spawn({
                let reader = reader.clone();
                async move { drop(reader.follow().await.expect("followed")) }
            });
            while faults.fired() == 0 {
                tokio::task::yield_now().await;
            }
            log.upsert(1, "y", 9, 6);
            log.upsert(0, "y", 10, 7);
            match meanwhile {
                0 => {}
                1 => reader.feed.seal(0).await,
                _ => reader.feed.reset().await,
            }
            // After a reset the entries come in another order.
            catch_up(&reader, &log, 1).await;
            catch_up(&reader, &log, 0).await;
            check(&reader, &log, L2).await;
            assert_eq!(reader.snapshot().version(), 0);
            gate.close();
            following.await.expect("no panic");
            assert_eq!(reader.snapshot().version(), 1);
            check(&reader, &log, L2).await;
        }
    });
}

#[test]
fn should_keep_the_view_when_a_newer_snapshot_cannot_be_looked_up() {
    run(async {
        let (_site, log, reader, faults, gate) = held_up(2).await;
        faults.clear();
        faults.add(Rule::nth(Op::Ranges, "index.vxi", 2, Fault::Refuse));
        drop(gate);
        assert!(reader.follow().await.is_err());
        assert_eq!((reader.snapshot().version(), card(&reader)), (0, 1));
        check(&reader, &log, L2).await;
        faults.clear();
        reader.follow().await.expect("followed");
        assert_eq!((reader.snapshot().version(), card(&reader)), (1, 1));
        check(&reader, &log, L2).await;
    });
}
