//! Lost replies, false answers, sleepers and deaths, at every point of the protocol.
//! The final assertion is always the same: every acknowledged delta is there exactly
//! once, none twice, versions contiguous, and a fresh open agrees with a survivor.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{
    Added, Change, Counters, Toy, add, add_surely, author, clock, commit, create, directory, open,
    quick,
};
use futures::future::join_all;
use tokio::sync::Semaphore;
use vexlake_manifest::{Context, Manifest, ManifestError, crash};
use vexlake_store::{Fault, Faults, Op, Rule, Store};

/// Checks the whole history of an unharmed `store` against what was acknowledged.
async fn assert_exactly_once(store: &Store, acknowledged: &BTreeMap<u64, Added>) {
    let toy = open(store).await;
    let history = toy.history(usize::MAX).await.unwrap();
    let versions: Vec<u64> = history.iter().rev().map(|c| c.version).collect();
    assert_eq!(versions, (0..=toy.head().version).collect::<Vec<_>>());
    for (token, how) in acknowledged {
        let at: Vec<u64> = history
            .iter()
            .filter(|c| c.delta == Some(add(*token)))
            .map(|c| c.version)
            .collect();
        assert_eq!(at.len(), 1, "token {token} is at {at:?}");
        if let Added::At(version) = how {
            assert_eq!(at[0], *version);
        }
    }
    assert_eq!(toy.head().state.tokens.len() as u64, toy.head().version);
}

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
async fn should_never_acknowledge_a_ghost_in_a_swept_slot() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    commit(&awake, add(1)).await;
    let gate = Arc::new(Semaphore::new(0));
    let faults = Faults::scripted([Rule::nth(
        Op::Create,
        "commits/",
        1,
        Fault::Hold(Arc::clone(&gate)),
    )]);
    let sleeper = open(&plain.clone().with_faults(Arc::clone(&faults))).await;
    let asleep = {
        let sleeper = sleeper.clone();
        tokio::spawn(async move {
            sleeper
                .commit(&sleeper.head(), add(99), &author("sleeper"))
                .await
        })
    };
    while faults.fired() == 0 {
        tokio::task::yield_now().await;
    }
    for token in 2..=10 {
        commit(&awake, add(token)).await;
    }
    commit(
        &awake,
        Change::Mark {
            retain_from: 8,
            cutoff_ms: 0,
        },
    )
    .await;
    awake.sweep_slots().await.unwrap();
    gate.add_permits(1);
    let outcome = asleep.await.unwrap();
    assert!(
        matches!(outcome, Err(ManifestError::Conflict { version: 11 })),
        "{outcome:?}"
    );
    assert!(!sleeper.head().state.tokens.contains(&99));
    assert_eq!(
        plain.list("commits").await.unwrap()[0].key,
        "commits/00000000000000000008"
    );
}

/// Dies at a point: the task ends there, as the process would.
fn dying_at(point: &'static str) -> Context {
    let crash: crash::CrashPoint = Arc::new(move |passed| {
        if passed == point {
            std::panic::resume_unwind(Box::new("died"));
        }
    });
    Context {
        crash,
        ..Context::new(clock())
    }
}

#[tokio::test]
async fn should_not_believe_the_ghost_of_a_sleeper_that_died() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    let reader = open(&plain).await;
    let gate = Arc::new(Semaphore::new(0));
    let faults = Faults::scripted([Rule::nth(
        Op::Create,
        "commits/",
        1,
        Fault::Hold(Arc::clone(&gate)),
    )]);
    let store = plain.clone().with_faults(Arc::clone(&faults));
    let sleeper = Toy::open_with(store, dying_at(crash::COMMIT_AFTER_CREATE))
        .await
        .unwrap();
    let asleep = tokio::spawn(async move {
        sleeper
            .commit(&sleeper.head(), add(99), &author("sleeper"))
            .await
    });
    while faults.fired() == 0 {
        tokio::task::yield_now().await;
    }
    for token in 1..=9 {
        commit(&awake, add(token)).await;
    }
    commit(
        &awake,
        Change::Mark {
            retain_from: 8,
            cutoff_ms: 0,
        },
    )
    .await;
    awake.sweep_slots().await.unwrap();
    gate.add_permits(1);
    assert!(asleep.await.is_err());
    assert!(
        plain
            .size("commits/00000000000000000001")
            .await
            .unwrap()
            .is_some()
    );
    // The ghost has the reader's own version as its parent, and nothing gives it away but HEAD.
    assert_eq!(reader.head().version, 0);
    assert_eq!(reader.refresh().await.unwrap().id, awake.head().id);
    let lagging = open(&plain).await;
    assert!(matches!(
        lagging.at(1).await,
        Err(ManifestError::Expired { .. })
    ));
    assert_eq!(awake.sweep_slots().await.unwrap(), 1);
}

