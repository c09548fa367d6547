//! Flushes of two owners, in doubt, and against merges and marks that come between.

mod patches;

use std::sync::Arc;

use vexlake_distance::Metric;
use vexlake_store::{Fault, Faults, Op, Rule};

use crate::testing::*;
use crate::{Ended, ErrorKind, GcOptions, Incarnation};

const L2: Metric = Metric::L2;
const NO_GRACE: GcOptions = GcOptions {
    grace_ms: 0,
    dry_run: false,
};

/// Two partitions: k0..k3 by number in turn, and "both" in each.
fn log() -> Log {
    let mut log = Log::default();
    for number in 0..8u32 {
        log.upsert(
            number % 2,
            &format!("k{}", number % 4),
            100 + i64::from(number),
            u64::from(number),
        );
    }
    log.upsert(0, "both", 200, 20);
    log.upsert(1, "both", 300, 30);
    log
}

async fn finish(site: &Site, log: &Log, handles: &[&Arc<Incarnation>]) {
    for handle in handles {
        handle.follow().await.expect("followed");
        check(handle, log, L2).await;
    }
    let fresh = site.open("check").await;
    check(&fresh, log, L2).await;
    verify(&fresh, log).await;
    let ends: u64 = log.0.keys().map(|p| log.end(*p)).sum();
    assert_eq!(
        fresh.snapshot().state().ledger().total(),
        ends,
        "every offset is committed once"
    );
}

#[test]
fn should_commit_disjoint_partitions_of_two_owners() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (a, b) = (site.open("a").await, site.open("b").await);
        catch_up(&a, &log, 0).await;
        catch_up(&b, &log, 1).await;
        assert!(b.flush().await.expect("flushed").lost.is_empty());
        // A's head is stale: its commit loses the race and is rebased.
        let flushed = a.flush().await.expect("flushed");
        assert!(
            flushed.lost.is_empty() && flushed.commits == 1,
            "{flushed:?}"
        );
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_report_a_partition_that_another_owner_moved_and_commit_the_others() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (a, b) = (site.open("a").await, site.open("b").await);
        catch_up(&a, &log, 0).await;
        catch_up(&a, &log, 1).await;
        deliver(&b, &log, 1, 0..2).await.expect("appended");
        b.flush().await.expect("flushed");

        let flushed = a.flush().await.expect("flushed");

        assert_eq!(flushed.lost, [(0, 1, 2)]);
        assert_eq!(
            flushed
                .ranges
                .iter()
                .map(|r| (r.partition, r.from, r.to))
                .collect::<Vec<_>>(),
            [(0, 0, 5)]
        );
        check(&a, &log, L2).await;
        assert_eq!(
            (applied(&a, 0), applied(&a, 1)),
            (5, 2),
            "the feed stands at the stored checkpoints"
        );
        assert_eq!(a.feed.read(|view| view.bytes()), 0);
        verify(&a, &log).await;
        // B goes on, A consumes the rest of the partition too, B loses it.
        deliver(&b, &log, 1, 2..5).await.expect("appended");
        deliver(&a, &log, 1, 2..4).await.expect("appended");
        assert!(a.flush().await.expect("flushed").lost.is_empty());
        assert_eq!(b.flush().await.expect("flushed").lost, [(0, 1, 4)]);
        assert_eq!(applied(&b, 1), 4);
        deliver(&b, &log, 1, 4..5).await.expect("appended");
        assert!(b.flush().await.expect("flushed").lost.is_empty());
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_revive_a_record_that_only_a_lost_record_had_beaten() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (a, b) = (site.open("a").await, site.open("b").await);
        // In A's memtable "both" of partition 1 beats that of partition 0.
        catch_up(&a, &log, 0).await;
        catch_up(&a, &log, 1).await;
        deliver(&b, &log, 1, 0..1).await.expect("appended");
        b.flush().await.expect("flushed");

        assert_eq!(a.flush().await.expect("flushed").lost, [(0, 1, 1)]);

        let hits = a
            .get(
                &["both"],
                crate::Scope::Snapshot,
                crate::Want {
                    vector: false,
                    attrs: true,
                },
            )
            .await;
        let hit = hits
            .expect("got")
            .pop()
            .flatten()
            .expect("the record of partition 0 is live");
        assert_eq!(
            (hit.partition, hit.attrs.as_deref()),
            (0, Some("{\"n\":20}"))
        );
        check(&a, &log, L2).await;
        verify(&a, &log).await;
        deliver(&b, &log, 1, 1..5).await.expect("appended");
        b.flush().await.expect("flushed");
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_stand_at_the_stored_checkpoints_when_every_partition_is_lost() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (a, b) = (site.open("a").await, site.open("b").await);
        deliver(&a, &log, 0, 0..3).await.expect("appended");
        catch_up(&b, &log, 0).await;
        b.flush().await.expect("flushed");
        let flushed = a.flush().await.expect("flushed");
        assert_eq!((flushed.lost, flushed.commits), (vec![(0, 0, 5)], 0));
        assert_eq!(applied(&a, 0), 5);
        catch_up(&a, &log, 1).await;
        a.flush().await.expect("flushed");
        finish(&site, &log, &[&a, &b]).await;
    });
}

