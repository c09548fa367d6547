//! A broken invariant is refused and counted; see `Invariant` for the catalogue.

use vexlake_distance::Metric;
use vexlake_manifest::{Invariant, Invariants, State};
use vexlake_segment::EntryHash;

use crate::ErrorKind;
use crate::state::{Delta, Dropped, Ledger, Range};
use crate::testing::*;

const L2: Metric = Metric::L2;

async fn begun() -> (Site, Log) {
    let (site, mut log) = (Site::new(L2, 1).await, Log::default());
    for number in 0..4 {
        log.upsert(0, &format!("k{number}"), 1, number);
    }
    let writer = site.open("ingest").await;
    catch_up(&writer, &log, 0).await;
    writer.flush().await.expect("flushed");
    (site, log)
}

fn range(from: u64, to: u64, log_time: i64, ledger: Ledger) -> Delta {
    let range = Range {
        source: 0,
        partition: 0,
        from,
        to,
        log_time,
        last: None,
        ledger,
    };
    Delta::Append {
        ranges: vec![range],
        adds: Vec::new(),
        shadows: Default::default(),
    }
}

#[test]
fn should_count_every_invariant_while_a_lake_lives_and_find_none_broken() {
    run(async {
        let (site, mut log) = begun().await;
        let handle = site.open("ingest").await;
        log.upsert(0, "k0", 2, 9);
        catch_up(&handle, &log, 0).await;
        handle.flush().await.expect("flushed");
        merge(&handle, &spec_of(&handle, None))
            .await
            .expect("merged");
        check(&*site.open("check").await, &log, L2).await;
        verify(&handle, &log).await;
        handle.pin("p", 1).await.expect("pinned");
        handle.at(1).await.expect("read");
        let unchecked = [Invariant::TimeMonotone];
        for invariant in Invariant::ALL.iter().filter(|one| !unchecked.contains(one)) {
            assert!(
                site.invariants.count(*invariant).0 > 0,
                "{}",
                invariant.id()
            );
        }
        assert_eq!(violations(&site.invariants), []);
    });
}

#[test]
fn should_refuse_and_count_a_commit_that_breaks_the_law() {
    run(async {
        let (site, log) = begun().await;
        let handle = site.open("ingest").await;
        let superseded = |count| Ledger {
            superseded: count,
            ..Ledger::default()
        };
        let merge = Delta::Replace {
            inputs: handle.snapshot().segments.keys().copied().collect(),
            adds: Vec::new(),
            shadows: Default::default(),
            dropped: Dropped {
                entries: 3,
                hash: EntryHash::default(),
                deletes: None,
            },
        };
        let broken = [
            ("append-contiguous", range(3, 4, 9, superseded(1))),
            ("checkpoint-monotone", range(4, 5, 0, superseded(1))),
            ("ledger-adds-up", range(4, 6, 9, superseded(1))),
            ("replace-conserves", merge),
        ];
        for (place, (id, delta)) in broken.iter().enumerate() {
            let error = handle
                .commit_simple(|_| delta.clone())
                .await
                .expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(id), "{error}");
            assert_eq!(violations(&site.invariants).len(), place + 1, "{id}");
            assert_eq!(
                site.invariants.count(Invariant::of(id).expect("an id")).1,
                1
            );
        }
        // A request that is wrong is no violation.
        handle.pin("p", 99).await.expect_err("no such version");
        handle.accept_loss(0, 0, 9, 10).await.expect_err("not next");
        assert_eq!(violations(&site.invariants).len(), broken.len());
        assert_eq!(
            handle.snapshot().version(),
            site.open("look").await.snapshot().version()
        );
        verify(&handle, &log).await;
    });
}

#[test]
fn should_find_a_state_broken_whose_ledger_does_not_add_up() {
    run(async {
        let (site, _) = begun().await;
        let state = site.open("look").await.snapshot().state().clone();
        let counts = Invariants::default();
        state.check(&counts).expect("sound");
        let mut dropped = state.clone();
        dropped.dropped_entries += 1;
        let mut skipped = state.clone();
        let checkpoint = |state: &mut crate::IncarnationState, next, start| {
            let partitions = state.checkpoints.get_mut(&0).expect("a source");
            let checkpoint = partitions.get_mut(&0).expect("a partition");
            (checkpoint.next, checkpoint.start) = (next, start);
        };
        checkpoint(&mut skipped, 5, 0);
        let mut before_start = state.clone();
        checkpoint(&mut before_start, 4, 5);
        for (broken, rule) in [
            (dropped, "ledger-adds-up"),
            (skipped, "ledger-adds-up"),
            (before_start, "checkpoint-monotone"),
        ] {
            assert_eq!(broken.check(&counts).expect_err("broken").rule, rule);
        }
        assert_eq!(counts.count(Invariant::LedgerAddsUp).0, 4);
    });
}

#[test]
fn should_refuse_and_count_a_version_whose_files_are_gone_unless_it_was_retired() {
    run(async {
        let (site, _) = begun().await;
        let retired = site.open("gc").await;
        for file in site.list("seg").await {
            let scoped = site.store.scoped(&crate::Incarnation::prefix(site.id));
            scoped.delete(&file).await.expect("deleted");
        }
        let opened = site
            .open_with(&site.store, "look", vexlake_manifest::crash::none())
            .await;
        let error = opened.err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(violations(&site.invariants), [("object-intact", 1)]);
        crate::gc::retire(&retired.manifest, &retired.context.author)
            .await
            .expect("retired");
        // Nobody was promised the versions before a retire.
        let look = site.open("look").await;
        look.at(1).await.err().expect("its files are gone");
        assert_eq!(violations(&site.invariants), [("object-intact", 1)]);
    });
}
