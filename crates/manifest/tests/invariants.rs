//! The counter of invariants: what is broken is refused and counted once; what races and
//! sweeps leave behind is not broken.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::fs;
use std::sync::Arc;

use common::{
    Change, Counters, Toy, add, add_surely, author, commit, directory, open, quick, repeatable,
};
use vexlake_manifest::{Context, Invariant, Invariants, Manifest, ManifestError, frame, unframe};
use vexlake_store::Store;

const HEAD: &str = "HEAD";
const SLOT_2: &str = "commits/00000000000000000002";

/// A manifest at version 3, counted.
async fn counted(store: &Store) -> (Toy, Arc<Invariants>) {
    let context = repeatable(1_000);
    let counts = Arc::clone(&context.invariants);
    let toy = Manifest::create_with(store.clone(), Counters::default(), &author("a"), context)
        .await
        .unwrap();
    for token in 1..=3 {
        commit(&toy, add(token)).await;
    }
    (toy, counts)
}

async fn opened(store: &Store) -> (Result<Toy, ManifestError>, Arc<Invariants>) {
    let context = repeatable(9_000);
    let counts = Arc::clone(&context.invariants);
    (Toy::open_with(store.clone(), context).await, counts)
}

/// Changes the JSON of an object and frames it anew, as no honest program would.
fn forge(store: &Store, key: &str, change: impl Fn(String) -> String) {
    let path = store.local_path(key).unwrap();
    let json = unframe(&fs::read(&path).unwrap().into()).unwrap();
    let forged = change(String::from_utf8(json.to_vec()).unwrap());
    assert_ne!(forged.as_bytes(), &json[..], "{key}");
    fs::write(path, frame(forged.as_bytes())).unwrap();
}

fn violations(counts: &Invariants) -> Vec<(&'static str, u64)> {
    let all = Invariant::ALL.iter();
    all.map(|one| (one.id(), counts.count(*one).1))
        .filter(|(_, violations)| *violations > 0)
        .collect()
}

#[tokio::test]
async fn should_count_checks_and_no_violation_while_writers_race_and_a_sweeper_passes() {
    let here = directory();
    let store = quick(&here).scoped("m");
    let (toy, counts) = counted(&store).await;
    let (late, late_counts) = opened(&store).await;
    let late = late.unwrap();
    let rival = open(&store).await;
    for token in 10..40 {
        add_surely(&rival, token).await;
        add_surely(&toy, 100 + token).await;
    }
    let version = toy.refresh().await.unwrap().version;
    commit(&toy, Change::Pin(version)).await;
    toy.at(version).await.unwrap();
    let mark = Change::Mark {
        retain_from: version,
        cutoff_ms: 2_000,
    };
    commit(&toy, mark).await;
    toy.sweep_slots().await.unwrap();
    toy.at(version).await.unwrap();
    late.refresh().await.unwrap();
    add_surely(&toy, 200).await;
    add_surely(&toy, 201).await;
    late.refresh().await.unwrap();
    assert_eq!(
        (violations(&counts), violations(&late_counts)),
        (vec![], vec![])
    );
    for own in &Invariant::ALL[..Invariant::FencedRetired as usize] {
        let both = counts.count(*own).0 + late_counts.count(*own).0;
        assert!(both > 0, "{} was never checked", own.id());
    }
}

