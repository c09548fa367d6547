//! The files of format 1, byte for byte. Golden files are added, never regenerated:
//! where this fails, the format changed, and that needs a new number and a new folder.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Change, Counters, Toy, add, author, directory, quick, repeatable};
use vexlake_store::Store;

const FILES: [&str; 6] = [
    "HEAD",
    "bases/00000005DM0000000000000001",
    "commits/00000000000000000000",
    "commits/00000000000000000001",
    "commits/00000000000000000002",
    "commits/00000000000000000003",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

async fn write(store: Store) -> Toy {
    let toy = Toy::create_with(
        store,
        Counters::default(),
        &author("golden"),
        repeatable(5_555),
    )
    .await
    .unwrap();
    for change in [
        add(1),
        Change::Pin(1),
        Change::Mark {
            retain_from: 2,
            cutoff_ms: 5_000,
        },
    ] {
        toy.commit(&toy.head(), change, &author("golden"))
            .await
            .unwrap();
    }
    toy
}

#[tokio::test]
async fn should_write_format_1_byte_for_byte() {
    let here = directory();
    let store = quick(&here);
    write(store.clone()).await;
    let names: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.key)
        .collect();
    assert_eq!(names, FILES);
    for name in FILES {
        let wanted = fs::read_to_string(golden().join(name)).unwrap();
        assert_eq!(
            String::from_utf8(store.get(name).await.unwrap().to_vec()).unwrap(),
            wanted,
            "{name}"
        );
    }
}

#[tokio::test]
async fn should_read_format_1_for_ever() {
    // A copy: opening must not write, but a test that shows otherwise should not harm the fixture.
    let here = directory();
    for name in FILES {
        let path = here.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden().join(name), path).unwrap();
    }
    let head = Toy::open_with(quick(&here), repeatable(0))
        .await
        .unwrap()
        .head();
    assert_eq!(
        (head.version, head.when_ms, head.author.clone()),
        (3, 5_559, author("golden"))
    );
    let counts = [("k1".to_owned(), 1)].into();
    let expected = Counters {
        counts,
        tokens: [1].into(),
        pinned: [1].into(),
        retain_from: 2,
        cutoff_ms: 5_000,
        unfolded: 1,
        ..Counters::default()
    };
    assert_eq!(*head.state, expected);
}
