//! The recount notices what is wrong and excuses what depends on timing.

use vexlake_distance::Metric;

use super::*;
use crate::state::{Delta, Range};
use crate::testing::*;

const L2: Metric = Metric::L2;

async fn recount(handle: &Incarnation, log: &Log, from: u64) -> Report {
    let mut verification = Verification::begin(handle).await.expect("begun");
    for (source, partition, checkpoint) in verification.stretches() {
        let (table, buffer) = log.fetch(partition, from, checkpoint.next);
        verification
            .add(source, partition, from, checkpoint.next, &table, &[&buffer])
            .expect("recounted");
    }
    verification.finish().await.expect("compared")
}

async fn begun() -> (Site, Log, std::sync::Arc<Incarnation>) {
    let (site, mut log) = (Site::new(L2, 2).await, Log::default());
    let writer = site.open("ingest").await;
    for number in 0..8u32 {
        log.upsert(
            number % 2,
            &format!("k{}", number % 6),
            1,
            u64::from(number),
        );
    }
    log.put(0, "k0", 2, Change::Delete);
    log.put(1, "k1", 2, Change::Bad);
    for partition in 0..2 {
        catch_up(&writer, &log, partition).await;
    }
    writer.flush().await.expect("flushed");
    (site, log, writer)
}

#[test]
fn should_find_nothing_wrong_with_what_was_ingested() {
    run(async {
        let (_site, log, writer) = begun().await;
        let report = recount(&writer, &log, 0).await;
        assert!(report.ok && report.recounted, "{report:#?}");
        assert_eq!((report.keys, report.live_rows, report.offsets), (6, 5, 10));
    });
}

#[test]
fn should_notice_a_record_that_the_log_has_and_the_lake_has_not() {
    run(async {
        let (_site, mut log, writer) = begun().await;
        // Behind the checkpoint: the same offset now holds another key.
        log.0.get_mut(&0).expect("a partition")[1].key = "other".to_owned();
        let report = recount(&writer, &log, 0).await;
        assert!(!report.ok);
        assert_eq!((report.missing, report.duplicated), (1, 0), "{report:#?}");
        assert!(
            report
                .problems
                .iter()
                .any(|line| line.contains("\"other\"")),
            "{report:#?}"
        );
    });
}

#[test]
fn should_notice_a_key_that_the_log_has_not() {
    run(async {
        let (site, mut log, writer) = begun().await;
        log.0.get_mut(&0).expect("a partition")[1].change = Change::Bad;
        let report = recount(&writer, &log, 0).await;
        assert!(!report.ok && report.duplicated == 1, "{report:#?}");
        assert_eq!(violations(&site.invariants), [("one-live-row", 1)]);
        assert!(
            report
                .problems
                .iter()
                .any(|line| line.starts_with("ledger")),
            "{report:#?}"
        );
    });
}

#[test]
fn should_notice_a_commit_that_passed_records_without_keeping_them() {
    run(async {
        let (_site, mut log, writer) = begun().await;
        log.upsert(0, "skipped", 9, 1);
        let ledger = Ledger {
            superseded: 1,
            ..Ledger::default()
        };
        let range = Range {
            source: 0,
            partition: 0,
            from: 5,
            to: 6,
            log_time: 9,
            last: None,
            ledger,
        };
        let (adds, shadows) = (Vec::new(), Default::default());
        let delta = Delta::Append {
            ranges: vec![range],
            adds,
            shadows,
        };
        writer
            .commit_simple(|_| delta.clone())
            .await
            .expect("committed");
        let report = recount(&writer, &log, 0).await;
        assert_eq!((report.ok, report.missing), (false, 1), "{report:#?}");
    });
}

#[test]
fn should_say_that_it_could_not_recount_where_the_log_begins_later() {
    run(async {
        let (_site, log, writer) = begun().await;
        let report = recount(&writer, &log, 2).await;
        assert!(report.ok && !report.recounted, "{report:#?}");
        assert!(report.partitions.iter().all(|line| !line.recounted));
    });
}

#[test]
fn should_excuse_patches_of_keys_that_cross_partitions() {
    run(async {
        let (_site, mut log, writer) = begun().await;
        log.upsert(0, "k1", 3, 1);
        log.put(0, "k1", 4, Change::SetAttrs("{}".to_owned()));
        log.upsert(1, "k1", 5, 2);
        // Partition 1 arrives first, so its record refuses the patch; a recount reads the
        // partitions one after the other and would accept it.
        catch_up(&writer, &log, 1).await;
        let bad = deliver(&writer, &log, 0, 5..7).await.expect("appended").bad;
        assert_eq!(bad.len(), 1);
        writer.flush().await.expect("flushed");
        let report = recount(&writer, &log, 0).await;
        assert!(report.ok, "{report:#?}");
    });
}

#[test]
fn should_excuse_no_more_absent_deletes_than_merges_have_dropped() {
    run(async {
        let (_site, mut log, writer) = begun().await;
        for partition in 0..2 {
            log.upsert(partition, "later", 9, 1);
            catch_up(&writer, &log, partition).await;
        }
        writer.flush().await.expect("flushed");
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        let report = recount(&writer, &log, 0).await;
        assert!(report.ok, "{report:#?}");
        assert_eq!(
            (report.forgotten, report.missing, report.dropped),
            (1, 0, 1)
        );
        // Another delete that the lake does not have: older than what was dropped, and newer.
        for at in [2, 9] {
            let mut log = log.clone();
            let messages = log.0.get_mut(&1).expect("a partition");
            let bad = messages.iter_mut().find(|m| m.change == Change::Bad);
            *bad.expect("one") = Message {
                key: "ghost".to_owned(),
                timestamp: at,
                change: Change::Delete,
            };
            let report = recount(&writer, &log, 0).await;
            let forgotten = if at == 2 { 2 } else { 1 };
            assert!(!report.ok, "{report:#?}");
            assert_eq!(
                (report.forgotten, report.missing),
                (forgotten, 1),
                "{report:#?}"
            );
        }
    });
}
