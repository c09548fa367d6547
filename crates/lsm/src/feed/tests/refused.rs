//! Batches and records that a feed refuses or counts: offsets, bad records, patches without
//! a base.

use super::*;
use crate::append::{Batch, OnBad};
use crate::record::Reason;

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