#[tokio::test]
async fn should_start_a_load_over_where_a_sweep_passed_it() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let writer = create(&plain).await;
    let gate = Arc::new(Semaphore::new(0));
    let faults = Faults::scripted([Rule::nth(
        Op::Get,
        "commits/",
        1,
        Fault::Hold(Arc::clone(&gate)),
    )]);
    let store = plain.clone().with_faults(Arc::clone(&faults));
    let loading = tokio::spawn(async move { open(&store).await });
    while faults.fired() == 0 {
        tokio::task::yield_now().await;
    }
    for token in 1..=5 {
        commit(&writer, add(token)).await;
    }
    commit(
        &writer,
        Change::Mark {
            retain_from: 4,
            cutoff_ms: 0,
        },
    )
    .await;
    writer.sweep_slots().await.unwrap();
    gate.add_permits(1);
    assert_eq!(loading.await.unwrap().head().id, writer.head().id);
}

#[tokio::test]
async fn should_not_load_a_ghost_that_appears_beyond_the_slot_that_head_named() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    let (create_gate, get_gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    // A sleeper about to fill slot 1, who will die right after it.
    let held = Faults::scripted([Rule::nth(
        Op::Create,
        "commits/",
        1,
        Fault::Hold(Arc::clone(&create_gate)),
    )]);
    let store = plain.clone().with_faults(Arc::clone(&held));
    let sleeper = Toy::open_with(store, dying_at(crash::COMMIT_AFTER_CREATE))
        .await
        .unwrap();
    let asleep = tokio::spawn(async move {
        sleeper
            .commit(&sleeper.head(), add(99), &author("sleeper"))
            .await
    });
    // A loader that has read HEAD and slot 0 and is about to read slot 1.
    let paused = Faults::scripted([Rule::nth(
        Op::Get,
        "commits/",
        2,
        Fault::Hold(Arc::clone(&get_gate)),
    )]);
    let store = plain.clone().with_faults(Arc::clone(&paused));
    let loading = tokio::spawn(async move { open(&store).await });
    while held.fired() == 0 || paused.fired() == 0 {
        tokio::task::yield_now().await;
    }
    for token in 1..=5 {
        commit(&awake, add(token)).await;
    }
    commit(
        &awake,
        Change::Mark {
            retain_from: 5,
            cutoff_ms: 0,
        },
    )
    .await;
    awake.sweep_slots().await.unwrap();
    create_gate.add_permits(1);
    assert!(asleep.await.is_err());
    get_gate.add_permits(1);
    assert_eq!(loading.await.unwrap().head().id, awake.head().id);
}

#[tokio::test]
async fn should_not_sweep_the_base_of_a_commit_under_way() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let initial = Counters {
        fold_at: 3,
        ..Counters::default()
    };
    // A clock that stands still before the cutoff: minting must not rely on it.
    let still: vexlake_manifest::Clock = Arc::new(|| 1_000);
    let awake = Toy::create(plain.clone(), initial, &author("a"), Arc::clone(&still))
        .await
        .unwrap();
    for token in 1..=3 {
        commit(&awake, add(token)).await;
    }
    commit(
        &awake,
        Change::Mark {
            retain_from: 2,
            cutoff_ms: 9_000,
        },
    )
    .await;
    let bases = plain.list("bases").await.unwrap().len();
    let gate = Arc::new(Semaphore::new(0));
    let faults = Faults::scripted([]);
    let slow = Toy::open(plain.clone().with_faults(Arc::clone(&faults)), still)
        .await
        .unwrap();
    for token in 4..=6 {
        commit(&slow, add(token)).await;
    }
    faults.add(Rule::nth(
        Op::Create,
        "commits/",
        1,
        Fault::Hold(Arc::clone(&gate)),
    ));
    let rolling = {
        let slow = slow.clone();
        tokio::spawn(async move { slow.commit(&slow.head(), add(7), &author("slow")).await })
    };
    while faults.fired() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(plain.list("bases").await.unwrap().len(), bases + 1);
    awake.sweep_slots().await.unwrap();
    gate.add_permits(1);
    let head = rolling.await.unwrap().unwrap();
    assert_eq!(open(&plain).await.head().id, head.id);
    // Orphans older than the cutoff do go.
    plain
        .put("bases/00000000000000000000000001", "lost race".into())
        .await
        .unwrap();
    assert_eq!(awake.sweep_slots().await.unwrap(), 1);
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
