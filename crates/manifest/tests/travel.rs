//! Readers of a manifest, run over every store: following, older versions, sweeps, walks.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::collections::BTreeMap;

use common::{Change, Counters, Toy, add, author, clock, commit, create, each, open, ticking};
use vexlake_manifest::ManifestError;

#[tokio::test]
async fn should_follow_commits_without_reading_the_whole_again() {
    each(async |store| {
        let (writer, reader) = (create(&store).await, open(&store).await);
        commit(&writer, add(1)).await;
        let before = store.usage().gets;
        assert_eq!(reader.refresh().await.unwrap().version, 1);
        // The new slot, the absent one after it, HEAD.
        assert_eq!(store.usage().gets - before, 3);
        let before = store.usage().gets;
        assert_eq!(reader.refresh().await.unwrap().version, 1);
        assert_eq!(store.usage().gets - before, 2);
        for token in 2..=20 {
            commit(&writer, add(token)).await;
        }
        let before = store.usage().gets;
        assert_eq!(reader.refresh().await.unwrap().state, writer.head().state);
        assert!(store.usage().gets - before <= 11);
    })
    .await;
}

#[tokio::test]
async fn should_travel_to_every_version_across_base_rolls() {
    each(async |store| {
        let toy = create(&store).await;
        let mut states = vec![toy.head().state.clone()];
        for token in 1..=140 {
            states.push(commit(&toy, add(token)).await.state.clone());
        }
        assert_eq!(store.list("bases").await.unwrap().len(), 3);
        let other = open(&store).await;
        for version in [0, 1, 63, 64, 65, 66, 128, 129, 130, 139, 140] {
            let head = other.at(version).await.unwrap();
            assert_eq!(head.version, version);
            assert_eq!(
                head.state.counts, states[version as usize].counts,
                "version {version}"
            );
        }
        assert!(matches!(
            other.at(141).await,
            Err(ManifestError::NotYet {
                version: 141,
                head: 140
            })
        ));
        let history = other.history(usize::MAX).await.unwrap();
        assert_eq!(history.len(), 141);
        assert!(
            history
                .windows(2)
                .all(|pair| pair[0].version == pair[1].version + 1)
        );
        assert!(
            history[..140]
                .iter()
                .all(|c| c.delta == Some(add(c.version)))
        );
        assert_eq!(other.history(5).await.unwrap().len(), 5);
    })
    .await;
}

#[tokio::test]
async fn should_travel_by_time() {
    each(async |store| {
        let (clock, now) = ticking(0);
        let set = |ms| now.store(ms, std::sync::atomic::Ordering::SeqCst);
        let toy = Toy::create(store.clone(), Counters::default(), &author("a"), clock)
            .await
            .unwrap();
        for version in 1..=20 {
            set(version * 1_000);
            assert_eq!(commit(&toy, add(version)).await.when_ms, version * 1_000);
        }
        for (ms, version) in [
            (999, 0),
            (1_000, 1),
            (1_999, 1),
            (7_500, 7),
            (20_000, 20),
            (u64::MAX, 20),
        ] {
            assert_eq!(toy.at_time(ms).await.unwrap().version, version, "{ms} ms");
        }
        commit(
            &toy,
            Change::Mark {
                retain_from: 10,
                cutoff_ms: 0,
            },
        )
        .await;
        assert!(matches!(
            toy.at_time(9_999).await,
            Err(ManifestError::Expired { .. })
        ));
        assert_eq!(toy.at_time(10_000).await.unwrap().version, 10);
    })
    .await;
}