#[tokio::test]
async fn should_refuse_and_count_a_mark_that_goes_back() {
    let here = directory();
    let (toy, counts) = counted(&quick(&here).scoped("m")).await;
    let mark = |retain_from, cutoff_ms| Change::Mark {
        retain_from,
        cutoff_ms,
    };
    commit(&toy, mark(2, 50)).await;
    for back in [mark(1, 50), mark(2, 49), mark(9, 50)] {
        let refused = toy.commit(&toy.head(), back, &author("a")).await;
        assert!(
            matches!(refused, Err(ManifestError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(violations(&counts), [("mark-monotone", 3)]);
}

#[tokio::test]
async fn should_not_count_a_rule_that_a_request_broke() {
    let here = directory();
    let (toy, counts) = counted(&quick(&here).scoped("m")).await;
    let again = toy.commit(&toy.head(), add(1), &author("a")).await;
    assert!(matches!(again, Err(ManifestError::Invalid(_))), "{again:?}");
    assert_eq!(violations(&counts), []);
}

#[tokio::test]
async fn should_refuse_and_count_a_broken_chain_and_a_slot_in_the_wrong_place() {
    let strangers = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (broken, wanted) in [
        ("parent", "parent-chain"),
        ("version", "version-contiguous"),
    ] {
        let here = directory();
        let store = quick(&here).scoped("m");
        let (toy, _) = counted(&store).await;
        // HEAD lags, so that a load has to walk over the forged slot.
        let first = toy.at(1).await.unwrap();
        forge(&store, HEAD, |json| {
            let now = toy.head();
            json.replace(r#""version":"3""#, r#""version":"1""#)
                .replace(&now.id.to_string(), &first.id.to_string())
        });
        forge(&store, SLOT_2, |json| match broken {
            "parent" => json.replace(
                &format!(r#""parent":"{}""#, first.id),
                &format!(r#""parent":"{strangers}""#),
            ),
            _ => json.replacen(r#""version":"2""#, r#""version":"7""#, 1),
        });
        let (found, counts) = opened(&store).await;
        assert!(
            matches!(found, Err(ManifestError::Corrupt { .. })),
            "{broken}"
        );
        assert_eq!(violations(&counts), [(wanted, 1)]);
    }
}

#[tokio::test]
async fn should_refuse_and_count_a_head_that_went_back() {
    let here = directory();
    let store = quick(&here).scoped("m");
    let (toy, counts) = counted(&store).await;
    let before = fs::read(store.local_path(HEAD).unwrap()).unwrap();
    commit(&toy, add(4)).await;
    let (reader, reader_counts) = opened(&store).await;
    fs::write(store.local_path(HEAD).unwrap(), before).unwrap();
    let found = toy.refresh().await;
    assert!(matches!(found, Err(ManifestError::Corrupt { key, .. }) if key == HEAD));
    assert_eq!(violations(&counts), [("head-monotone", 1)]);
    reader
        .unwrap()
        .refresh()
        .await
        .expect_err("it saw the newer one");
    assert_eq!(violations(&reader_counts), [("head-monotone", 1)]);
    // Who never saw the newer one finds the head beyond it.
    assert_eq!(open(&store).await.head().version, 4);
}

#[tokio::test]
async fn should_refuse_and_count_an_absent_base_once() {
    let here = directory();
    let store = quick(&here).scoped("m");
    let (_toy, _) = counted(&store).await;
    for base in store.list("bases").await.unwrap() {
        store.delete(&base.key).await.unwrap();
    }
    let (found, counts) = opened(&store).await;
    assert!(matches!(found, Err(ManifestError::Corrupt { .. })));
    assert_eq!(violations(&counts), [("object-intact", 1)]);
}

#[tokio::test]
async fn should_refuse_and_count_a_pinned_version_that_changed() {
    let here = directory();
    let store = quick(&here).scoped("m");
    let (toy, counts) = counted(&store).await;
    commit(&toy, Change::Pin(2)).await;
    toy.at(2).await.unwrap();
    forge(&store, SLOT_2, |json| {
        json.replacen(r#""instance":"a""#, r#""instance":"b""#, 1)
    });
    let found = toy.at(2).await;
    assert!(matches!(found, Err(ManifestError::Corrupt { .. })));
    assert_eq!(violations(&counts), [("pinned-digest", 1)]);
    // Without a pin nobody promised anything beyond what a slot says of itself.
    commit(&toy, Change::Unpin(2)).await;
    toy.at(2).await.unwrap();
    assert_eq!(violations(&counts), [("pinned-digest", 1)]);
}

#[test]
fn should_hand_one_counter_to_everything_opened_in_one_context() {
    let context = Context::new(common::clock());
    let other = context.clone();
    other.invariants.violated(Invariant::ObjectIntact);
    assert_eq!(violations(&context.invariants), [("object-intact", 1)]);
}

#[tokio::test]
async fn should_count_what_is_broken_also_where_it_leaves_a_commit_in_doubt() {
    let here = directory();
    let store = quick(&here).scoped("m");
    let (toy, counts) = counted(&store).await;
    let head = store.local_path(HEAD).unwrap();
    let before = fs::read(&head).unwrap();
    commit(&toy, add(4)).await;
    fs::write(&head, before).unwrap();
    let committed = toy.commit(&toy.head(), add(5), &author("a")).await;
    assert!(
        matches!(&committed, Err(ManifestError::Store(e)) if e.doubt),
        "{committed:?}"
    );
    assert_eq!(violations(&counts), [("head-monotone", 1)]);
}
