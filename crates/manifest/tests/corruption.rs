//! Damage: whatever happens to any object, an open answers right or with a typed error.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Change, Counters, Toy, add, author, clock, commit, directory, quick};
use tempfile::TempDir;
use vexlake_manifest::{ManifestError, unframe};
use vexlake_store::Store;

/// A manifest with a rolled base and a few commits; its files.
async fn subject() -> (TempDir, Store, Toy, Vec<PathBuf>) {
    let here = directory();
    let store = quick(&here).scoped("m");
    let initial = Counters {
        fold_at: 3,
        ..Counters::default()
    };
    let toy = Toy::create(store.clone(), initial, &author("a"), clock())
        .await
        .unwrap();
    for token in 1..=5 {
        commit(&toy, add(token)).await;
    }
    let files = store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|l| store.local_path(&l.key).unwrap())
        .collect();
    (here, store, toy, files)
}

/// Opens and reads back everything; `true` where that came out right.
async fn is_right(store: &Store, toy: &Toy, what: &str) -> bool {
    match Toy::open(store.clone(), clock()).await {
        Ok(opened) => {
            let (found, wanted) = (opened.head(), toy.head());
            assert_eq!(
                (found.version, found.id),
                (wanted.version, wanted.id),
                "{what}"
            );
            assert_eq!(found.state, wanted.state, "{what}");
            true
        }
        Err(ManifestError::Corrupt { .. }) => false,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn restore(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn should_answer_right_or_corrupt_whatever_byte_changes() {
    let (_here, store, toy, files) = subject().await;
    // What an open reads: HEAD, the last slot, the newest base. It must see any change
    // there, and be right whatever happens to the others.
    let last_of = |folder: &str| {
        files
            .iter()
            .rfind(|path| path.display().to_string().contains(folder))
            .cloned()
    };
    let read = [last_of("/HEAD"), last_of("/commits/"), last_of("/bases/")].map(Option::unwrap);
    assert_eq!(files.len(), 9);
    for path in &files {
        let content = fs::read(path).unwrap();
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= if at % 2 == 0 { 0x01 } else { 0x80 };
            restore(path, &damaged);
            let what = format!("{} byte {at}", path.display());
            assert_eq!(
                is_right(&store, &toy, &what).await,
                !read.contains(path),
                "{what}"
            );
        }
        restore(path, &content);
    }
    assert!(is_right(&store, &toy, "restored").await);
}

#[tokio::test]
async fn should_answer_right_or_corrupt_wherever_a_file_is_cut() {
    let (_here, store, toy, files) = subject().await;
    for path in &files {
        let content = fs::read(path).unwrap();
        for length in (0..content.len()).step_by(7).chain([content.len() - 1]) {
            restore(path, &content[..length]);
            is_right(&store, &toy, &format!("{} cut to {length}", path.display())).await;
        }
        restore(path, &content);
    }
}

#[tokio::test]
async fn should_refuse_whole_objects_in_the_wrong_place() {
    let (_here, store, toy, files) = subject().await;
    let mut refused = 0;
    for path in &files {
        let content = fs::read(path).unwrap();
        for other in files.iter().filter(|other| *other != path) {
            restore(path, &fs::read(other).unwrap());
            let what = format!("{} in the place of {}", other.display(), path.display());
            refused += u32::from(!is_right(&store, &toy, &what).await);
        }
        restore(path, &content);
    }
    assert!(refused > 10);
}

#[tokio::test]
async fn should_say_that_head_is_missing_rather_than_start_a_second_history() {
    // Whole; swept up to the last version; and swept but for a pinned version 0, which
    // would look like a creation that died.
    for (swept, pinned) in [(false, false), (true, false), (true, true)] {
        let (_here, store, toy, _) = subject().await;
        if pinned {
            commit(&toy, Change::Pin(0)).await;
        }
        if swept {
            let mark = Change::Mark {
                retain_from: 6,
                cutoff_ms: 0,
            };
            commit(&toy, mark).await;
            assert!(toy.sweep_slots().await.unwrap() >= 5);
        }
        store.delete("HEAD").await.unwrap();
        let lost =
            |outcome| matches!(outcome, Err(ManifestError::Corrupt { key, .. }) if key == "HEAD");
        let created = Toy::create(store.clone(), Counters::default(), &author("b"), clock()).await;
        assert!(lost(created.map(drop)));
        assert!(lost(Toy::open(store.clone(), clock()).await.map(drop)));
        assert!(lost(toy.refresh().await.map(drop)));
        // Here the slot is filled before HEAD is missed: the commit may stand.
        let committed = toy.commit(&toy.head(), add(9), &author("a")).await;
        assert!(matches!(committed, Err(ManifestError::Store(e)) if e.doubt && e.key == "HEAD"));
    }
}

#[tokio::test]
async fn should_refuse_a_slot_that_head_names_and_nobody_finds() {
    let (_here, store, _, _) = subject().await;
    store.delete("commits/00000000000000000005").await.unwrap();
    let outcome = Toy::open(store.clone(), clock()).await.map(drop);
    assert!(
        matches!(&outcome, Err(ManifestError::Corrupt { key, .. }) if key.starts_with("commits/")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn should_refuse_a_format_of_the_future() {
    let (_here, store, _, _) = subject().await;
    let path = store.local_path("HEAD").unwrap();
    let json = unframe(&fs::read(&path).unwrap().into()).unwrap();
    let newer = String::from_utf8(json.to_vec())
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    restore(&path, &vexlake_manifest::frame(newer.as_bytes()));
    let outcome = Toy::open(store.clone(), clock()).await.map(drop);
    assert!(
        matches!(outcome, Err(ManifestError::Corrupt { message, .. }) if message.contains("format 2"))
    );
}

#[tokio::test]
async fn should_refuse_a_head_that_names_another_commit_of_its_version() {
    let (_here, store, toy, _) = subject().await;
    let path = store.local_path("HEAD").unwrap();
    let json = unframe(&fs::read(&path).unwrap().into()).unwrap();
    let json = String::from_utf8(json.to_vec()).unwrap();
    let parent = toy.head().parent.unwrap().to_string();
    let other = json.replace(&toy.head().id.to_string(), &parent);
    assert_ne!(other, json);
    restore(&path, &vexlake_manifest::frame(other.as_bytes()));
    let outcome = Toy::open(store.clone(), clock()).await.map(drop);
    assert!(
        matches!(outcome, Err(ManifestError::Corrupt { message, .. }) if message.contains("HEAD says"))
    );
}
