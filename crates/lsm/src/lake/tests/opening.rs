//! Incarnations that open slowly, or not at all, beside those that do.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use vexlake_store::{Fault, Faults, Op, Rule};

use super::*;
use crate::Listed;

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

/// Deletes all of a segment: neither opened nor rebuilt any more.
async fn damage(lake: &Lake, id: Ulid) {
    let files = lake.store.list(&format!("c/{id}/seg")).await;
    for file in files.expect("listed") {
        lake.store.delete(&file.key).await.expect("deleted");
    }
}

#[test]
fn should_list_the_others_beside_what_cannot_be_opened() {
    run(async {
        let (_site, _log, [docs, other], lake, _) = two().await;
        damage(&lake, docs).await;
        let listed = lake.collections().await.expect("listed");
        let is_open = |name: &str| {
            let found = listed.iter().find(|one| one.name == name);
            matches!(found.expect("listed").live, Listed::Open(_))
        };
        assert!(is_open("other") && !is_open("docs"), "{listed:?}");
        let Listed::Unreadable { incarnation, .. } = &listed[0].live else {
            panic!("{listed:?}");
        };
        assert_eq!(*incarnation, docs.to_string());
        lake.incarnation(other).await.expect("opened");
        // Names do not depend on it either.
        let cleared = lake.clear(0, "docs", source(&[(0, 3), (1, 3)])).await;
        let cleared = cleared.expect("cleared");
        lake.incarnation(cleared).await.expect("opened");
        assert_eq!(lake.finish_leaving().await.expect("finished"), [docs]);
    });
}

#[test]
fn should_finish_all_that_leaves_but_what_has_no_commits_to_read() {
    run(async {
        let (_site, _log, mut ids, lake, _) = two().await;
        for name in ["docs", "other"] {
            lake.drop_collection(0, name).await.expect("dropped");
        }
        // They leave in this order.
        ids.sort();
        let [first, second] = ids;
        let head = format!("c/{first}/HEAD");
        let before = lake.store.get(&head).await.expect("read");
        lake.store.put(&head, "damage".into()).await.expect("put");

        let failed = lake.finish_leaving().await.expect_err("one cannot");

        assert_eq!(failed.kind(), ErrorKind::Corrupt, "{failed}");
        let leaving = || lake.catalog.head().state.leaving.clone();
        assert_eq!(leaving(), [first].into());
        let left = lake.store.list(&format!("c/{second}/seg")).await;
        assert!(left.expect("listed").is_empty());
        lake.store.put(&head, before).await.expect("restored");
        assert_eq!(lake.finish_leaving().await.expect("finished"), [first]);
    });
}
