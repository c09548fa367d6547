//! Deletes: which of them a merge drops, which it keeps, and what may follow.

use super::*;

/// "a" written at 100 and deleted at 200 in partition 0, in one segment each; then both
/// partitions go on to 300.
async fn deleted() -> (Site, Log, Arc<Incarnation>) {
    let (site, mut log) = (Site::new(COSINE, 2).await, Log::default());
    let writer = site.open("ingest").await;
    log.upsert(0, "a", 100, 1);
    commit(&writer, &log).await;
    site.tick(5);
    log.put(0, "a", 200, Change::Delete);
    commit(&writer, &log).await;
    site.tick(5);
    log.upsert(0, "b", 300, 2);
    log.upsert(1, "c", 300, 3);
    commit(&writer, &log).await;
    (site, log, writer)
}

async fn commit(writer: &Incarnation, log: &Log) {
    for partition in log.0.keys() {
        catch_up(writer, log, *partition).await;
    }
    writer.flush().await.expect("flushed");
}

fn deletes(of: &Incarnation) -> u32 {
    let snapshot = of.snapshot();
    let segments = snapshot.state().segments.values();
    segments.map(|s| s.meta.deletes).sum()
}

#[test]
fn should_drop_a_delete_that_nothing_older_can_follow() {
    run(async {
        let (site, mut log, writer) = deleted().await;
        let merged = merge(&writer, &spec_of(&writer, None)).await;
        assert_eq!(merged.expect("merged").dropped, 2);
        let dropped = writer.snapshot().state().dropped_deletes;
        let (entries, log_time) = (1, 200);
        assert_eq!(dropped, Some(DroppedDeletes { entries, log_time }));
        assert_eq!(deletes(&writer), 0);
        check(&writer, &log, COSINE).await;
        verify(&writer, &log).await;
        // Stamped before the delete, but no log time goes back: it is newer than the delete.
        log.upsert(1, "a", 150, 4);
        commit(&writer, &log).await;
        assert_eq!(writer.snapshot().live_rows, 3);
        let fresh = site.open("query").await;
        check(&fresh, &log, COSINE).await;
        verify(&fresh, &log).await;
    });
}

#[test]
fn should_keep_deletes_of_the_retention_and_without_a_bound() {
    run(async {
        let (_site, log, writer) = deleted().await;
        for bound in [None, Some(200), Some(150)] {
            let spec = Spec {
                drop_deletes_before: bound,
                ..spec_of(&writer, None)
            };
            merge(&writer, &spec).await.expect("merged");
            assert_eq!(deletes(&writer), 1, "with {bound:?}");
        }
        let spec = Spec {
            drop_deletes_before: Some(201),
            ..spec_of(&writer, None)
        };
        merge(&writer, &spec).await.expect("merged");
        assert_eq!(deletes(&writer), 0);
        check(&writer, &log, COSINE).await;
    });
}

#[test]
fn should_keep_a_delete_while_a_partition_has_not_passed_it() {
    run(async {
        // Never read, and read up to the delete's own time.
        for passed in [None, Some(200)] {
            let (site, mut log) = (Site::new(COSINE, 2).await, Log::default());
            let writer = site.open("ingest").await;
            log.upsert(0, "a", 100, 1);
            log.put(0, "a", 200, Change::Delete);
            log.upsert(0, "b", 300, 2);
            passed.map(|at| log.upsert(1, "c", at, 3));
            commit(&writer, &log).await;
            let spec = Spec {
                drop_deletes_before: Some(i64::MAX),
                ..spec_of(&writer, None)
            };
            merge(&writer, &spec).await.expect("merged");
            assert_eq!(deletes(&writer), 1, "with {passed:?}");
            log.upsert(1, "a", 150, 4);
            commit(&writer, &log).await;
            check(&writer, &log, COSINE).await;
            verify(&writer, &log).await;
        }
    });
}

#[test]
fn should_keep_a_delete_while_another_segment_holds_an_older_row() {
    run(async {
        let (_site, log, writer) = deleted().await;
        let snapshot = writer.snapshot();
        let ids: Vec<Ulid> = snapshot.segments.keys().copied().collect();
        let spec = spec_of(&writer, Some(ids[1..].to_vec()));
        merge(&writer, &spec).await.expect("merged");
        assert_eq!(
            deletes(&writer),
            1,
            "the row is hidden, but it is in the files"
        );
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        assert_eq!(deletes(&writer), 0);
        check(&writer, &log, COSINE).await;
        verify(&writer, &log).await;
    });
}

