//! Lost replies, false answers and deaths, at every point of the protocol. The final
//! assertion is always the same: every acknowledged delta is there exactly once, none
//! twice, versions contiguous, and a fresh open agrees with a survivor.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{
    Added, Change, Counters, Toy, add, add_surely, assert_exactly_once, author, clock, commit,
    create, directory, dying_at, open, quick,
};
use futures::future::join_all;
use vexlake_manifest::{Manifest, ManifestError, crash};
use vexlake_store::{Fault, Faults, Op, Rule};

#[tokio::test]
async fn should_survive_each_fault_at_each_call_of_each_kind() {
    let faults = [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::TakenBefore,
        Fault::TakenAfter,
    ];
    let mut struck = 0;
    for op in [Op::Create, Op::Swap, Op::Get, Op::Put, Op::List] {
        for fault in &faults {
            for nth in 1..=40 {
                let here = directory();
                let plain = quick(&here).scoped("m");
                let script = Faults::scripted([Rule::nth(op, "", nth, fault.clone())]);
                let store = plain.clone().with_faults(Arc::clone(&script));
                let initial = Counters {
                    fold_at: 3,
                    ..Counters::default()
                };
                // A creation in doubt is settled by opening.
                let toy = match Toy::create(store.clone(), initial, &author("a"), clock()).await {
                    Ok(toy) => toy,
                    Err(ManifestError::Store(_) | ManifestError::Conflict { .. }) => {
                        open(&store).await
                    }
                    Err(error) => panic!("{op:?} {fault:?} {nth}: {error}"),
                };
                let mut acknowledged = BTreeMap::new();
                for token in 1..=5 {
                    acknowledged.insert(token, add_surely(&toy, token).await);
                }
                assert_exactly_once(&plain, &acknowledged).await;
                struck += script.fired();
                if script.fired() == 0 {
                    break;
                }
            }
        }
    }
    assert!(struck > 100, "only {struck} calls were struck");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_keep_concurrent_committers_exact_under_random_faults() {
    for seed in 0..12 {
        let here = directory();
        let plain = quick(&here).scoped("m");
        create(&plain).await;
        let tasks = (0..4u64).map(|task| {
            let faults = Faults::random(seed * 31 + task, 150);
            let store = plain.clone().with_faults(faults);
            tokio::spawn(async move {
                let toy = loop {
                    if let Ok(toy) = Toy::open(store.clone(), clock()).await {
                        break toy;
                    }
                };
                let mut added = Vec::new();
                for i in 0..20 {
                    let token = task * 100 + i;
                    added.push((token, add_surely(&toy, token).await));
                }
                added
            })
        });
        let mut acknowledged = BTreeMap::new();
        for task in join_all(tasks).await {
            acknowledged.extend(task.unwrap());
        }
        assert_exactly_once(&plain, &acknowledged).await;
    }
}

#[tokio::test]
async fn should_settle_a_lost_reply_by_reading_its_own_slot() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    for (i, fault) in [
        Fault::FailAfter,
        Fault::TakenAfter,
        Fault::FailBefore,
        Fault::TakenBefore,
    ]
    .into_iter()
    .enumerate()
    {
        let plain = plain.scoped(&i.to_string());
        create(&plain).await;
        let faults = Faults::scripted([Rule::nth(Op::Create, "commits/", 1, fault)]);
        let toy = open(&plain.clone().with_faults(faults)).await;
        assert_eq!(commit(&toy, add(1)).await.version, 1);
        assert_eq!(open(&plain).await.head().id, toy.head().id);
    }
}

#[tokio::test]
async fn should_say_that_a_commit_is_in_doubt_where_nothing_can_settle_it() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    create(&plain).await;
    let faults = Faults::scripted([]);
    let toy = open(&plain.clone().with_faults(Arc::clone(&faults))).await;
    faults.add(Rule::every(Op::Create, "commits/", Fault::FailAfter));
    faults.add(Rule {
        nth: 2,
        times: u64::MAX,
        ..Rule::nth(Op::Get, "commits/", 2, Fault::FailBefore)
    });
    let outcome = toy.commit(&toy.head(), add(1), &author("a")).await;
    assert!(matches!(outcome, Err(ManifestError::Store(e)) if e.doubt));
    faults.clear();
    assert!(toy.refresh().await.unwrap().state.tokens.contains(&1));
}

#[tokio::test]
async fn should_keep_the_doubt_whatever_fails_while_it_is_settled() {
    // (what the create answers, the read that is struck, how): a refusal, damage, a lost HEAD.
    let lost = Fault::FailAfter;
    let taken = Fault::TakenAfter;
    for (create_fault, op, key, nth, fault) in [
        (Some(&lost), Op::Get, "commits/", 2, Fault::Refuse),
        (Some(&taken), Op::Get, "commits/", 2, Fault::Refuse),
        (Some(&lost), Op::Get, "commits/", 2, Fault::Flip(3)),
        (None, Op::Get, "HEAD", 1, Fault::Refuse),
        (None, Op::Get, "HEAD", 1, Fault::Flip(3)),
    ] {
        let here = directory();
        let plain = quick(&here).scoped("m");
        create(&plain).await;
        let faults = Faults::scripted([]);
        let toy = open(&plain.clone().with_faults(Arc::clone(&faults))).await;
        if let Some(fault) = create_fault {
            faults.add(Rule::nth(Op::Create, "commits/", 1, fault.clone()));
        }
        faults.add(Rule {
            nth,
            ..Rule::every(op, key, fault.clone())
        });
        let outcome = toy.commit(&toy.head(), add(1), &author("a")).await;
        assert!(
            matches!(&outcome, Err(ManifestError::Store(e)) if e.doubt),
            "{create_fault:?} {key} {fault:?}: {outcome:?}"
        );
        faults.clear();
        assert!(toy.refresh().await.unwrap().state.tokens.contains(&1));
    }
}

