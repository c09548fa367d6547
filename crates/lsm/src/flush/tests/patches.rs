//! Patches whose base was overtaken before their flush: judged again, or committed as they are.

use super::*;
use crate::Flushed;

/// A commits "k" of partition 0, then holds a patch of it; B commits `rival`, a record of
/// "k" in partition 1.
async fn patched(patches: &[i64], rival: (i64, Change)) -> (Site, Log, [Arc<Incarnation>; 2]) {
    let (site, mut log) = (Site::new(L2, 3).await, Log::default());
    let (a, b) = (site.open("a").await, site.open("b").await);
    log.upsert(0, "k", 100, 1);
    log.upsert(2, "other", 100, 5);
    catch_up(&a, &log, 0).await;
    a.flush().await.expect("flushed");
    for at in patches {
        log.put(0, "k", *at, Change::SetAttrs(format!("{{\"p\":{at}}}")));
    }
    log.put(1, "k", rival.0, rival.1);
    for partition in [0, 2] {
        catch_up(&a, &log, partition).await;
    }
    catch_up(&b, &log, 1).await;
    (site, log, [a, b])
}

fn rival() -> Change {
    Change::Upsert([7.0; 3], None)
}

async fn reasons(to: &Incarnation, log: &Log, partition: u32) -> Vec<(u64, &'static str)> {
    let next = applied(to, partition);
    let appended = deliver(to, log, partition, next..log.end(partition)).await;
    let bad = appended.expect("appended").bad;
    bad.iter().map(|b| (b.offset, b.reason.word())).collect()
}

/// The patches of A are wrong: the rest is committed, and what comes again is refused.
async fn judged_again(
    log: &Log,
    [a, b]: &[Arc<Incarnation>; 2],
    flushed: &Flushed,
    refused: &[(u64, &str)],
) {
    assert_eq!(flushed.lost, [(0, 0, 1)]);
    let ranges: Vec<_> = flushed.ranges.iter().map(|r| (r.partition, r.to)).collect();
    assert_eq!(ranges, [(2, 1)], "the other partition is committed");
    check(a, log, L2).await;
    assert_eq!(reasons(a, log, 0).await, refused);
    assert!(a.flush().await.expect("flushed").lost.is_empty());
    for handle in [a, b] {
        handle.follow().await.expect("followed");
        check(handle, log, L2).await;
    }
    verify(a, log).await;
}

#[test]
fn should_judge_patches_again_when_another_owner_overtook_their_base() {
    run(async {
        let crosses = "patch-crosses-partitions";
        for (patches, change, reason) in [
            (&[300][..], rival(), crosses),
            // The second rests on the first.
            (&[300, 400][..], rival(), crosses),
            (&[300][..], Change::Delete, "patch-without-record"),
        ] {
            let (_site, log, handles) = patched(patches, (200, change)).await;
            handles[1].flush().await.expect("flushed");
            let flushed = handles[0].flush().await.expect("flushed");
            let refused: Vec<_> = (1..).zip(patches.iter().map(|_| reason)).collect();
            judged_again(&log, &handles, &flushed, &refused).await;
        }
    });
}

#[test]
fn should_judge_a_patch_again_when_its_base_is_overtaken_in_a_race() {
    run(async {
        let (site, log, [first, b]) = patched(&[300], (200, rival())).await;
        drop(first);
        let (hook, gate) = Gate::at("commit:before-create");
        let opened = site.open_with(&site.store, "a", hook).await;
        let a = opened.expect("opened");
        for partition in [0, 2] {
            catch_up(&a, &log, partition).await;
        }
        let flushing = tokio::spawn({
            let a = a.clone();
            async move { a.flush().await }
        });
        gate.wait();
        b.flush().await.expect("flushed");
        gate.open();
        let flushed = flushing.await.expect("no panic").expect("flushed");
        let refused = [(1, "patch-crosses-partitions")];
        judged_again(&log, &[a, b], &flushed, &refused).await;
    });
}