/// Two processes that own everything, as two `up` on one store: the other one's commit
/// is followed while the same stretch still lies in the active memtable here.
#[test]
fn should_end_a_flush_of_what_another_owner_committed_and_was_followed() {
    run(async {
        for (upto, sealed) in [(3, false), (3, true), (5, false), (5, true)] {
            let (site, log) = (Site::new(L2, 2).await, log());
            let (a, b) = (site.open("a").await, site.open("b").await);
            deliver(&a, &log, 0, 0..3).await.expect("appended");
            deliver(&b, &log, 0, 0..upto).await.expect("appended");
            if sealed {
                a.feed.seal(0).await;
            }
            b.flush().await.expect("flushed");
            a.follow().await.expect("followed");
            check(&a, &log, L2).await;
            a.feed.seal(0).await;

            let flushing = tokio::spawn({
                let a = a.clone();
                async move { a.flush().await }
            });
            let flushed = tokio::time::timeout(std::time::Duration::from_secs(20), flushing).await;

            let flushed = flushed.expect("ends").expect("no panic").expect("flushed");
            assert_eq!((flushed.commits, flushed.lost.len()), (0, 0), "{flushed:?}");
            assert_eq!(a.feed.read(|view| view.bytes()), 0);
            for partition in 0..2 {
                catch_up(&a, &log, partition).await;
            }
            a.flush().await.expect("flushed");
            finish(&site, &log, &[&a, &b]).await;
        }
    });
}

#[test]
fn should_lose_all_later_tables_of_a_lost_partition() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (a, b) = (site.open("a").await, site.open("b").await);
        deliver(&a, &log, 0, 0..2).await.expect("appended");
        a.feed.seal(0).await;
        deliver(&a, &log, 0, 2..4).await.expect("appended");
        deliver(&a, &log, 1, 0..4).await.expect("appended");
        deliver(&b, &log, 0, 0..1).await.expect("appended");
        b.flush().await.expect("flushed");
        assert_eq!(a.flush().await.expect("flushed").lost, [(0, 0, 1)]);
        check(&a, &log, L2).await;
        for partition in 0..2 {
            catch_up(&a, &log, partition).await;
        }
        a.flush().await.expect("flushed");
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_recognise_its_own_commit_whose_answer_was_lost() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let a = site
            .open_with(&store, "a", vexlake_manifest::crash::none())
            .await
            .expect("opened");
        catch_up(&a, &log, 0).await;
        deliver(&a, &log, 1, 0..3).await.expect("appended");
        faults.add(Rule::every(Op::Create, "commits/", Fault::FailAfter));
        // One read looks at the slot before it is filled, all later ones are to settle the doubt.
        faults.add(Rule {
            nth: 2,
            times: u64::MAX,
            ..Rule::nth(Op::Get, "commits/", 2, Fault::FailBefore)
        });
        a.flush().await.expect_err("in doubt");
        faults.clear();
        deliver(&a, &log, 1, 3..5).await.expect("appended");

        let flushed = a.flush().await.expect("flushed");

        assert!(flushed.lost.is_empty(), "{flushed:?}");
        assert_eq!(
            flushed
                .ranges
                .iter()
                .map(|r| (r.partition, r.from, r.to))
                .collect::<Vec<_>>(),
            [(1, 3, 5)]
        );
        finish(&site, &log, &[&a]).await;
    });
}

#[test]
fn should_go_on_after_a_commit_that_could_not_be_shown() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let a = site
            .open_with(&store, "a", vexlake_manifest::crash::none())
            .await
            .expect("opened");
        catch_up(&a, &log, 0).await;
        faults.add(Rule::every(Op::Ranges, "index.vxi", Fault::FailBefore));
        let flushed = a.flush().await.expect("the commit stands");
        assert_eq!((flushed.commits, flushed.segments.len()), (1, 1));
        check(&a, &log, L2).await;
        // Neither the table that waits nor a new one can be taken further for now.
        catch_up(&a, &log, 1).await;
        a.flush().await.expect_err("the segment cannot be opened");
        assert_eq!(a.pin("p", 1).await.expect("the commit stands"), 2);
        check(&a, &log, L2).await;
        faults.clear();
        let flushed = a.flush().await.expect("flushed");
        assert!(
            flushed.lost.is_empty() && flushed.commits == 1,
            "{flushed:?}"
        );
        finish(&site, &log, &[&a]).await;
    });
}

#[test]
fn should_write_its_segment_anew_when_a_mark_overtook_its_name() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let (hook, gate) = Gate::at("flush:uploaded");
        let a = site
            .open_with(&site.store, "a", hook)
            .await
            .expect("opened");
        catch_up(&a, &log, 0).await;
        let flushing = tokio::spawn({
            let a = a.clone();
            async move { a.flush().await }
        });
        gate.wait();
        site.tick(10);
        let collected = site
            .open("gc")
            .await
            .collect_garbage(&NO_GRACE)
            .await
            .expect("collected");
        assert!(
            !collected.objects.is_empty(),
            "the upload under way is swept"
        );
        gate.open();
        flushing.await.expect("no panic").expect("flushed");
        catch_up(&a, &log, 1).await;
        a.flush().await.expect("flushed");
        finish(&site, &log, &[&a]).await;
    });
}