#[tokio::test]
async fn should_sweep_what_no_mark_retains_and_no_pin_holds() {
    each(async |store| {
        let toy = create(&store).await;
        for token in 1..=130 {
            commit(&toy, add(token)).await;
        }
        assert_eq!(toy.sweep_slots().await.unwrap(), 0);
        commit(&toy, Change::Pin(30)).await;
        commit(&toy, Change::Pin(100)).await;
        let cutoff_ms = toy.head().when_ms;
        commit(
            &toy,
            Change::Mark {
                retain_from: 120,
                cutoff_ms,
            },
        )
        .await;
        let stale = open(&store).await;
        // 120 slots but two pinned; base 0 serves pin 30, base 64 pin 100 and 120..128.
        assert_eq!(toy.sweep_slots().await.unwrap(), 118);
        assert_eq!(toy.sweep_slots().await.unwrap(), 0);
        assert_eq!(store.list("commits").await.unwrap().len(), 134 - 118);
        assert_eq!(stale.at(30).await.unwrap().state.tokens.len(), 30);
        assert_eq!(stale.at(100).await.unwrap().state.tokens.len(), 100);
        assert_eq!(stale.at(120).await.unwrap().state.tokens.len(), 120);
        assert!(matches!(
            stale.at(119).await,
            Err(ManifestError::Expired {
                version: 119,
                retain_from: 120
            })
        ));
        let history = stale.history(usize::MAX).await.unwrap();
        assert_eq!(history.last().unwrap().version, 120);

        commit(&toy, Change::Unpin(30)).await;
        let cutoff_ms = toy.head().when_ms;
        commit(
            &toy,
            Change::Mark {
                retain_from: toy.head().version,
                cutoff_ms,
            },
        )
        .await;
        toy.sweep_slots().await.unwrap();
        assert!(matches!(
            toy.at(30).await,
            Err(ManifestError::Expired { .. })
        ));
        assert_eq!(toy.at(100).await.unwrap().state.tokens.len(), 100);
        assert_eq!(open(&store).await.head().id, toy.head().id);
    })
    .await;
}

#[tokio::test]
async fn should_load_anew_where_the_known_head_was_swept() {
    each(async |store| {
        let (writer, reader) = (create(&store).await, open(&store).await);
        for token in 1..=10 {
            commit(&writer, add(token)).await;
        }
        commit(
            &writer,
            Change::Mark {
                retain_from: 10,
                cutoff_ms: 0,
            },
        )
        .await;
        writer.sweep_slots().await.unwrap();
        assert_eq!(reader.refresh().await.unwrap().version, 11);
        assert_eq!(reader.head().state, writer.head().state);
    })
    .await;
}

#[tokio::test]
async fn should_walk_over_every_version_as_its_own_commit_has_it() {
    each(async |store| {
        let store = store.scoped("walked");
        let initial = Counters {
            fold_at: 5,
            ..Counters::default()
        };
        let toy = Toy::create(store.clone(), initial, &author("a"), clock())
            .await
            .unwrap();
        for token in 1..=23 {
            commit(&toy, add(token)).await;
        }
        let newest = toy.head().version;
        let by_tokens = |states: &[Counters]| -> BTreeMap<usize, Counters> {
            states.iter().map(|s| (s.tokens.len(), s.clone())).collect()
        };
        for from in [0, 1, 4, 5, 6, 22, 23, 24] {
            let (mut walked, mut read) = (Vec::new(), Vec::new());
            let head = toy.walk(from, |state| walked.push(state.clone())).await;
            assert_eq!(head.unwrap().version, newest);
            for version in from..=newest {
                read.push(Counters::clone(&toy.at(version).await.unwrap().state));
            }
            assert_eq!(walked.len(), read.len(), "from {from}");
            assert_eq!(by_tokens(&walked), by_tokens(&read), "from {from}");
        }
        let mark = Change::Mark {
            retain_from: 9,
            cutoff_ms: 1,
        };
        commit(&toy, mark).await;
        toy.sweep_slots().await.unwrap();
        let expired = toy.walk(8, |_| ()).await;
        assert!(matches!(expired, Err(ManifestError::Expired { .. })));
        toy.walk(9, |_| ()).await.unwrap();
    })
    .await;
}
