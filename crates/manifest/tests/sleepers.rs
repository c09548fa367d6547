//! Sleepers and sweeps: whoever wakes up in a slot, a load or a base that was swept meanwhile
//! acknowledges nothing, believes nothing and loses nothing.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::sync::Arc;

use common::{
    Change, Counters, Held, Toy, add, author, commit, create, directory, dying_at, open, quick,
};
use vexlake_manifest::{ManifestError, crash};
use vexlake_store::Op;

fn mark(retain_from: u64, cutoff_ms: u64) -> Change {
    Change::Mark {
        retain_from,
        cutoff_ms,
    }
}

#[tokio::test]
async fn should_never_acknowledge_a_ghost_in_a_swept_slot() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    commit(&awake, add(1)).await;
    let held = Held::at(Op::Create, 1);
    let sleeper = open(&plain.clone().with_faults(Arc::clone(&held.faults))).await;
    let asleep = {
        let sleeper = sleeper.clone();
        tokio::spawn(async move {
            sleeper
                .commit(&sleeper.head(), add(99), &author("sleeper"))
                .await
        })
    };
    held.reached().await;
    for token in 2..=10 {
        commit(&awake, add(token)).await;
    }
    commit(&awake, mark(8, 0)).await;
    awake.sweep_slots().await.unwrap();
    held.release();
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

#[tokio::test]
async fn should_not_believe_the_ghost_of_a_sleeper_that_died() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    let reader = open(&plain).await;
    let held = Held::at(Op::Create, 1);
    let store = plain.clone().with_faults(Arc::clone(&held.faults));
    let sleeper = Toy::open_with(store, dying_at(crash::COMMIT_AFTER_CREATE))
        .await
        .unwrap();
    let asleep = tokio::spawn(async move {
        sleeper
            .commit(&sleeper.head(), add(99), &author("sleeper"))
            .await
    });
    held.reached().await;
    for token in 1..=9 {
        commit(&awake, add(token)).await;
    }
    commit(&awake, mark(8, 0)).await;
    awake.sweep_slots().await.unwrap();
    held.release();
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
    let held = Held::at(Op::Get, 1);
    let store = plain.clone().with_faults(Arc::clone(&held.faults));
    let loading = tokio::spawn(async move { open(&store).await });
    held.reached().await;
    for token in 1..=5 {
        commit(&writer, add(token)).await;
    }
    commit(&writer, mark(4, 0)).await;
    writer.sweep_slots().await.unwrap();
    held.release();
    assert_eq!(loading.await.unwrap().head().id, writer.head().id);
}

#[tokio::test]
async fn should_not_load_a_ghost_that_appears_beyond_the_slot_that_head_named() {
    let here = directory();
    let plain = quick(&here).scoped("m");
    let awake = create(&plain).await;
    // A sleeper about to fill slot 1, who will die right after it.
    let held = Held::at(Op::Create, 1);
    let store = plain.clone().with_faults(Arc::clone(&held.faults));
    let sleeper = Toy::open_with(store, dying_at(crash::COMMIT_AFTER_CREATE))
        .await
        .unwrap();
    let asleep = tokio::spawn(async move {
        sleeper
            .commit(&sleeper.head(), add(99), &author("sleeper"))
            .await
    });
    // A loader that has read HEAD and slot 0 and is about to read slot 1.
    let paused = Held::at(Op::Get, 2);
    let store = plain.clone().with_faults(Arc::clone(&paused.faults));
    let loading = tokio::spawn(async move { open(&store).await });
    held.reached().await;
    paused.reached().await;
    for token in 1..=5 {
        commit(&awake, add(token)).await;
    }
    commit(&awake, mark(5, 0)).await;
    awake.sweep_slots().await.unwrap();
    held.release();
    assert!(asleep.await.is_err());
    paused.release();
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
    commit(&awake, mark(2, 9_000)).await;
    let bases = plain.list("bases").await.unwrap().len();
    let held = Held::at(Op::Create, 4);
    let slow = Toy::open(plain.clone().with_faults(Arc::clone(&held.faults)), still)
        .await
        .unwrap();
    for token in 4..=6 {
        commit(&slow, add(token)).await;
    }
    let rolling = {
        let slow = slow.clone();
        tokio::spawn(async move { slow.commit(&slow.head(), add(7), &author("slow")).await })
    };
    held.reached().await;
    assert_eq!(plain.list("bases").await.unwrap().len(), bases + 1);
    awake.sweep_slots().await.unwrap();
    held.release();
    let head = rolling.await.unwrap().unwrap();
    assert_eq!(open(&plain).await.head().id, head.id);
    // Orphans older than the cutoff do go.
    plain
        .put("bases/00000000000000000000000001", "lost race".into())
        .await
        .unwrap();
    assert_eq!(awake.sweep_slots().await.unwrap(), 1);
}
