//! What a view shows: coverage by snapshots, rivals in other tables, patches, redelivery.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vexlake_distance::Metric;
use vexlake_store::{Fault, Faults, Op, Rule};

use crate::append::{Appended, Batch, OnBad};
use crate::record::Reason;
use crate::testing::*;
use crate::{ErrorKind, Incarnation};

const L2: Metric = Metric::L2;

async fn begun(partitions: u32) -> (Site, Log, Arc<Incarnation>, Arc<Incarnation>) {
    let site = Site::new(L2, partitions).await;
    let (writer, reader) = (site.open("ingest").await, site.open("query").await);
    (site, Log::default(), writer, reader)
}

fn card(of: &Incarnation) -> u64 {
    of.feed.read(|view| view.card())
}

fn tables(of: &Incarnation) -> usize {
    of.feed.read(|view| view.memtables().count())
}

#[test]
fn should_drop_a_sealed_table_once_a_snapshot_covers_all_of_it() {
    run(async {
        let (_site, mut log, writer, reader) = begun(2).await;
        log.upsert(0, "a", 1, 1);
        log.upsert(1, "b", 1, 2);
        for partition in 0..2 {
            catch_up(&reader, &log, partition).await;
        }
        reader.feed.seal(0).await;
        assert_eq!((tables(&reader), card(&reader)), (2, 2));
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        assert_eq!(
            (tables(&reader), card(&reader)),
            (2, 2),
            "partition 1 is not covered"
        );
        check(&reader, &log, L2).await;
        catch_up(&writer, &log, 1).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        assert_eq!((tables(&reader), card(&reader)), (1, 2));
        assert_eq!(reader.feed.read(|view| view.bytes()), 0);
        check(&reader, &log, L2).await;
    });
}

#[test]
fn should_not_seal_an_empty_or_too_small_table() {
    run(async {
        let (_site, mut log, _writer, reader) = begun(1).await;
        reader.feed.seal(0).await;
        assert_eq!(tables(&reader), 1);
        log.upsert(0, "a", 1, 1);
        catch_up(&reader, &log, 0).await;
        reader.feed.seal(1 << 20).await;
        assert_eq!(tables(&reader), 1);
        reader.feed.seal(1).await;
        assert_eq!(tables(&reader), 2);
    });
}

#[test]
fn should_hide_a_record_older_than_the_snapshots_newest_of_its_key() {
    run(async {
        let (site, mut log, writer, reader) = begun(2).await;
        log.upsert(0, "a", 100, 1);
        log.put(0, "b", 100, Change::Delete);
        log.upsert(1, "a", 50, 2);
        log.upsert(1, "b", 50, 3);
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        let acks = deliver(&reader, &log, 1, 0..2)
            .await
            .expect("appended")
            .acks;
        assert_eq!(
            acks.iter().map(|ack| ack.existed).collect::<Vec<_>>(),
            [true, false]
        );
        check(&reader, &log, L2).await;
        assert_eq!(card(&reader), 1);
        // The same with the late records flushed: born shadowed.
        catch_up(&writer, &log, 1).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        check(&reader, &log, L2).await;
        check(&*site.open("check").await, &log, L2).await;
        verify(&writer, &log).await;
    });
}

#[test]
fn should_let_the_newest_position_win_between_tables() {
    run(async {
        let (_site, mut log, _writer, reader) = begun(2).await;
        log.upsert(0, "a", 100, 1);
        log.put(0, "b", 100, Change::Delete);
        log.upsert(1, "a", 50, 2);
        log.upsert(1, "b", 50, 3);
        log.put(1, "a", 150, Change::Delete);
        log.upsert(1, "b", 150, 4);
        catch_up(&reader, &log, 0).await;
        for end in 1..=4 {
            reader.feed.seal(0).await;
            deliver(&reader, &log, 1, end - 1..end)
                .await
                .expect("appended");
            check(&reader, &log, L2).await;
        }
        assert_eq!(card(&reader), 1);
    });
}

#[test]
fn should_skip_what_was_delivered_before_and_refuse_a_gap() {
    run(async {
        let (_site, mut log, writer, _reader) = begun(1).await;
        for number in 0..6 {
            log.upsert(0, &format!("k{number}"), 1, number);
        }
        deliver(&writer, &log, 0, 0..3).await.expect("appended");
        let again = deliver(&writer, &log, 0, 0..3).await.expect("appended");
        assert_eq!((again.next, again.accepted, again.not_records), (3, 0, 0));
        let overlap = deliver(&writer, &log, 0, 1..5).await.expect("appended");
        assert_eq!((overlap.next, overlap.accepted), (5, 2));
        let gap = deliver(&writer, &log, 0, 6..6).await.expect_err("a gap");
        assert_eq!(gap.kind(), ErrorKind::Conflict, "{gap}");
        assert_eq!(applied(&writer, 0), 5);
        check(&writer, &log, L2).await;
    });
}

