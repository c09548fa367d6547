//! Names and incarnations: create, drop, clear, replay, promote, roll back, leave.

mod epochs;
mod opening;

use std::collections::BTreeSet;

use vexlake_distance::Metric;
use vexlake_manifest::{CrashPoint, crash, frame};

use super::*;
use crate::testing::{Change, Log, Site, applied, catch_up, check, crash_at, deliver, run, schema};
use crate::{ErrorKind, Scope, Search};

const L2: Metric = Metric::L2;

pub(super) async fn open(site: &Site, role: &str) -> Arc<Lake> {
    open_with(site, role, crash::none()).await
}

pub(super) async fn open_with(site: &Site, role: &str, crash: CrashPoint) -> Arc<Lake> {
    try_open(site, role, crash).await.expect("opened")
}

async fn try_open(site: &Site, role: &str, crash: CrashPoint) -> Result<Arc<Lake>> {
    let url = site.path().join("names").display().to_string();
    let store =
        serde_json::from_value(serde_json::json!({ "url": url })).expect("a store configuration");
    let options = LakeOptions {
        store,
        author: Author {
            role: role.to_owned(),
            instance: "test".to_owned(),
        },
        spool: site.path().join(format!("spool-{role}")),
        cache_bytes: 1 << 20,
        components: site.components(crash),
        search_threads: 1,
        recall_sample_ratio: 0.0,
        warm_bytes: 0,
    };
    Lake::open(options).await
}

pub(super) fn source(starts: &[(u32, u64)]) -> NewSource {
    let starts = starts.iter().copied().collect();
    NewSource {
        kind: "local".to_owned(),
        cluster: "c".to_owned(),
        topic: "t".to_owned(),
        compacted: false,
        starts,
    }
}

pub(super) async fn begun() -> (Site, Arc<Lake>, Ulid, Log) {
    let site = Site::new(L2, 1).await;
    let lake = open(&site, "a").await;
    let id = lake
        .create(0, "docs", schema(L2), source(&[(0, 0), (1, 0)]))
        .await
        .expect("created");
    let mut log = Log::default();
    for number in 0..6u32 {
        log.upsert(number % 2, &format!("k{number}"), 1, u64::from(number));
    }
    (site, lake, id, log)
}

pub(super) async fn feed(lake: &Lake, id: Ulid, log: &Log) -> Arc<Incarnation> {
    let incarnation = lake.incarnation(id).await.expect("opened");
    for partition in 0..2 {
        catch_up(&incarnation, log, partition).await;
    }
    incarnation.flush().await.expect("flushed");
    incarnation
}

#[test]
fn should_remember_names_and_identity_when_opened_again() {
    run(async {
        let (site, lake, id, log) = begun().await;
        feed(&lake, id, &log).await;
        let again = open(&site, "b").await;
        assert_eq!(again.info, lake.info);
        assert_eq!(
            again.mapping(0, "docs").await.expect("mapped"),
            Mapping {
                live: id,
                fed: Vec::new()
            }
        );
        check(&again.incarnation(id).await.expect("opened"), &log, L2).await;
        for (db, name) in [(1, "docs"), (0, "doc"), (0, "")] {
            assert_eq!(
                again.mapping(db, name).await.expect_err("absent").kind(),
                ErrorKind::NotFound
            );
        }
    });
}

