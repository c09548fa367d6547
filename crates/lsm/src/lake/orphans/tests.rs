//! Orphans are removed; a creator that is slow either has its name or hears that it has not.

use vexlake_distance::Metric;
use vexlake_manifest::{CrashPoint, State, crash};

use super::*;
use crate::ErrorKind;
use crate::lake::tests::{begun, feed, open, open_with, source};
use crate::state::Delta;
use crate::testing::{Gate, Site, crash_at, run, schema};

const L2: Metric = Metric::L2;
const NOW: LakeGcOptions = LakeGcOptions {
    orphans: true,
    grace_ms: 0,
    dry_run: false,
};
const LOOK: LakeGcOptions = LakeGcOptions {
    dry_run: true,
    ..NOW
};
/// Every point that a creation passes: of the incarnation's first commit, then of the
/// catalog's; and whether the name is there when it dies at that point.
const CREATION: [(&str, u64, bool); 6] = [
    (crash::COMMIT_BEFORE_CREATE, 1, false),
    (crash::COMMIT_AFTER_CREATE, 1, false),
    (crash::HEAD_BEFORE_SWAP, 1, false),
    (crash::COMMIT_BEFORE_CREATE, 2, false),
    (crash::COMMIT_AFTER_CREATE, 2, true),
    (crash::HEAD_BEFORE_SWAP, 2, true),
];

async fn create(lake: &Lake, name: &str) -> Result<Ulid> {
    lake.create(0, name, schema(L2), source(&[(0, 0)])).await
}

async fn ids(lake: &Lake, options: &LakeGcOptions) -> (Vec<Ulid>, Vec<Ulid>) {
    let LakeCollected { left, orphans } = lake.collect_garbage(options).await.expect("collected");
    (
        left,
        orphans.iter().map(|orphan| orphan.incarnation).collect(),
    )
}

/// A creator of "new" that stops or dies at a point, in a lake that has "docs".
async fn creator(site: &Site, crash: CrashPoint) -> tokio::task::JoinHandle<Result<Ulid>> {
    let lake = open_with(site, "creator", crash).await;
    tokio::spawn(async move { create(&lake, "new").await })
}

/// A creator of "new" that died at a point.
async fn died_at(site: &Site, point: &'static str, nth: u64) {
    let died = creator(site, crash_at(point, nth)).await.await;
    assert!(died.expect_err("dies").is_panic(), "{point} {nth}");
}

