//! A store that fails, lies and loses replies: calls end in an error or succeed, and
//! whatever they did, the lake stays what the log says.

use vexlake_distance::Metric;
use vexlake_manifest::crash;
use vexlake_store::{Fault, Faults, Op, Rule};

use crate::testing::*;
use crate::{ErrorKind, GcOptions, Scope, Search};

const L1: Metric = Metric::Manhattan;
/// Rounds of one history.
const ROUNDS: u32 = 6;
/// Tries of one call under random faults. At 70 % a try and 8 tries a request, 6 % of the
/// requests fail and half of the flushes; this many in a row mean that something does
/// not recover.
const TRIES_MAX: u32 = 50;

async fn history(seed: u64, per_mille: u64) -> u64 {
    let (site, mut log) = (Site::new(L1, 2).await, Log::default());
    let faults = Faults::random(seed, per_mille);
    let store = site.store.clone().with_faults(faults.clone());
    let mut failures = 0;
    let mut open = None;
    for _ in 0..TRIES_MAX {
        if open.is_some() {
            break;
        }
        match site.open_with(&store, "ingest", crash::none()).await {
            Ok(opened) => open = Some(opened),
            Err(_) => failures += 1,
        }
    }
    let handle = open.expect("opens once in many tries");
    for round in 0..ROUNDS {
        for number in 0..6u32 {
            log.upsert(
                number % 2,
                &format!("k{}", (number + round) % 7),
                i64::from(round),
                u64::from(number),
            );
        }
        log.put(1, &format!("k{round}"), i64::from(round), Change::Delete);
        log.put(0, "k6", i64::from(round), Change::SetAttrs(String::new()));
        site.tick(5);
        for partition in 0..2 {
            let mut tries = 0;
            while applied(&handle, partition) < log.end(partition) {
                let next = applied(&handle, partition);
                failures += u32::from(
                    deliver(&handle, &log, partition, next..log.end(partition))
                        .await
                        .is_err(),
                );
                tries += 1;
                assert!(
                    tries < TRIES_MAX,
                    "seed {seed}: partition {partition} does not go on"
                );
            }
        }
        let mut flushed = handle.flush().await;
        for _ in 0..TRIES_MAX {
            if flushed.is_ok() {
                break;
            }
            failures += 1;
            flushed = handle.flush().await;
        }
        assert!(
            flushed.expect("flushed in the end").lost.is_empty(),
            "seed {seed}: nobody else is here"
        );
        let clean = site.open("check").await;
        check(&clean, &log, L1).await;
        verify(&clean, &log).await;
        if round % 2 == 1 {
            failures += u32::from(merge(&handle, &spec_of(&handle, None)).await.is_err());
        }
        if round % 3 == 2 {
            let collected = handle
                .collect_garbage(&GcOptions {
                    grace_ms: 0,
                    dry_run: false,
                })
                .await;
            failures += u32::from(collected.is_err());
        }
    }
    let clean = site.open("check").await;
    check(&clean, &log, L1).await;
    verify(&clean, &log).await;
    assert!(faults.fired() > 0);
    u64::from(failures)
}

#[test]
fn should_stay_what_the_log_says_under_random_faults() {
    run(async {
        let mut failures = 0;
        for seed in 0..12 {
            failures += history(seed, if seed % 2 == 0 { 50 } else { 700 }).await;
        }
        assert!(
            failures > 0,
            "faults that no caller ever notices test nothing"
        );
    });
}

/// One flushed segment, another record in the feed.
async fn begun() -> (Site, Log) {
    let (site, mut log) = (Site::new(L1, 2).await, Log::default());
    log.upsert(0, "a", 1, 1);
    log.upsert(0, "b", 2, 2);
    let writer = site.open("ingest").await;
    catch_up(&writer, &log, 0).await;
    writer.flush().await.expect("flushed");
    log.upsert(0, "b", 3, 3);
    log.upsert(0, "c", 4, 4);
    (site, log)
}