async fn append_table(
    to: &Incarnation,
    from: u64,
    to_: u64,
    offsets: &[i64],
    on_bad: OnBad,
) -> crate::error::Result<Appended> {
    let mut writer = TableWriter::default();
    for offset in offsets {
        let change = if *offset % 10 == 7 {
            Change::Bad
        } else {
            Change::Upsert([1.0, 2.0, 3.0], None)
        };
        writer.push(
            *offset,
            &Message {
                key: format!("k{offset}"),
                timestamp: 100 + offset,
                change,
            },
        );
    }
    let buffers = [writer.buffer.as_slice()];
    let (table, format) = (writer.table.as_slice(), None);
    let batch = Batch {
        source: 0,
        partition: 0,
        from,
        to: to_,
        buffers: &buffers,
        table,
        format,
        on_bad,
    };
    to.append(&batch).await
}

#[test]
fn should_refuse_offsets_outside_of_their_batch_and_unknown_partitions() {
    run(async {
        let (_site, log, writer, _reader) = begun(1).await;
        for (from, to, offsets) in [
            (0, 2, vec![2]),
            (0, 1, vec![-1]),
            (0, 0, vec![0]),
            (1, 0, vec![]),
            (0, u64::MAX, vec![]),
        ] {
            let error = append_table(&writer, from, to, &offsets, OnBad::Pass)
                .await
                .expect_err("refused");
            assert_eq!(
                error.kind(),
                ErrorKind::Invalid,
                "[{from}, {to}) {offsets:?}: {error}"
            );
        }
        assert_eq!(applied(&writer, 0), 0);
        let unknown = deliver(&writer, &log, 1, 0..0).await.expect_err("unknown");
        assert_eq!(unknown.kind(), ErrorKind::Invalid, "{unknown}");
    });
}

#[test]
fn should_count_offsets_without_a_record_and_refused_ones() {
    run(async {
        let (_site, _log, writer, _reader) = begun(1).await;
        let appended = append_table(&writer, 0, 10, &[1, 3, 7], OnBad::Pass)
            .await
            .expect("appended");
        assert_eq!(
            (appended.next, appended.accepted, appended.not_records),
            (10, 2, 7)
        );
        assert_eq!(
            appended
                .bad
                .iter()
                .map(|bad| (bad.offset, bad.reason))
                .collect::<Vec<_>>(),
            [(7, Reason::BadDimension)]
        );
        writer.flush().await.expect("flushed");
        let ledger = writer.snapshot().state().ledger();
        assert_eq!(
            (ledger.kept, ledger.dead_lettered, ledger.not_records),
            (2, 1, 7)
        );
    });
}

#[test]
fn should_stop_before_a_bad_record_and_go_on_there() {
    run(async {
        let (_site, _log, writer, _reader) = begun(1).await;
        let appended = append_table(&writer, 0, 9, &[5, 6, 7, 8], OnBad::Fail)
            .await
            .expect("stopped");
        assert_eq!(
            (appended.failed_at, appended.next, appended.accepted),
            (Some(7), 7, 2)
        );
        assert_eq!((appended.bad.len(), appended.acks.len()), (1, 2));
        let log_time = writer
            .feed
            .read(|view| view.applied(0, 0))
            .expect("a partition")
            .log_time;
        assert_eq!(log_time, 106, "what was not consumed moves nothing");
        let again = append_table(&writer, 7, 9, &[7, 8], OnBad::Fail)
            .await
            .expect("stopped");
        assert_eq!(
            (again.failed_at, again.next, again.accepted),
            (Some(7), 7, 0)
        );
        let passed = append_table(&writer, 7, 9, &[7, 8], OnBad::Pass)
            .await
            .expect("passed");
        assert_eq!(
            (passed.failed_at, passed.next, passed.accepted),
            (None, 9, 1)
        );
        writer.flush().await.expect("flushed");
        let ledger = writer.snapshot().state().ledger();
        assert_eq!(
            (ledger.kept, ledger.dead_lettered, ledger.not_records),
            (3, 1, 5)
        );
    });
}

