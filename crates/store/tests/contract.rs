//! The contract of a store, run against every implementation.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict
#![allow(clippy::single_range_in_vec_init)] // one range is a list of ranges here

mod common;

use bytes::Bytes;
use common::{Subject, subjects};
use futures::future::join_all;
use vexlake_store::{Created, Store, StoreErrorKind, Swapped};

async fn each(check: impl AsyncFn(&Store)) {
    for Subject { name, store, .. } in &subjects().await {
        eprintln!("on {name}");
        check(store).await;
    }
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn should_pass_its_own_probe_and_leave_nothing_behind() {
    each(async |store| {
        store.probe().await.unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn should_read_what_was_put() {
    each(async |store| {
        store.put("a/b/c.bin", body("hello")).await.unwrap();
        store.put("a/empty", Bytes::new()).await.unwrap();
        assert_eq!(store.get("a/b/c.bin").await.unwrap(), "hello");
        assert_eq!(store.get("a/empty").await.unwrap(), "");
        assert_eq!(store.size("a/b/c.bin").await.unwrap(), Some(5));
        store.put("a/b/c.bin", body("hello")).await.unwrap();
        assert_eq!(store.get("a/b/c.bin").await.unwrap(), "hello");
    })
    .await;
}

#[tokio::test]
async fn should_say_not_found_and_nothing_else_of_what_is_absent() {
    each(async |store| {
        let error = store.get("no/such").await.unwrap_err();
        assert_eq!((error.kind, error.doubt), (StoreErrorKind::NotFound, false));
        assert!(store.get_tagged("no/such").await.unwrap().is_none());
        assert_eq!(store.size("no/such").await.unwrap(), None);
        let error = store.get_ranges("no/such", &[0..1]).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NotFound);
        store.delete("no/such").await.unwrap();
        assert_eq!(store.list("no").await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn should_create_only_what_is_absent() {
    each(async |store| {
        assert_eq!(
            store.create("slots/1", body("first")).await.unwrap(),
            Created::Created
        );
        assert_eq!(
            store.create("slots/1", body("second")).await.unwrap(),
            Created::Exists
        );
        assert_eq!(store.get("slots/1").await.unwrap(), "first");
        store.delete("slots/1").await.unwrap();
        assert_eq!(
            store.create("slots/1", body("third")).await.unwrap(),
            Created::Created
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_let_one_of_many_concurrent_creators_win() {
    each(async |store| {
        // 3 writers: SeaweedFS makes more of them wait for seconds.
        for round in 0..10 {
            let key = format!("race/{round}");
            let creates = (0..3).map(|i| store.create(&key, Bytes::from(format!("{i}"))));
            let outcomes = join_all(creates).await;
            let won: Vec<usize> = (0..3)
                .filter(|&i| matches!(outcomes[i], Ok(Created::Created)))
                .collect();
            assert_eq!(won.len(), 1, "{outcomes:?}");
            assert_eq!(store.get(&key).await.unwrap(), won[0].to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn should_swap_only_what_is_as_expected() {
    each(async |store| {
        assert!(matches!(
            store.swap("HEAD", None, body("1")).await.unwrap(),
            Swapped::Swapped(_)
        ));
        assert_eq!(
            store.swap("HEAD", None, body("1b")).await.unwrap(),
            Swapped::Lost
        );
        let (found, tag) = store.get_tagged("HEAD").await.unwrap().unwrap();
        assert_eq!(found, "1");
        let Swapped::Swapped(next) = store.swap("HEAD", Some(&tag), body("2")).await.unwrap()
        else {
            panic!("lost")
        };
        assert_eq!(
            store.swap("HEAD", Some(&tag), body("3")).await.unwrap(),
            Swapped::Lost
        );
        let (found, tag) = store.get_tagged("HEAD").await.unwrap().unwrap();
        assert_eq!((found, &tag), (body("2"), &next));
        store.delete("HEAD").await.unwrap();
        assert_eq!(
            store.swap("HEAD", Some(&tag), body("4")).await.unwrap(),
            Swapped::Lost
        );
        assert!(store.get_tagged("HEAD").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_count_every_increment_of_concurrent_swaps() {
    each(async |store| {
        store.put("counter", body("0")).await.unwrap();
        let increments = (0..3).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 10 {
                    let (found, tag) = store.get_tagged("counter").await.unwrap().unwrap();
                    let next: u64 =
                        std::str::from_utf8(&found).unwrap().parse::<u64>().unwrap() + 1;
                    if let Swapped::Swapped(_) = store
                        .swap("counter", Some(&tag), next.to_string().into())
                        .await
                        .unwrap()
                    {
                        done += 1;
                    }
                }
            })
        });
        for task in join_all(increments).await {
            task.unwrap();
        }
        assert_eq!(store.get("counter").await.unwrap(), "30");
    })
    .await;
}

#[tokio::test]
async fn should_answer_each_range_in_full_or_fail() {
    each(async |store| {
        let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        store.put("big", content.clone().into()).await.unwrap();
        let wanted = [
            0..1,
            299_999..300_000,
            5..5_000,
            200_000..200_100,
            4_000..6_000,
        ];
        let found = store.get_ranges("big", &wanted).await.unwrap();
        for (range, found) in wanted.iter().zip(&found) {
            assert_eq!(
                found[..],
                content[range.start as usize..range.end as usize],
                "{range:?}"
            );
        }
        assert_eq!(
            store.get_ranges("big", &[]).await.unwrap(),
            Vec::<Bytes>::new()
        );
        let beyond = store
            .get_ranges("big", &[299_990..300_010])
            .await
            .unwrap_err();
        assert_eq!(beyond.kind, StoreErrorKind::Corrupt, "{beyond}");
        let beyond = store
            .get_ranges("big", &[400_000..400_010])
            .await
            .unwrap_err();
        assert_eq!(beyond.kind, StoreErrorKind::Corrupt, "{beyond}");
        #[allow(clippy::reversed_empty_ranges)] // what is refused here
        let empty = store.get_ranges("big", &[7..3]).await.unwrap_err();
        assert_eq!(empty.kind, StoreErrorKind::Refused);
    })
    .await;
}

#[tokio::test]
async fn should_put_files_small_and_large() {
    each(async |store| {
        let directory = tempfile::tempdir().unwrap();
        // Beyond two parts of 8 MiB, with a rest.
        for bytes in [0usize, 10, (20 << 20) + 7] {
            let path = directory.path().join(format!("{bytes}"));
            let content: Vec<u8> = (0..bytes).map(|i| (i * 31 % 253) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let key = format!("files/{bytes}.parquet");
            store.put_file(&key, &path).await.unwrap();
            store.put_file(&key, &path).await.unwrap();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(store.size(&key).await.unwrap(), Some(bytes as u64));
            assert!(
                store.get(&key).await.unwrap() == content,
                "{bytes} bytes differ"
            );
        }
        assert!(
            store
                .put_file("files/none", &directory.path().join("none"))
                .await
                .is_err()
        );
    })
    .await;
}

#[tokio::test]
async fn should_list_below_whole_components_in_key_order() {
    each(async |store| {
        for key in ["c/1/x", "c/1/y/z", "c/10/x", "d"] {
            store.put(key, body(key)).await.unwrap();
        }
        let keys = |listed: Vec<vexlake_store::Listed>| {
            listed.into_iter().map(|l| l.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(store.list("c/1").await.unwrap()), ["c/1/x", "c/1/y/z"]);
        assert_eq!(
            keys(store.list("c/1/").await.unwrap()),
            ["c/1/x", "c/1/y/z"]
        );
        assert_eq!(
            keys(store.list("").await.unwrap()),
            ["c/1/x", "c/1/y/z", "c/10/x", "d"]
        );
        assert_eq!(store.list("c").await.unwrap()[0].size, 5);
        let scoped = store.scoped("c/1");
        assert_eq!(keys(scoped.list("").await.unwrap()), ["x", "y/z"]);
        assert_eq!(keys(scoped.list("y").await.unwrap()), ["y/z"]);
        assert_eq!(scoped.get("y/z").await.unwrap(), "c/1/y/z");
    })
    .await;
}

#[tokio::test]
async fn should_refuse_keys_that_leave_the_scope() {
    each(async |store| {
        let scoped = store.scoped("a");
        for key in ["../b", "/etc/passwd", "", "x/../../b", ".hidden"] {
            let error = scoped.put(key, body("x")).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Refused, "{key:?}");
            assert!(scoped.get(key).await.is_err(), "{key:?}");
            assert!(scoped.local_path(key).is_none(), "{key:?}");
        }
        let escaped = store.scoped("a/..");
        assert_eq!(
            escaped.put("b", body("x")).await.unwrap_err().kind,
            StoreErrorKind::Refused
        );
        assert_eq!(
            store.list("../").await.unwrap_err().kind,
            StoreErrorKind::Refused
        );
    })
    .await;
}

#[tokio::test]
async fn should_account_for_every_request() {
    each(async |store| {
        let before = store.usage();
        store.scoped("u").put("a", body("12345")).await.unwrap();
        store.create("u/b", body("123")).await.unwrap();
        store.get("u/a").await.unwrap();
        // Two near ranges are one read.
        store.get_ranges("u/a", &[0..2, 3..4]).await.unwrap();
        let after = store.usage();
        assert_eq!(after.puts - before.puts, 1);
        assert_eq!(after.creates - before.creates, 1);
        assert_eq!(after.gets - before.gets, 1);
        assert_eq!(after.ranges - before.ranges, 1);
        assert_eq!(after.bytes_out - before.bytes_out, 8);
        assert_eq!(after.bytes_in - before.bytes_in, 9);
        assert_eq!(
            (after.retries, after.errors),
            (before.retries, before.errors)
        );
    })
    .await;
}

/// Services spawn these: the futures must be able to move between threads while they
/// borrow what lives in another future.
#[tokio::test]
async fn should_offer_futures_that_can_be_spawned() {
    let store = common::directory();
    let store = store.store.clone();
    let all = tokio::spawn(async move {
        let (key, path) = (String::from("k"), std::path::PathBuf::from("none"));
        let _ = store.probe().await;
        let _ = store.put(&key, body("x")).await;
        let _ = store.put_file(&key, &path).await;
        let _ = store.create(&key, body("x")).await;
        let _ = store.get(&key).await;
        let _ = store.get_ranges(&key, &[0..1, 0..1]).await;
        let found = store.get_tagged(&key).await;
        let tag = found.ok().flatten().map(|(_, tag)| tag);
        let _ = store.swap(&key, tag.as_ref(), body("y")).await;
        let _ = store.size(&key).await;
        let _ = store.list(&key).await;
        store.delete(&key).await
    });
    let _ = all.await;
}