#[tokio::test]
async fn should_not_acknowledge_a_slot_that_a_disk_could_not_sync() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    create(&plain).await;
    let faults = Faults::scripted([Rule::nth(Op::Create, "commits/", 1, Fault::Unsynced)]);
    let toy = open(&plain.clone().with_faults(faults)).await;
    // The slot can be read and holds our id; a power cut may still undo it.
    let outcome = toy.commit(&toy.head(), add(1), &author("a")).await;
    assert!(matches!(outcome, Err(ManifestError::Store(e)) if e.doubt));
    toy.refresh().await.unwrap();
    assert_eq!(add_surely(&toy, 1).await, Added::Found);
}

#[tokio::test]
async fn should_not_fail_a_commit_because_head_cannot_be_moved() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    create(&plain).await;
    let faults = Faults::scripted([Rule::every(Op::Swap, "HEAD", Fault::FailBefore)]);
    let toy = open(&plain.clone().with_faults(Arc::clone(&faults))).await;
    for token in 1..=10 {
        commit(&toy, add(token)).await;
    }
    assert_eq!(toy.head_moves_failed(), 10);
    let reader = open(&plain).await;
    assert_eq!(reader.head().version, 10);
    // A sweep, though, must have HEAD where its mark says, or delete nothing.
    commit(
        &toy,
        Change::Mark {
            retain_from: 5,
            cutoff_ms: 0,
        },
    )
    .await;
    assert!(toy.sweep_slots().await.is_err());
    assert_eq!(plain.list("commits").await.unwrap().len(), 12);
    faults.clear();
    assert_eq!(toy.sweep_slots().await.unwrap(), 5);
    assert_eq!(open(&plain).await.head().version, 11);
}

#[tokio::test]
async fn should_recover_from_a_death_at_every_point_of_a_commit() {
    let points = [
        (crash::COMMIT_BEFORE_CREATE, 1),
        (crash::COMMIT_AFTER_CREATE, 2),
        (crash::HEAD_BEFORE_SWAP, 2),
    ];
    for (point, version) in points {
        let here = directory();
        let store = quick(&here).scoped("m");
        commit(&create(&store).await, add(1)).await;
        let dying = Toy::open_with(store.clone(), dying_at(point))
            .await
            .unwrap();
        let died =
            tokio::spawn(
                async move { dying.commit(&dying.head(), add(2), &author("dying")).await },
            );
        assert!(died.await.is_err());
        let next = open(&store).await;
        assert_eq!(next.head().version, version, "{point}");
        let at = add_surely(&next, 2).await;
        assert_eq!(
            at,
            if version == 2 {
                Added::Found
            } else {
                Added::At(2)
            }
        );
        assert_exactly_once(
            &store,
            &BTreeMap::from([(1, Added::At(1)), (2, Added::At(2))]),
        )
        .await;
    }
}

#[tokio::test]
async fn should_finish_a_creation_that_died_before_head() {
    for point in [
        crash::COMMIT_BEFORE_CREATE,
        crash::COMMIT_AFTER_CREATE,
        crash::HEAD_BEFORE_SWAP,
    ] {
        let here = directory();
        let store = quick(&here).scoped("m");
        let here_store = store.clone();
        let dying = async move {
            Manifest::create_with(
                here_store,
                Counters::default(),
                &author("a"),
                dying_at(point),
            )
            .await
        };
        assert!(tokio::spawn(dying).await.is_err());
        if point == crash::COMMIT_BEFORE_CREATE {
            assert!(matches!(
                Toy::open(store.clone(), clock()).await,
                Err(ManifestError::NotFound { .. })
            ));
            create(&store).await;
        } else {
            let again =
                Toy::create(store.clone(), Counters::default(), &author("b"), clock()).await;
            assert!(matches!(again, Err(ManifestError::Conflict { .. })));
        }
        commit(&open(&store).await, add(1)).await;
        assert_eq!(open(&store).await.head().version, 1);
    }
}

#[tokio::test]
async fn should_read_a_body_again_that_a_connection_broke() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    commit(&create(&plain).await, add(1)).await;
    for key in ["HEAD", "commits/", "bases/"] {
        for fault in [
            Fault::Truncate(5),
            Fault::Truncate(usize::MAX),
            Fault::Flip(40),
        ] {
            let faults = Faults::scripted([Rule::nth(Op::Get, key, 1, fault)]);
            assert_eq!(
                open(&plain.clone().with_faults(Arc::clone(&faults)))
                    .await
                    .head()
                    .version,
                1
            );
            assert_eq!(faults.fired(), 1);
        }
    }
}
