//! What only the directory backend promises: durability steps that show in the file
//! system, and safety between processes' handles.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict

use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::join_all;
use vexlake_store::{Created, Store, StoreConfig, Swapped};

fn files(path: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn should_keep_each_object_as_a_plain_file_and_no_temporary_ones() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).unwrap();
    store.create("c/1/commits/1", "x".into()).await.unwrap();
    store.create("c/1/commits/1", "y".into()).await.unwrap();
    store.swap("c/1/HEAD", None, "h".into()).await.unwrap();
    store.put("lake.json", "{}".into()).await.unwrap();
    assert_eq!(files(&directory.path().join("c/1")), ["HEAD", "commits"]);
    assert_eq!(
        fs::read(directory.path().join("c/1/commits/1")).unwrap(),
        b"x"
    );
    assert_eq!(files(&directory.path().join(".tmp")), [""; 0]);
    let path = store.scoped("c/1").local_path("HEAD").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"h");
}

#[tokio::test]
async fn should_remove_directories_that_a_delete_empties_but_never_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).unwrap();
    store.put("c/1/seg/a", "x".into()).await.unwrap();
    store.put("c/2", "x".into()).await.unwrap();
    store.delete("c/1/seg/a").await.unwrap();
    assert_eq!(files(&directory.path().join("c")), ["2"]);
    store.delete("c/2").await.unwrap();
    assert_eq!(files(directory.path()), [".locks", ".tmp"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_create_while_deletes_take_the_directory_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).unwrap();
    let tasks = (0..4).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                let key = format!("a/b/{task}-{round}");
                assert_eq!(
                    store.create(&key, "x".into()).await.unwrap(),
                    Created::Created
                );
                assert_eq!(store.get(&key).await.unwrap(), "x");
                store.delete(&key).await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_let_one_handle_win_each_race_between_separately_opened_stores() {
    let directory = tempfile::tempdir().unwrap();
    let stores: Vec<Store> = (0..4)
        .map(|_| Store::directory(directory.path()).unwrap())
        .collect();
    for round in 0..30 {
        let key = format!("slots/{round}");
        let creates = join_all(stores.iter().map(|store| store.create(&key, "x".into()))).await;
        assert_eq!(
            creates
                .iter()
                .filter(|c| matches!(c, Ok(Created::Created)))
                .count(),
            1
        );
        let tag = stores[0].get_tagged(&key).await.unwrap().unwrap().1;
        let swaps = (0..4).map(|i| stores[i].swap(&key, Some(&tag), Bytes::from(format!("{i}"))));
        let swaps = join_all(swaps).await;
        let won: Vec<usize> = (0..4)
            .filter(|&i| matches!(swaps[i], Ok(Swapped::Swapped(_))))
            .collect();
        assert_eq!(won.len(), 1);
        assert_eq!(stores[0].get(&key).await.unwrap(), won[0].to_string());
    }
}

#[tokio::test]
async fn should_sweep_temporary_files_of_writers_long_dead_and_keep_those_of_living_ones() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::directory(directory.path()).unwrap());
    let (old, new) = (
        directory.path().join(".tmp/old"),
        directory.path().join(".tmp/new"),
    );
    fs::write(&new, "x").unwrap();
    let file = fs::File::create(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(25 * 3600))
        .unwrap();
    drop(Store::directory(directory.path()).unwrap());
    assert!(new.exists() && !old.exists());
}

#[tokio::test]
async fn should_not_follow_a_later_write_to_the_spool_file_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path().join("lake")).unwrap();
    let spool = directory.path().join("spool.parquet");
    fs::write(&spool, "finished").unwrap();
    store.put_file("seg/data.parquet", &spool).await.unwrap();
    fs::remove_file(&spool).unwrap();
    fs::write(&spool, "something else").unwrap();
    assert_eq!(store.get("seg/data.parquet").await.unwrap(), "finished");
}

#[tokio::test]
async fn should_open_paths_and_file_urls_alike() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/lake");
    let shown = path.display().to_string();
    let by_path = Store::open(&StoreConfig::at(&shown)).await.unwrap();
    by_path.put("a", "x".into()).await.unwrap();
    let by_url = Store::open(&StoreConfig::at(format!("file://{shown}")))
        .await
        .unwrap();
    assert_eq!(by_url.get("a").await.unwrap(), "x");
    let parsed: StoreConfig =
        serde_json::from_str(r#"{"url":"s3://b/p","pathStyle":false,"accessKey":"k"}"#).unwrap();
    assert_eq!(
        (parsed.path_style, parsed.access_key.as_deref()),
        (false, Some("k"))
    );
    assert!(serde_json::from_str::<StoreConfig>(r#"{"url":"x","path_style":true}"#).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn should_let_one_of_a_create_and_a_first_swap_win() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).unwrap();
    for round in 0..100 {
        let key = format!("HEAD-{round}");
        let create = store.create(&key, "created".into());
        let swap = store.swap(&key, None, "swapped".into());
        let (created, swapped) = futures::future::join(create, swap).await;
        let created = created.unwrap() == Created::Created;
        let swapped = matches!(swapped.unwrap(), Swapped::Swapped(_));
        assert!(created != swapped, "round {round}: {created} {swapped}");
        let winner = if created { "created" } else { "swapped" };
        assert_eq!(store.get(&key).await.unwrap(), winner);
    }
}