/// What is left below `c/<id>/`.
async fn left_of(lake: &Lake, id: Ulid) -> Vec<String> {
    let prefix = format!("c/{id}/");
    let listed = lake.store.list(&prefix).await.expect("listed");
    let keys = listed.into_iter().map(|object| object.key);
    keys.map(|key| {
        key[prefix.len()..]
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

#[test]
fn should_remove_what_a_creator_left_that_died_at_any_point() {
    for (point, nth, named) in CREATION {
        run(async {
            let (site, lake, docs, log) = begun().await;
            feed(&lake, docs, &log).await;
            died_at(&site, point, nth).await;
            site.tick(1);
            let (left, orphans) = ids(&lake, &NOW).await;
            assert_eq!(left, orphans, "{point} {nth}");
            assert_eq!(orphans.len(), usize::from(!named), "{point} {nth}");
            for id in orphans {
                let kept = left_of(&lake, id).await;
                assert!(
                    kept.iter().filter(|kind| *kind == "bases").count() == 1
                        && kept
                            .iter()
                            .all(|kind| ["HEAD", "commits", "bases"].contains(&kind.as_str())),
                    "{point} {nth}: {kept:?}"
                );
                assert!(lake.has_retired(id).await.expect("read"));
            }
            assert_eq!(ids(&lake, &NOW).await, (vec![], vec![]), "{point} {nth}");
            assert_eq!(create(&lake, "new").await.is_ok(), !named, "{point} {nth}");
            let docs = lake.incarnation(docs).await.expect("opened");
            docs.pin("p", 0).await.expect("docs takes commits");
        });
    }
}

#[test]
fn should_fence_a_slow_creator_at_any_point_or_leave_it_its_name() {
    for (point, nth, named) in CREATION {
        run(async {
            let (site, lake, _, _) = begun().await;
            let (hook, gate) = Gate::at_nth(point, nth);
            let creating = creator(&site, hook).await;
            gate.wait();
            site.tick(1);
            assert_eq!(
                ids(&lake, &NOW).await.0.len(),
                usize::from(!named),
                "{point} {nth}"
            );
            gate.open();
            match creating.await.expect("no panic") {
                Ok(id) => {
                    assert!(named, "{point} {nth}");
                    assert_eq!(lake.mapping(0, "new").await.expect("mapped").live, id);
                    let incarnation = lake.incarnation(id).await.expect("opened");
                    incarnation.pin("p", 0).await.expect("takes commits");
                }
                Err(error) => {
                    assert!(!named, "{point} {nth}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Fenced, "{point} {nth}: {error}");
                    assert!(error.to_string().contains("orphan"), "{error}");
                    let absent = lake.mapping(0, "new").await.expect_err("no name");
                    assert_eq!(absent.kind(), ErrorKind::NotFound);
                    create(&lake, "new").await.expect("created again");
                }
            }
            site.tick(1);
            assert_eq!(ids(&lake, &NOW).await, (vec![], vec![]), "{point} {nth}");
        });
    }
}

#[test]
fn should_fence_a_creator_while_its_orphan_is_only_leaving() {
    run(async {
        let (site, lake, _, _) = begun().await;
        let (hook, gate) = Gate::at_nth(crash::COMMIT_BEFORE_CREATE, 2);
        let creating = creator(&site, hook).await;
        gate.wait();
        site.tick(1);
        // Dies when the catalog says "leaving" and nothing else is done.
        let dying = open_with(&site, "gc", crash_at(crash::COMMIT_BEFORE_CREATE, 2)).await;
        let died = tokio::spawn(async move { dying.collect_garbage(&NOW).await.map(drop) });
        assert!(died.await.expect_err("dies").is_panic());
        gate.open();
        let error = creating.await.expect("no panic").expect_err("fenced");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        let (left, orphans) = ids(&lake, &NOW).await;
        assert_eq!((left.len(), orphans.len()), (1, 0));
    });
}

#[test]
fn should_finish_a_removal_that_died_at_any_point() {
    // A leave, a retire or a burial, a forget: three commits, for either kind of orphan.
    for orphan in [CREATION[0], CREATION[3]] {
        for point in [
            crash::COMMIT_BEFORE_CREATE,
            crash::COMMIT_AFTER_CREATE,
            crash::HEAD_BEFORE_SWAP,
        ] {
            for nth in 1..=3 {
                run(async {
                    let (site, lake, _, _) = begun().await;
                    died_at(&site, orphan.0, orphan.1).await;
                    site.tick(1);
                    let (_, found) = ids(&lake, &LOOK).await;
                    let dying = open_with(&site, "gc", crash_at(point, nth)).await;
                    let died =
                        tokio::spawn(async move { dying.collect_garbage(&NOW).await.map(drop) });
                    assert!(died.await.expect_err("dies").is_panic(), "{point} {nth}");
                    ids(&lake, &NOW).await;
                    assert!(
                        lake.has_retired(found[0]).await.expect("read"),
                        "{point} {nth}"
                    );
                    let catalog = lake.catalog.refresh().await.expect("read");
                    assert!(catalog.state.leaving.is_empty(), "{point} {nth}");
                    assert_eq!(ids(&lake, &NOW).await, (vec![], vec![]), "{point} {nth}");
                });
            }
        }
    }
}

#[test]
fn should_leave_the_young_alone_and_only_look_in_a_dry_run() {
    run(async {
        let (site, lake, _, _) = begun().await;
        died_at(&site, crash::COMMIT_BEFORE_CREATE, 2).await;
        let patient = LakeGcOptions {
            grace_ms: 1_000,
            ..NOW
        };
        site.tick(999);
        assert_eq!(ids(&lake, &patient).await, (vec![], vec![]));
        site.tick(1);
        let version = lake.catalog.refresh().await.expect("read").version;
        let (left, orphans) = ids(&lake, &LOOK).await;
        assert_eq!((left.len(), orphans.len()), (0, 1));
        assert_eq!(lake.catalog.refresh().await.expect("read").version, version);
        assert!(!lake.has_retired(orphans[0]).await.expect("read"));
        let unasked = LakeGcOptions {
            orphans: false,
            ..NOW
        };
        assert_eq!(ids(&lake, &unasked).await, (vec![], vec![]));
        assert_eq!(ids(&lake, &patient).await, (orphans.clone(), orphans));
    });
}

#[test]
fn should_never_take_what_is_live_fed_or_leaving_for_an_orphan() {
    run(async {
        let (site, lake, docs, log) = begun().await;
        let live = feed(&lake, docs, &log).await;
        let replay = lake
            .replay_start(0, "docs", source(&[]), &[])
            .await
            .expect("started");
        let dropped = create(&lake, "dropped").await.expect("created");
        lake.drop_collection(0, "dropped").await.expect("dropped");
        site.tick(1);
        assert_eq!(ids(&lake, &LOOK).await, (vec![], vec![]));
        assert_eq!(ids(&lake, &NOW).await, (vec![dropped], vec![]));
        for id in [docs, replay] {
            assert!(!lake.has_retired(id).await.expect("read"));
        }
        let head = live.manifest.refresh().await.expect("read");
        assert!(!head.state.segments.is_empty());
    });
}

#[test]
fn should_sweep_what_was_uploaded_into_a_retired_incarnation() {
    run(async {
        let (site, lake, docs, _) = begun().await;
        lake.drop_collection(0, "docs").await.expect("dropped");
        lake.finish_leaving().await.expect("finished");
        site.tick(1);
        assert_eq!(ids(&lake, &NOW).await, (vec![], vec![]));
        let late = format!("c/{docs}/seg/{}/data.parquet", Ulid::from_parts(1, 1));
        lake.store
            .put(&late, vec![0; 10].into())
            .await
            .expect("put");
        let found = lake.collect_garbage(&LOOK).await.expect("looked").orphans;
        assert_eq!(
            found,
            [Orphan {
                incarnation: docs,
                objects: 1,
                bytes: 10
            }]
        );
        assert_eq!(ids(&lake, &NOW).await, (vec![docs], vec![docs]));
        assert_eq!(lake.store.size(&late).await.expect("asked"), None);
        assert_eq!(ids(&lake, &NOW).await, (vec![], vec![]));
    });
}

#[test]
fn should_refuse_to_name_what_is_leaving_and_to_take_a_name_away_from_what_has_one() {
    let (a, b) = (Ulid::from_parts(1, 1), Ulid::from_parts(1, 2));
    let map = |incarnation| CatalogDelta::Map {
        name: "0/x".to_owned(),
        before: None,
        after: Some(crate::Mapping {
            live: incarnation,
            fed: Vec::new(),
        }),
    };
    let leave = |incarnation| CatalogDelta::Leave { incarnation };
    let mut state = CatalogState::default();
    state.apply(1, 0, &leave(a)).expect("applies");
    let refused = |state: &CatalogState, delta: &CatalogDelta| {
        let mut state = state.clone();
        state.apply(2, 0, delta).expect_err("refused").rule
    };
    assert_eq!(refused(&state, &map(a)), "catalog-gone");
    assert_eq!(refused(&state, &leave(a)), "catalog-nameless");
    state.apply(2, 0, &map(b)).expect("applies");
    assert_eq!(refused(&state, &leave(b)), "catalog-nameless");
    let json = serde_json::to_string(&leave(a)).expect("serialises");
    assert_eq!(json, format!(r#"{{"kind":"leave","incarnation":"{a}"}}"#));
}

#[test]
fn should_go_on_with_the_others_when_one_cannot_be_finished() {
    run(async {
        let (site, lake, docs, _) = begun().await;
        let other = create(&lake, "other").await.expect("created");
        for name in ["docs", "other"] {
            lake.drop_collection(0, name).await.expect("dropped");
        }
        let broken = docs.min(other);
        let fresh = open(&site, "b").await;
        let head = format!("c/{broken}/HEAD");
        lake.store.put(&head, "no frame".into()).await.expect("put");
        fresh.finish_leaving().await.expect_err("one is damaged");
        let catalog = fresh.catalog.refresh().await.expect("read");
        assert_eq!(catalog.state.leaving, [broken].into());
    });
}

#[test]
fn should_retire_an_orphan_for_good() {
    run(async {
        let (site, lake, _, _) = begun().await;
        died_at(&site, crash::COMMIT_BEFORE_CREATE, 2).await;
        site.tick(1);
        let (_, orphans) = ids(&lake, &LOOK).await;
        // Whoever has it open already is fenced as after a drop.
        let other = open(&site, "b").await;
        let sleeper = other.incarnation(orphans[0]).await.expect("opened");
        ids(&lake, &NOW).await;
        let error = sleeper
            .commit_simple(|_| Delta::Retire {})
            .await
            .expect_err("fenced");
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    });
}