#[test]
fn should_hide_records_of_segments_that_a_merge_replaced_meanwhile() {
    run(async {
        let (site, mut log) = (Site::new(L2, 2).await, log());
        let (hook, gate) = Gate::at("commit:before-create");
        let first = site.open("first").await;
        for _ in 0..2 {
            for partition in 0..2 {
                catch_up(&first, &log, partition).await;
            }
            first.flush().await.expect("flushed");
            log.upsert(0, "k0", 400, 40);
            log.put(1, "k3", 401, Change::Delete);
        }
        // An update of a row that lies in a segment, and of a key that lies there as a delete.
        log.upsert(1, "both", 500, 50);
        log.upsert(0, "k3", 501, 60);
        let a = site
            .open_with(&site.store, "a", hook)
            .await
            .expect("opened");
        for partition in 0..2 {
            catch_up(&a, &log, partition).await;
        }
        let flushing = tokio::spawn({
            let a = a.clone();
            async move { a.flush().await }
        });
        gate.wait();
        let merged = merge(&first, &spec_of(&first, None)).await.expect("merged");
        assert_eq!((merged.status, merged.segments.len()), (Ended::Done, 1));
        gate.open();
        flushing.await.expect("no panic").expect("flushed");
        check(&a, &log, L2).await;
        finish(&site, &log, &[&a, &first]).await;
    });
}

#[test]
fn should_look_for_older_records_anew_when_a_partition_is_lost_in_a_race() {
    run(async {
        let (site, mut log) = (Site::new(L2, 2).await, log());
        let first = site.open("first").await;
        for partition in 0..2 {
            catch_up(&first, &log, partition).await;
        }
        first.flush().await.expect("flushed");
        // Partition 1 arrives first: its entries come before those of partition 0.
        for (number, key) in ["k1", "k3"].into_iter().enumerate() {
            log.upsert(1, key, 400, 40 + number as u64);
        }
        for (number, key) in ["k0", "k2"].into_iter().enumerate() {
            log.upsert(0, key, 400, 50 + number as u64);
        }
        let (hook, gate) = Gate::at("commit:before-create");
        let a = site
            .open_with(&site.store, "a", hook)
            .await
            .expect("opened");
        catch_up(&a, &log, 1).await;
        catch_up(&a, &log, 0).await;
        let flushing = tokio::spawn({
            let a = a.clone();
            async move { a.flush().await }
        });
        gate.wait();
        let next = applied(&first, 1);
        deliver(&first, &log, 1, next..next + 1)
            .await
            .expect("appended");
        first.flush().await.expect("flushed");
        gate.open();
        let flushed = flushing.await.expect("no panic").expect("flushed");
        assert_eq!(flushed.lost, [(0, 1, next + 1)]);
        check(&a, &log, L2).await;
        catch_up(&a, &log, 1).await;
        a.flush().await.expect("flushed");
        finish(&site, &log, &[&a, &first]).await;
    });
}

#[test]
fn should_be_fenced_by_a_retire_and_keep_what_it_holds() {
    run(async {
        let (site, log) = (Site::new(L2, 2).await, log());
        let a = site.open("a").await;
        catch_up(&a, &log, 0).await;
        let b = site.open("b").await;
        let retired = crate::gc::retire(&b.manifest, &b.context.author).await;
        retired.expect("retired");
        let error = a.flush().await.expect_err("fenced");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        assert_eq!(applied(&a, 0), 5);
    });
}

#[test]
fn should_read_nothing_to_flush_keys_that_no_segment_holds() {
    run(async {
        let (site, mut log) = (Site::new(L2, 1).await, Log::default());
        let a = site.open("a").await;
        for round in 0..4u64 {
            for number in 0..200 {
                log.upsert(0, &format!("{round}-{number}"), 1, number);
            }
            let before = site.store.usage();
            catch_up(&a, &log, 0).await;
            a.flush().await.expect("flushed");
            let now = site.store.usage();
            // The head of the new segment; a key in 65,536 / 600 may pass a filter.
            let read = now.ranges - before.ranges;
            assert!((1..=3).contains(&read), "{read} reads in round {round}");
        }
        // All of them again: two rounds a segment for the batch, and as many for the flush.
        for round in 0..4 {
            for number in 0..200 {
                log.upsert(0, &format!("{round}-{number}"), 2, number);
            }
        }
        let before = site.store.usage();
        catch_up(&a, &log, 0).await;
        a.flush().await.expect("flushed");
        let read = site.store.usage().ranges - before.ranges;
        assert!(read <= 4 * 2 * 2 + 1, "{read} reads for 800 keys");
        assert_eq!(a.snapshot().live_rows, 800);
        finish(&site, &log, &[&a]).await;
    });
}