#[test]
fn should_commit_patches_whose_base_is_still_the_newest_before_them() {
    run(async {
        // Older than the base, and newer than the patch.
        for at in [50, 350] {
            let (_site, log, [a, b]) = patched(&[300], (at, rival())).await;
            b.flush().await.expect("flushed");
            assert!(a.flush().await.expect("flushed").lost.is_empty());
            b.follow().await.expect("followed");
            for handle in [&a, &b] {
                check(handle, &log, L2).await;
            }
            verify(&a, &log).await;
        }
        // Base and patch in one memtable, an older record at the head and another beside them.
        let (site, mut log) = (Site::new(L2, 2).await, Log::default());
        let (a, b) = (site.open("a").await, site.open("b").await);
        log.upsert(1, "k", 50, 1);
        log.upsert(1, "k", 60, 2);
        log.upsert(0, "k", 100, 3);
        log.put(0, "k", 300, Change::SetVector([3.0; 3]));
        deliver(&b, &log, 1, 0..1).await.expect("appended");
        b.flush().await.expect("flushed");
        catch_up(&a, &log, 0).await;
        a.follow().await.expect("followed");
        catch_up(&a, &log, 1).await;
        assert!(a.flush().await.expect("flushed").lost.is_empty());
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_commit_a_chain_of_patches_across_sealed_memtables() {
    run(async {
        let (site, mut log) = (Site::new(L2, 1).await, Log::default());
        let a = site.open("a").await;
        log.upsert(0, "k", 100, 1);
        for at in [200, 300, 400, 500] {
            log.put(0, "k", at, Change::SetAttrs(format!("{{\"p\":{at}}}")));
            log.put(0, "k", at, Change::SetVector([at as f32, 0.0, 1.0]));
        }
        for to in [1, 2, 4, 5, 9] {
            let next = applied(&a, 0);
            deliver(&a, &log, 0, next..to).await.expect("appended");
            a.feed.seal(0).await;
        }
        let flushed = a.flush().await.expect("flushed");
        assert_eq!((flushed.commits, flushed.lost), (5, vec![]));
        finish(&site, &log, &[&a]).await;
    });
}

#[test]
fn should_judge_a_patch_again_that_a_record_of_its_own_memtable_overtook() {
    run(async {
        let (site, mut log) = (Site::new(L2, 2).await, Log::default());
        let a = site.open("a").await;
        log.upsert(0, "k", 100, 1);
        log.put(0, "k", 300, Change::SetVector([3.0; 3]));
        log.put(0, "k", 400, Change::SetAttrs("{}".to_owned()));
        log.put(1, "k", 350, rival());
        for partition in 0..2 {
            catch_up(&a, &log, partition).await;
        }
        let flushed = a.flush().await.expect("flushed");
        assert_eq!((flushed.commits, flushed.lost), (1, vec![(0, 0, 0)]));
        // The upsert and the first patch are older than the rival, the second comes after it.
        let refused = reasons(&a, &log, 0).await;
        assert!(
            refused.contains(&(2, "patch-crosses-partitions")),
            "{refused:?}"
        );
        assert!(a.flush().await.expect("flushed").lost.is_empty());
        check(&a, &log, L2).await;
        verify(&a, &log).await;
    });
}

#[test]
fn should_commit_one_of_two_partitions_whose_patches_overtake_each_other() {
    run(async {
        let (site, mut log) = (Site::new(L2, 2).await, Log::default());
        let a = site.open("a").await;
        let patch = || Change::SetVector([3.0; 3]);
        log.upsert(0, "x", 100, 1);
        log.put(0, "x", 300, patch());
        log.put(0, "y", 310, rival());
        log.upsert(1, "y", 100, 2);
        log.put(1, "x", 200, rival());
        log.put(1, "y", 400, patch());
        for (partition, range) in [(0, 0..2), (1, 0..3), (0, 2..3)] {
            let delivered = deliver(&a, &log, partition, range).await;
            assert!(delivered.expect("appended").bad.is_empty());
        }
        let flushed = a.flush().await.expect("flushed");
        assert_eq!((flushed.commits, flushed.lost), (1, vec![(0, 0, 0)]));
        let refused = reasons(&a, &log, 0).await;
        assert_eq!(refused, [(1, "patch-crosses-partitions")]);
        assert!(a.flush().await.expect("flushed").lost.is_empty());
        verify(&a, &log).await;
    });
}

#[test]
fn should_judge_a_revived_patch_again() {
    run(async {
        let (site, mut log) = (Site::new(L2, 2).await, Log::default());
        let (a, b) = (site.open("a").await, site.open("b").await);
        log.upsert(0, "k", 100, 1);
        log.put(0, "k", 300, Change::SetVector([3.0; 3]));
        log.put(1, "k", 200, rival());
        log.put(1, "k", 400, rival());
        catch_up(&a, &log, 0).await;
        // In A's memtable partition 1 arrives with its newest record alone, as if the other
        // offset held none, and beats the patch; B commits the other.
        let mut thinned = log.clone();
        thinned.0.get_mut(&1).expect("a partition")[0].change = Change::Gap;
        catch_up(&a, &thinned, 1).await;
        deliver(&b, &log, 1, 0..1).await.expect("appended");
        b.flush().await.expect("flushed");

        let flushed = a.flush().await.expect("flushed");

        assert_eq!(flushed.commits, 0);
        assert_eq!(flushed.lost, [(0, 0, 0), (0, 1, 1)]);
        assert_eq!(
            reasons(&a, &log, 0).await,
            [(1, "patch-crosses-partitions")]
        );
        catch_up(&a, &log, 1).await;
        a.flush().await.expect("flushed");
        finish(&site, &log, &[&a, &b]).await;
    });
}

#[test]
fn should_judge_a_patch_again_whose_base_was_deleted_and_the_delete_dropped() {
    run(async {
        let (_site, mut log, [a, b]) = patched(&[600], (200, Change::Delete)).await;
        log.upsert(0, "other", 550, 2);
        log.upsert(1, "other", 500, 3);
        log.upsert(2, "other", 500, 4);
        // Partition 0 has passed the delete by a record that comes before the patch.
        let messages = log.0.get_mut(&0).expect("a partition");
        messages.swap(1, 2);
        a.feed.reset().await;
        deliver(&a, &log, 0, 1..2).await.expect("appended");
        a.flush().await.expect("flushed");
        for partition in [0, 2] {
            catch_up(&a, &log, partition).await;
        }
        b.follow().await.expect("followed");
        for partition in 1..3 {
            catch_up(&b, &log, partition).await;
        }
        b.flush().await.expect("flushed");
        merge(&b, &spec_of(&b, None)).await.expect("merged");
        let dropped = b.snapshot().state().dropped_deletes.expect("dropped");
        assert_eq!(dropped.log_time, 200);

        let flushed = a.flush().await.expect("flushed");

        assert!(flushed.lost.contains(&(0, 0, 2)), "{flushed:?}");
        let refused = reasons(&a, &log, 0).await;
        assert_eq!(refused, [(2, "patch-without-record")]);
        a.flush().await.expect("flushed");
        check(&a, &log, L2).await;
        verify(&a, &log).await;
    });
}