#[test]
fn should_refuse_a_taken_name_and_bad_names_and_schemas() {
    run(async {
        let (_site, lake, _, _) = begun().await;
        let taken = lake
            .create(0, "docs", schema(L2), source(&[]))
            .await
            .expect_err("taken");
        assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
        lake.create(7, "docs", schema(L2), source(&[(0, 0)]))
            .await
            .expect("another namespace");
        let long = "x".repeat(129);
        for name in ["", long.as_str()] {
            let error = lake
                .create(0, name, schema(L2), source(&[]))
                .await
                .expect_err("bad name");
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
        for bad in [
            Schema {
                dim: 0,
                ..schema(L2)
            },
            Schema {
                dim: 65_537,
                ..schema(L2)
            },
            Schema {
                metric: "Cosine".to_owned(),
                ..schema(L2)
            },
            Schema {
                format: "csv".to_owned(),
                ..schema(L2)
            },
        ] {
            let error = lake
                .create(0, "other", bad, source(&[]))
                .await
                .expect_err("bad schema");
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
    });
}

#[test]
fn should_let_exactly_one_of_two_creators_win() {
    run(async {
        let (site, lake, _, _) = begun().await;
        let other = open(&site, "b").await;
        let (a, b) = tokio::join!(
            lake.create(0, "new", schema(L2), source(&[(0, 0)])),
            other.create(0, "new", schema(L2), source(&[(0, 0)])),
        );
        let winner = match (a, b) {
            (Ok(id), Err(error)) | (Err(error), Ok(id)) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                id
            }
            both => panic!("{both:?}"),
        };
        assert_eq!(lake.mapping(0, "new").await.expect("mapped").live, winner);
    });
}

#[test]
fn should_drop_a_collection_and_retire_what_it_named() {
    run(async {
        let (site, lake, id, log) = begun().await;
        feed(&lake, id, &log).await;
        let replay = lake
            .replay_start(0, "docs", source(&[]), &[])
            .await
            .expect("started");
        let writer = open(&site, "b")
            .await
            .incarnation(id)
            .await
            .expect("opened");
        lake.drop_collection(0, "docs").await.expect("dropped");
        assert_eq!(
            lake.mapping(0, "docs").await.expect_err("gone").kind(),
            ErrorKind::NotFound
        );
        let again = lake.drop_collection(0, "docs").await.expect_err("gone");
        assert_eq!(again.kind(), ErrorKind::NotFound);
        let left: BTreeSet<Ulid> = lake
            .finish_leaving()
            .await
            .expect("finished")
            .into_iter()
            .collect();
        assert_eq!(left, [id, replay].into());
        assert!(
            lake.finish_leaving()
                .await
                .expect("nothing to do")
                .is_empty()
        );
        let names = lake
            .store
            .list(&format!("c/{id}/seg"))
            .await
            .expect("listed");
        assert!(names.is_empty(), "{names:?}");
        deliver(&writer, &log, 0, 3..3).await.expect("nothing");
        let fenced = writer.pin("p", 0).await.expect_err("fenced");
        assert_eq!(fenced.kind(), ErrorKind::Fenced, "{fenced}");
        lake.create(0, "docs", schema(L2), source(&[(0, 3), (1, 3)]))
            .await
            .expect("the name is free");
    });
}

#[test]
fn should_finish_a_leaving_that_died_half_way() {
    run(async {
        let (site, lake, id, log) = begun().await;
        feed(&lake, id, &log).await;
        lake.drop_collection(0, "docs").await.expect("dropped");
        // The last commit is made and the segments are deleted, the catalog still lists it.
        let dying = open_with(&site, "dying", crash_at(crash::HEAD_BEFORE_SWAP, 1)).await;
        let died = tokio::spawn(async move { dying.finish_leaving().await.map(drop) });
        assert!(died.await.expect_err("dies").is_panic());
        // Without its index and its data a segment cannot be opened, nor rebuilt.
        let files = lake
            .store
            .list(&format!("c/{id}/seg"))
            .await
            .expect("listed");
        assert!(!files.is_empty());
        for file in files {
            lake.store.delete(&file.key).await.expect("deleted");
        }
        let other = open(&site, "b").await;
        assert_eq!(other.finish_leaving().await.expect("finished"), [id]);
        assert!(
            other
                .catalog
                .refresh()
                .await
                .expect("read")
                .state
                .leaving
                .is_empty()
        );
        assert!(
            other
                .store
                .list(&format!("c/{id}/seg"))
                .await
                .expect("listed")
                .is_empty()
        );
    });
}

#[test]
fn should_not_bring_back_what_was_cleared() {
    run(async {
        let (_site, lake, id, mut log) = begun().await;
        feed(&lake, id, &log).await;
        let cleared = lake
            .clear(0, "docs", source(&[(0, 3), (1, 3)]))
            .await
            .expect("cleared");
        assert_eq!(
            lake.mapping(0, "docs").await.expect("mapped"),
            Mapping {
                live: cleared,
                fed: Vec::new()
            }
        );
        let incarnation = lake.incarnation(cleared).await.expect("opened");
        assert_eq!((applied(&incarnation, 0), applied(&incarnation, 1)), (3, 3));
        assert_eq!(incarnation.feed.read(|view| view.card()), 0);
        // The old records again: nothing happens.
        deliver(&incarnation, &log, 0, 0..3).await.expect("skipped");
        log.put(0, "new", 2, Change::Upsert([1.0; 3], None));
        catch_up(&incarnation, &log, 0).await;
        assert_eq!(incarnation.feed.read(|view| view.card()), 1);
        // A replay from the very beginning begins at the floor.
        let replay = lake
            .replay_start(0, "docs", source(&[(0, 0)]), &[])
            .await
            .expect("started");
        let replay = lake.incarnation(replay).await.expect("opened");
        assert_eq!((applied(&replay, 0), applied(&replay, 1)), (3, 3));
        assert_eq!(lake.finish_leaving().await.expect("finished"), [id]);
    });
}

#[test]
fn should_refuse_to_promote_what_is_behind_and_roll_back_after_promoting() {
    run(async {
        let (_site, lake, live, log) = begun().await;
        feed(&lake, live, &log).await;
        let replay = lake
            .replay_start(0, "docs", source(&[]), &[])
            .await
            .expect("started");
        let behind = lake
            .promote(0, "docs", None, &[])
            .await
            .expect_err("behind");
        assert_eq!(behind.kind(), ErrorKind::Invalid);
        assert!(behind.to_string().contains("partition 0"), "{behind}");
        let target = lake.incarnation(replay).await.expect("opened");
        catch_up(&target, &log, 0).await;
        target.flush().await.expect("flushed");
        let behind = lake
            .promote(0, "docs", Some(replay), &[])
            .await
            .expect_err("behind in one partition");
        assert!(behind.to_string().contains("partition 1"), "{behind}");
        catch_up(&target, &log, 1).await;
        lake.promote(0, "docs", Some(replay), &[])
            .await
            .expect_err("consumed but not committed");
        target.flush().await.expect("flushed");
        let unknown = lake
            .promote(0, "docs", Some(Ulid::from_parts(1, 1)), &[])
            .await
            .expect_err("not fed");
        assert_eq!(unknown.kind(), ErrorKind::Invalid);

        let promoted = lake
            .promote(0, "docs", Some(replay), &[])
            .await
            .expect("promoted");
        assert_eq!(
            promoted,
            Mapping {
                live: replay,
                fed: vec![live]
            }
        );
        let query = Search {
            truth: true,
            ..Search::new(vec![0.0; 3], 9)
        };
        assert_eq!(
            target
                .search(&[query], Scope::Fresh)
                .await
                .expect("searched")
                .hits[0]
                .len(),
            6
        );
        let back = lake
            .promote(0, "docs", None, &[])
            .await
            .expect("rolled back");
        assert_eq!(
            back,
            Mapping {
                live,
                fed: vec![replay]
            }
        );
        lake.retire_fed(0, "docs", live)
            .await
            .expect_err("live, not fed");
        lake.retire_fed(0, "docs", replay).await.expect("retired");
        assert_eq!(lake.mapping(0, "docs").await.expect("mapped").fed, []);
        assert_eq!(lake.finish_leaving().await.expect("finished"), [replay]);
        lake.promote(0, "docs", None, &[])
            .await
            .expect_err("nothing is fed");
    });
}

#[test]
fn should_refuse_a_lake_of_another_format() {
    run(async {
        let (site, lake, _, _) = begun().await;
        let json = serde_json::to_vec(&LakeInfo {
            format: FORMAT + 1,
            ..lake.info.clone()
        })
        .expect("serialises");
        lake.store
            .put("lake.json", frame(&json))
            .await
            .expect("written");
        let error = try_open(&site, "b", crash::none())
            .await
            .err()
            .expect("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    });
}