#[test]
fn should_flush_once_however_replies_are_lost() {
    run(async {
        for (op, key) in [
            (Op::Create, "commits/"),
            (Op::Swap, "HEAD"),
            (Op::Put, "seg/"),
        ] {
            for fault in [
                Fault::FailBefore,
                Fault::FailAfter,
                Fault::TakenBefore,
                Fault::TakenAfter,
            ] {
                let (site, log) = begun().await;
                let store = site.store.clone().with_faults(Faults::scripted([Rule::nth(
                    op,
                    key,
                    1,
                    fault.clone(),
                )]));
                let writer = site
                    .open_with(&store, "ingest", crash::none())
                    .await
                    .expect("opened");
                catch_up(&writer, &log, 0).await;
                let flushed = writer
                    .flush()
                    .await
                    .unwrap_or_else(|error| panic!("{op:?} {fault:?}: {error}"));
                assert_eq!(
                    (flushed.commits, flushed.lost.len()),
                    (1, 0),
                    "{op:?} {fault:?}"
                );
                let clean = site.open("check").await;
                check(&clean, &log, L1).await;
                verify(&clean, &log).await;
                assert_eq!(clean.snapshot().version(), 2, "{op:?} {fault:?}");
            }
        }
    });
}

#[test]
fn should_fail_a_flush_that_cannot_upload_and_flush_later() {
    run(async {
        for key in ["data.parquet", "index.vxi", "commits/"] {
            let (site, log) = begun().await;
            let faults = Faults::scripted([Rule {
                op: None,
                ..Rule::every(Op::Put, key, Fault::FailBefore)
            }]);
            let store = site.store.clone().with_faults(faults.clone());
            faults.clear();
            let writer = site
                .open_with(&store, "ingest", crash::none())
                .await
                .expect("opened");
            catch_up(&writer, &log, 0).await;
            faults.add(Rule {
                op: None,
                ..Rule::every(Op::Put, key, Fault::FailBefore)
            });
            let error = writer.flush().await.expect_err("the store is away");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            faults.clear();
            check(&writer, &log, L1).await;
            writer.flush().await.expect("flushed");
            check(&writer, &log, L1).await;
            verify(&*site.open("check").await, &log).await;
        }
    });
}

#[test]
fn should_answer_damaged_blocks_with_an_error_and_never_with_wrong_records() {
    run(async {
        for fault in [Fault::Flip(5), Fault::Truncate(3), Fault::WrongRange] {
            let (site, _log) = begun().await;
            let faults = Faults::scripted([]);
            let store = site.store.clone().with_faults(faults.clone());
            let reader = site
                .open_with(&store, "query", crash::none())
                .await
                .expect("opened");
            faults.add(Rule::every(Op::Ranges, "data.parquet", fault.clone()));
            let query = Search {
                truth: true,
                ..Search::new(vec![1.0, 2.0, 1.0], 5)
            };
            let error = reader
                .search(std::slice::from_ref(&query), Scope::Fresh)
                .await
                .expect_err("damaged");
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable),
                "{fault:?}: {error}"
            );
            assert!(faults.fired() > 0, "{fault:?} struck nothing");
            faults.clear();
            assert_eq!(
                reader
                    .search(&[query], Scope::Fresh)
                    .await
                    .expect("searched")
                    .hits[0]
                    .len(),
                2
            );
        }
    });
}

#[test]
fn should_keep_its_snapshot_while_the_store_is_away() {
    run(async {
        let (site, mut log) = begun().await;
        let faults = Faults::scripted([]);
        let store = site.store.clone().with_faults(faults.clone());
        let reader = site
            .open_with(&store, "query", crash::none())
            .await
            .expect("opened");
        let writer = site.open("ingest").await;
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        faults.add(Rule {
            op: None,
            ..Rule::every(Op::Get, "", Fault::FailBefore)
        });
        assert!(reader.follow().await.is_err(), "the store is away");
        assert_eq!(reader.snapshot().version(), 1);
        let error = deliver(&reader, &log, 0, 2..4)
            .await
            .expect_err("b lies in a segment, and where cannot be read");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(
            applied(&reader, 0),
            2,
            "a batch is taken whole or not at all"
        );
        assert_eq!(reader.feed.read(|view| view.card()), 2);
        log.upsert(1, "d", 5, 5);
        catch_up(&reader, &log, 1).await;
        assert_eq!(
            reader.feed.read(|view| view.card()),
            3,
            "what no segment holds goes on"
        );
        faults.clear();
        catch_up(&reader, &log, 0).await;
        assert_eq!(reader.feed.read(|view| view.card()), 4);
        reader.follow().await.expect("followed");
        check(&reader, &log, L1).await;
    });
}