#[test]
fn should_judge_a_patch_by_the_newest_version_of_its_key() {
    run(async {
        let (_site, mut log, writer, _reader) = begun(2).await;
        let patch = || Change::SetAttrs("{\"p\":1}".to_owned());
        log.put(0, "none", 1, patch());
        log.upsert(0, "a", 2, 1);
        log.put(0, "a", 3, patch());
        log.upsert(0, "gone", 4, 2);
        log.put(0, "gone", 5, Change::Delete);
        log.put(0, "gone", 6, patch());
        log.upsert(0, "b", 7, 3);
        let reasons = |appended: Appended| {
            appended
                .bad
                .into_iter()
                .map(|bad| (bad.offset, bad.reason.word()))
                .collect::<Vec<_>>()
        };
        let appended = deliver(&writer, &log, 0, 0..7).await.expect("appended");
        assert_eq!(
            reasons(appended),
            [(0, "patch-without-record"), (5, "patch-without-record")]
        );
        check(&writer, &log, L2).await;
        // Now the bases lie in the snapshot; across partitions there is none.
        writer.flush().await.expect("flushed");
        log.put(0, "a", 8, Change::SetVector([9.0, 9.0, 9.0]));
        log.put(0, "b", 8, Change::SetAttrs(String::new()));
        log.put(0, "gone", 8, patch());
        let appended = deliver(&writer, &log, 0, 7..10).await.expect("appended");
        assert_eq!(reasons(appended), [(9, "patch-without-record")]);
        check(&writer, &log, L2).await;
        log.put(1, "a", 9, patch());
        log.upsert(1, "b", 9, 4);
        log.put(0, "b", 10, patch());
        let appended = deliver(&writer, &log, 1, 0..2).await.expect("appended");
        assert_eq!(reasons(appended), [(0, "patch-crosses-partitions")]);
        let appended = deliver(&writer, &log, 0, 10..11).await.expect("appended");
        assert_eq!(reasons(appended), [(10, "patch-crosses-partitions")]);
    });
}

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

#[test]
fn should_refuse_an_event_time_that_no_segment_can_hold() {
    run(async {
        let (_site, _log, writer, _reader) = begun(1).await;
        let mut table = TableWriter::default();
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        let vector = Some(vec![0u8; 12]);
        let least = || bytes("-9223372036854775808");
        table.entry(
            0,
            1,
            [bytes("a"), vector.clone(), None, None, None, least(), None],
        );
        table.entry(
            1,
            1,
            [
                bytes("b"),
                vector,
                None,
                None,
                None,
                bytes("-9223372036854775807"),
                None,
            ],
        );
        table.entry(2, 1, [bytes("c"), None, None, None, None, least(), None]);
        let buffers = [table.buffer.as_slice()];
        let (format, on_bad) = (None, OnBad::Pass);
        let batch = Batch {
            source: 0,
            partition: 0,
            from: 0,
            to: 3,
            buffers: &buffers,
            table: &table.table,
            format,
            on_bad,
        };
        let appended = writer.append(&batch).await.expect("appended");
        assert_eq!(
            appended
                .bad
                .iter()
                .map(|bad| (bad.offset, bad.reason))
                .collect::<Vec<_>>(),
            [(0, Reason::BadEventTime)]
        );
        assert_eq!(appended.accepted, 2);
        let flushed = writer
            .flush()
            .await
            .expect("such a record must not block the flush for ever");
        assert_eq!((flushed.rows, flushed.deletes), (1, 1));
    });
}

#[test]
fn should_refuse_patches_from_a_compacted_topic_and_count_them_in_a_recount() {
    run(async {
        let mut sources = sources(1);
        sources
            .values_mut()
            .for_each(|source| source.compacted = true);
        let site = Site::of(schema(L2), sources).await;
        let (writer, mut log) = (site.open("ingest").await, Log::default());
        log.upsert(0, "a", 1, 1);
        log.put(0, "a", 2, Change::SetAttrs("{}".to_owned()));
        log.put(0, "a", 3, Change::SetVector([9.0; 3]));
        log.upsert(0, "b", 4, 2);
        log.put(0, "b", 5, Change::Delete);
        let bad = deliver(&writer, &log, 0, 0..5).await.expect("appended").bad;
        let refused: Vec<_> = bad.iter().map(|bad| (bad.offset, bad.reason)).collect();
        let compacted = Reason::PatchOnCompactedTopic;
        assert_eq!(refused, [(1, compacted), (2, compacted)]);
        assert!(bad[0].message.contains("set-attrs on key \"a\""), "{bad:?}");
        writer.flush().await.expect("flushed");
        verify(&writer, &log).await;
        assert_eq!(writer.snapshot().state().ledger().dead_lettered, 2);
    });
}