#[test]
fn should_keep_deletes_while_a_lower_ranked_source_is_attached() {
    run(async {
        let (_site, _log, writer) = deleted().await;
        let lower = |state: &IncarnationState| Delta::Source {
            previous: Some(0),
            id: 1,
            source: crate::Source {
                rank: 50,
                ..state.sources[&0].clone()
            },
        };
        writer.commit_simple(lower).await.expect("attached");
        let spec = Spec {
            drop_deletes_before: Some(i64::MAX),
            ..spec_of(&writer, None)
        };
        merge(&writer, &spec).await.expect("merged");
        assert_eq!(deletes(&writer), 1);
    });
}

#[test]
fn should_end_as_superseded_when_a_delete_is_needed_again() {
    run(async {
        for point in ["compact:uploaded", crash::COMMIT_BEFORE_CREATE] {
            let (site, mut log, writer) = deleted().await;
            let (_worker, task, gate) = held_at(&site, point).await;
            writer.add_partition(0, 2, 0).await.expect("added");
            gate.open();
            let merged = task.await.expect("no panic").expect("no error");
            assert_eq!(merged.status, Ended::Superseded, "at {point}");
            log.upsert(2, "a", 150, 4);
            commit(&writer, &log).await;
            check(&writer, &log, COSINE).await;
            verify(&writer, &log).await;
        }
    });
}

#[test]
fn should_begin_an_added_partition_above_the_deletes_that_were_dropped() {
    run(async {
        let (site, mut log, writer) = deleted().await;
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        writer.add_partition(0, 2, 0).await.expect("added");
        log.upsert(2, "a", 150, 4);
        commit(&writer, &log).await;
        let checkpoint = *writer.snapshot().state().checkpoint(0, 2).expect("known");
        assert_eq!((checkpoint.start_log_time, checkpoint.log_time), (201, 201));
        assert_eq!(writer.snapshot().live_rows, 3);
        let fresh = site.open("query").await;
        verify(&fresh, &log).await;
    });
}

#[test]
fn should_leave_the_records_of_a_replaced_source_out_once_deletes_were_dropped() {
    run(async {
        let (site, mut log, writer) = deleted().await;
        let straggler = site.open("straggler").await;
        log.upsert(0, "late", 310, 5);
        catch_up(&straggler, &log, 0).await;
        let source = crate::NewSource {
            kind: "local".to_owned(),
            cluster: "another".to_owned(),
            topic: "t".to_owned(),
            compacted: false,
            starts: BTreeMap::from([(0, 0)]),
        };
        writer.open_source(source).await.expect("opened");
        let ledger = crate::Ledger {
            not_records: 1,
            ..Default::default()
        };
        let range = crate::state::Range {
            source: 1,
            partition: 0,
            from: 0,
            to: 1,
            log_time: 400,
            last: None,
            ledger,
        };
        let read = Delta::Append {
            ranges: vec![range],
            adds: Vec::new(),
            shadows: Shadows::default(),
        };
        assert_eq!(
            writer.snapshot().state().horizon(),
            None,
            "nothing read yet"
        );
        let read = writer.commit_simple(|_| read.clone()).await;
        read.expect("the new source's log time is 400");
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        assert_eq!(deletes(&writer), 0);
        let next = writer.snapshot().next(0, 0);
        straggler.follow().await.expect("followed");
        let flushed = straggler.flush().await.expect("flushed");
        assert_eq!((flushed.commits, flushed.lost), (0, vec![(0, 0, next)]));
    });
}

#[test]
fn should_keep_a_delete_so_that_a_late_record_stays_hidden() {
    run(async {
        let (site, mut log) = (Site::new(COSINE, 2).await, Log::default());
        let writer = site.open("ingest").await;
        log.upsert(0, "a", 100, 1);
        log.put(0, "a", 200, Change::Delete);
        log.upsert(0, "b", 200, 1);
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        log.upsert(1, "a", 150, 2);
        catch_up(&writer, &log, 1).await;
        check(&writer, &log, COSINE).await;
        writer.flush().await.expect("flushed");
        check(&writer, &log, COSINE).await;
        assert_eq!(writer.snapshot().live_rows, 1);
        verify(&writer, &log).await;
    });
}
