//! The contract of a manifest, run over every store: creating, committing, losing races,
//! retiring, and what is refused. What a reader sees of it is in `travel.rs`.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{
    Added, Change, Counters, Toy, UNFOLDABLE, add, add_surely, author, clock, commit, create, each,
    open, ticking,
};
use futures::future::join_all;
use vexlake_manifest::{Manifest, ManifestError};

#[tokio::test]
async fn should_open_what_was_created_and_committed() {
    each(async |store| {
        assert!(matches!(
            Toy::open(store.clone(), clock()).await,
            Err(ManifestError::NotFound { .. })
        ));
        let toy = create(&store).await;
        assert_eq!(
            (toy.head().version, toy.head().parent, &toy.head().delta),
            (0, None, &None)
        );
        for token in 1..=3 {
            let head = commit(&toy, add(token)).await;
            assert_eq!(
                (head.version, head.delta.clone()),
                (token, Some(add(token)))
            );
        }
        let other = open(&store).await.head();
        let head = toy.head();
        assert_eq!(
            (other.version, other.id, other.parent, other.when_ms),
            (3, head.id, head.parent, head.when_ms)
        );
        assert_eq!(
            (&other.state, &other.delta, &other.author),
            (&head.state, &head.delta, &head.author)
        );
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_second_creation() {
    each(async |store| {
        create(&store).await;
        let again =
            Manifest::create(store.clone(), Counters::default(), &author("b"), clock()).await;
        assert!(matches!(again, Err(ManifestError::Conflict { .. })));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_let_one_of_many_concurrent_creations_win() {
    each(async |store| {
        let creations = (0..3).map(|i| {
            let store = store.clone();
            async move {
                Manifest::create(
                    store,
                    Counters::default(),
                    &author(&format!("{i}")),
                    clock(),
                )
                .await
            }
        });
        let outcomes = join_all(creations).await;
        let won: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(won.len(), 1);
        assert_eq!(open(&store).await.head().id, won[0].head().id);
        assert!(
            outcomes
                .iter()
                .all(|o| matches!(o, Ok(_) | Err(ManifestError::Conflict { .. })))
        );
    })
    .await;
}

#[tokio::test]
async fn should_answer_conflict_with_the_winner_loaded() {
    each(async |store| {
        let (first, second) = (create(&store).await, open(&store).await);
        commit(&first, add(1)).await;
        let lost = second.commit(&second.head(), add(2), &author("b")).await;
        assert!(matches!(lost, Err(ManifestError::Conflict { version: 1 })));
        assert_eq!(second.head().id, first.head().id);
        let head = second
            .commit(&second.head(), add(2), &author("b"))
            .await
            .unwrap();
        assert_eq!((head.version, head.author.instance.as_str()), (2, "b"));
    })
    .await;
}

#[tokio::test]
async fn should_end_a_broken_rule_without_a_commit() {
    each(async |store| {
        let toy = create(&store).await;
        commit(&toy, add(1)).await;
        let before = store.usage();
        let broken = toy.commit(&toy.head(), add(1), &author("a")).await;
        assert!(matches!(broken, Err(ManifestError::Invalid(v)) if v.rule == "token-once"));
        assert_eq!(store.usage(), before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_keep_every_acknowledged_delta_of_concurrent_committers_once() {
    each(async |store| {
        create(&store).await;
        // 3 committers: SeaweedFS lets contended losers of more wait for seconds.
        let tasks = (0..3u64).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let toy = open(&store).await;
                let mut added = Vec::new();
                for i in 0..12 {
                    let token = task * 100 + i;
                    added.push((token, add_surely(&toy, token).await));
                }
                added
            })
        });
        let mut added = Vec::new();
        for task in join_all(tasks).await {
            added.extend(task.unwrap());
        }
        let toy = open(&store).await;
        let history = toy.history(usize::MAX).await.unwrap();
        let versions: Vec<u64> = history.iter().rev().map(|c| c.version).collect();
        assert_eq!(versions, (0..=36).collect::<Vec<_>>());
        for (token, how) in added {
            let at: Vec<u64> = history
                .iter()
                .filter(|c| c.delta == Some(add(token)))
                .map(|c| c.version)
                .collect();
            assert_eq!(at.len(), 1, "token {token}");
            assert!(how == Added::At(at[0]) || how == Added::Found);
        }
    })
    .await;
}

#[tokio::test]
async fn should_fence_every_commit_after_a_retirement() {
    each(async |store| {
        let (first, second) = (create(&store).await, open(&store).await);
        let live = second.head();
        commit(&first, Change::Retire).await;
        let fenced = |outcome| matches!(outcome, Err(ManifestError::Fenced { version: 1 }));
        assert!(fenced(
            first
                .commit(&first.head(), add(1), &author("a"))
                .await
                .map(|_| ())
        ));
        assert!(fenced(
            second.commit(&live, add(1), &author("b")).await.map(|_| ())
        ));
        assert_eq!(open(&store).await.head().version, 1);
    })
    .await;
}

#[tokio::test]
async fn should_never_let_time_run_backwards() {
    each(async |store| {
        let (clock, now) = ticking(5_000);
        let toy = Toy::create(store.clone(), Counters::default(), &author("a"), clock)
            .await
            .unwrap();
        now.store(10, std::sync::atomic::Ordering::SeqCst);
        let head = commit(&toy, add(1)).await;
        assert_eq!(head.when_ms, 5_000);
        commit(
            &toy,
            Change::Mark {
                retain_from: 0,
                cutoff_ms: 9_000,
            },
        )
        .await;
        assert_eq!(toy.mint().timestamp_ms(), 9_001);
        let back = toy
            .commit(
                &toy.head(),
                Change::Mark {
                    retain_from: 0,
                    cutoff_ms: 8_999,
                },
                &author("a"),
            )
            .await;
        assert!(matches!(back, Err(ManifestError::Invalid(v)) if v.rule == "mark-monotone"));
        let beyond = toy
            .commit(
                &toy.head(),
                Change::Mark {
                    retain_from: 4,
                    cutoff_ms: 9_000,
                },
                &author("a"),
            )
            .await;
        assert!(matches!(beyond, Err(ManifestError::Invalid(v)) if v.rule == "mark-monotone"));
    })
    .await;
}

#[tokio::test]
async fn should_roll_the_base_by_size_and_by_the_states_wish() {
    each(async |store| {
        let toy = create(&store).await;
        for _ in 0..5 {
            commit(&toy, Change::Padding("x".repeat(100 << 10))).await;
        }
        // 100 and 200 KiB fit, 300 do not: version 3 rolls on 2, version 5 on 4.
        assert_eq!(store.list("bases").await.unwrap().len(), 3);

        let wishful = store.scoped("wishful");
        let initial = Counters {
            fold_at: 4,
            ..Counters::default()
        };
        let toy = Toy::create(wishful.clone(), initial, &author("a"), clock())
            .await
            .unwrap();
        let reader = open(&wishful).await;
        for token in 1..=10 {
            commit(&toy, add(token)).await;
            let followed = reader.refresh().await.unwrap();
            // Followers hold the folded state as well, not only an equivalent one.
            assert_eq!(followed.state, toy.head().state);
        }
        assert_eq!((toy.head().state.folds, toy.head().state.unfolded), (2, 2));
        assert_eq!(
            Arc::clone(&open(&wishful).await.head().state),
            toy.head().state
        );
    })
    .await;
}

#[tokio::test]
async fn should_commit_although_the_state_cannot_be_folded() {
    each(async |store| {
        let store = store.scoped("unfoldable");
        let initial = Counters {
            fold_at: 2,
            counts: BTreeMap::from([(UNFOLDABLE.to_owned(), 0)]),
            ..Counters::default()
        };
        let toy = Toy::create(store.clone(), initial, &author("a"), clock())
            .await
            .unwrap();
        let reader = open(&store).await;
        for token in 1..=130 {
            commit(&toy, add(token)).await;
        }
        assert_eq!(reader.refresh().await.unwrap().state, toy.head().state);
        assert_eq!(open(&store).await.head().state, toy.head().state);
        assert_eq!(toy.head().state.folds, 0);
        // Version 0, and a full chain twice: 65 and 129 are the first beyond 64 deltas.
        assert_eq!(store.list("bases").await.unwrap().len(), 3);
        commit(&toy, Change::Retire).await;
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_commit_that_no_reader_should_have_to_hold() {
    each(async |store| {
        let toy = create(&store).await;
        let huge = toy
            .commit(
                &toy.head(),
                Change::Padding("x".repeat(17 << 20)),
                &author("a"),
            )
            .await;
        assert!(matches!(huge, Err(ManifestError::Invalid(v)) if v.rule == "commit-size"));
        commit(&toy, Change::Padding("x".repeat(1 << 20))).await;
        assert_eq!(open(&store).await.head().version, 1);
    })
    .await;
}

/// Services spawn these: the futures must be able to move between threads while they
/// borrow what lives in another future.
#[tokio::test]
async fn should_offer_futures_that_can_be_spawned() {
    each(async |store| {
        let all = tokio::spawn(async move {
            let by = author("a");
            let toy = Toy::create(store.clone(), Counters::default(), &by, clock()).await?;
            let parent = toy.head();
            toy.commit(&parent, add(1), &by).await?;
            let other = Toy::open(store.clone(), clock()).await?;
            other.refresh().await?;
            other.at(0).await?;
            other.at_time(u64::MAX).await?;
            other.history(1).await?;
            other.sweep_slots().await
        });
        assert_eq!(all.await.unwrap().unwrap(), 0);
    })
    .await;
}
