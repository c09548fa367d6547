//! Incarnations that open slowly, or not at all, beside those that do.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use vexlake_store::{Fault, Faults, Op, Rule};

use super::*;

/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two collections with a segment each, and a lake that has opened none of them, on a
/// store with faults to come.
async fn two() -> (Site, Log, [Ulid; 2], Arc<Lake>, Arc<Faults>) {
    let (site, lake, docs, log) = begun().await;
    let made = lake.create(0, "other", schema(L2), source(&[(0, 0), (1, 0)]));
    let other = made.await.expect("created");
    for id in [docs, other] {
        feed(&lake, id, &log).await;
    }
    let (lake, faults) = struck(&site).await;
    (site, log, [docs, other], lake, faults)
}

/// A lake anew, on a store with faults to come.
async fn struck(site: &Site) -> (Arc<Lake>, Arc<Faults>) {
    let faults = Faults::scripted([]);
    let mut lake = open(site, "again").await;
    let opened = Arc::get_mut(&mut lake).expect("nobody else has it");
    opened.store = opened.store.clone().with_faults(faults.clone());
    (lake, faults)
}

#[test]
fn should_answer_from_one_collection_while_another_is_being_opened() {
    run(async {
        let (_site, log, [docs, other], lake, faults) = two().await;
        let gate = Arc::new(Semaphore::new(0));
        let slow = format!("c/{other}/seg");
        faults.add(Rule::nth(Op::Get, &slow, 1, Fault::Hold(gate.clone())));
        let opening = tokio::spawn({
            let lake = lake.clone();
            async move { lake.incarnation(other).await.map(drop) }
        });
        while faults.fired() == 0 {
            tokio::task::yield_now().await;
        }

        let opened = timeout(PATIENCE, lake.incarnation(docs)).await;

        let opened = opened.expect("nobody waits").expect("opened");
        check(&opened, &log, L2).await;
        gate.add_permits(1);
        opening.await.expect("no panic").expect("opened");
    });
}

#[test]
fn should_open_an_incarnation_once_for_all_who_ask_and_again_after_a_failure() {
    run(async {
        let (_site, _log, [docs, _], lake, faults) = two().await;
        faults.add(Rule::every(Op::Get, "index.vxi", Fault::Refuse));
        lake.incarnation(docs).await.err().expect("cannot open");
        faults.clear();
        let (a, b) = tokio::join!(lake.incarnation(docs), lake.incarnation(docs));
        assert!(Arc::ptr_eq(&a.expect("opened"), &b.expect("opened")));
    });
}

#[test]
fn should_close_what_lost_its_name_once_nobody_asks_for_it() {
    run(async {
        let (site, lake, id, log) = begun().await;
        let old = Arc::downgrade(&feed(&lake, id, &log).await);
        let cleared = lake.clear(0, "docs", source(&[(0, 3), (1, 3)])).await;
        let new = lake.incarnation(cleared.expect("cleared")).await;
        let new = Arc::downgrade(&new.expect("opened"));
        lake.collections().await.expect("listed");
        assert!(old.upgrade().is_some(), "its feed may still run");
        site.tick(2 * UNNAMED_MS_MAX);
        lake.incarnation(id).await.expect("asked for again");
        lake.collections().await.expect("listed");
        assert!(old.upgrade().is_some(), "it was asked for");
        site.tick(2 * UNNAMED_MS_MAX);
        lake.collections().await.expect("listed");
        assert!(old.upgrade().is_none(), "nobody asks for it");
        assert!(new.upgrade().is_some(), "it has a name");
    });
}
