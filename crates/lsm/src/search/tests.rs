//! Limits, bad queries, thresholds, more blocks than one wave, and old versions.

use vexlake_distance::Metric;
use vexlake_store::{Fault, Faults, Op, Rule};

use super::flat::{WAVE_BLOCKS, kth_key};
use super::*;
use crate::ErrorKind;
use crate::testing::*;

fn query(vector: &[f32], k: usize) -> Search {
    Search::new(vector.to_vec(), k)
}

#[test]
fn should_limit_what_codes_look_at_by_the_kth_key_and_by_nothing_before_there_are_k() {
    let candidate = |key| Candidate {
        key,
        place: Place::Segment { number: 0, row: 0 },
    };
    let found: Vec<Candidate> = [3.0, -1.0, 2.0, 7.0].map(candidate).into();
    let limits = [1, 2, 3, 4, 5].map(|k| kth_key(&found, k));
    assert_eq!(limits, [-1.0, 2.0, 3.0, 7.0, f32::INFINITY]);
    assert_eq!(kth_key(&[], 1), f32::INFINITY);
}

#[test]
fn should_refuse_queries_outside_of_the_limits_naming_both_values() {
    run(async {
        let site = Site::new(Metric::L2, 1).await;
        let handle = site.open("query").await;
        let ok = [1.0f32, 2.0, 3.0];
        for (bad, says) in [
            (query(&ok[..2], 1), "dimension 2, the collection has 3"),
            (query(&[1.0; 4], 1), "dimension 4, the collection has 3"),
            (query(&[], 1), "dimension 0, the collection has 3"),
            (query(&[1.0, f32::NAN, 1.0], 1), "component 1 is NaN"),
            (
                query(&[1.0, 1.0, f32::NEG_INFINITY], 1),
                "component 2 is -inf",
            ),
            (query(&ok, 0), "k is 0"),
            (query(&ok, K_MAX + 1), "k is 10001"),
            (query(&ok, usize::MAX), "allowed are 1 to 10000"),
        ] {
            let error = handle
                .search(&[query(&ok, 1), bad], Scope::Fresh)
                .await
                .expect_err(says);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(says), "{error} says {says}");
        }
        let answers = handle
            .search(&[query(&ok, K_MAX)], Scope::Fresh)
            .await
            .expect("searched");
        assert!(answers.hits[0].is_empty(), "an empty collection");
        assert!(
            handle
                .search(&[], Scope::Fresh)
                .await
                .expect("no query")
                .hits
                .is_empty()
        );
    });
}

#[test]
fn should_say_not_found_for_absent_keys_and_versions() {
    run(async {
        let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
        let handle = site.open("query").await;
        log.upsert(0, "a", 1, 1);
        log.put(0, "a", 2, Change::Delete);
        deliver(&handle, &log, 0, 0..1).await.expect("appended");
        assert_eq!(
            handle
                .vector_of("a", Scope::Fresh)
                .await
                .expect("live")
                .len(),
            3
        );
        catch_up(&handle, &log, 0).await;
        for key in ["a", "b", ""] {
            assert_eq!(
                handle
                    .vector_of(key, Scope::Fresh)
                    .await
                    .expect_err("absent")
                    .kind(),
                ErrorKind::NotFound
            );
        }
        let error = handle
            .search(&[query(&[0.0; 3], 1)], Scope::At(9))
            .await
            .expect_err("no such version");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn should_leave_out_results_below_the_least_score() {
    run(async {
        let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
        let handle = site.open("query").await;
        for n in 0..4u16 {
            let vector = [f32::from(n), 0.0, 0.0];
            log.put(0, &format!("k{n}"), 1, Change::Upsert(vector, None));
        }
        deliver(&handle, &log, 0, 0..2).await.expect("appended");
        handle.flush().await.expect("flushed");
        catch_up(&handle, &log, 0).await;
        // Scores are 1 / (1 + distance): 1, 1/2, 1/3, 1/4.
        let bounded = Search {
            score_min: Some(0.33),
            ..query(&[0.0; 3], 10)
        };
        let answers = handle
            .search(&[bounded], Scope::Fresh)
            .await
            .expect("searched");
        let ids: Vec<&str> = answers.hits[0].iter().map(|hit| hit.id.as_str()).collect();
        assert_eq!(ids, ["k0", "k1", "k2"]);
    });
}

#[test]
fn should_give_the_vector_that_an_element_had_at_a_version() {
    run(async {
        let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
        let handle = site.open("ingest").await;
        let mut vectors = Vec::new();
        for n in [5, 9] {
            log.upsert(0, "a", 1, n);
            catch_up(&handle, &log, 0).await;
            vectors.push(handle.vector_of("a", Scope::Fresh).await.expect("live"));
            handle.flush().await.expect("flushed");
        }
        log.put(0, "a", 2, Change::Delete);
        catch_up(&handle, &log, 0).await;
        handle.flush().await.expect("flushed");
        assert_ne!(vectors[0], vectors[1]);
        for (version, vector) in (1..).zip(&vectors) {
            let had = handle.vector_of("a", Scope::At(version)).await;
            assert_eq!(had.expect("live then"), *vector);
        }
        let now = handle.vector_of("a", Scope::Fresh).await;
        assert_eq!(now.expect_err("deleted").kind(), ErrorKind::NotFound);
    });
}

#[test]
fn should_search_more_blocks_than_one_wave_holds() {
    run(async {
        let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
        let handle = site.open("query").await;
        // One segment is at least one block.
        let segments = WAVE_BLOCKS as u64 + 5;
        for n in 0..segments {
            log.upsert(0, &format!("k{n}"), 1, n);
            if n > 0 {
                log.upsert(0, "hot", 1, n);
            }
            catch_up(&handle, &log, 0).await;
            handle.flush().await.expect("flushed");
        }
        assert_eq!(handle.snapshot().segments.len() as u64, segments);
        check(&handle, &log, Metric::L2).await;
        let group = [
            query(&[0.0, 1.0, 1.0], 3),
            query(&[segments as f32, 1.0, 1.0], 200),
        ];
        let answers = handle.search(&group, Scope::Fresh).await.expect("searched");
        assert_eq!(answers.hits[0][0].id, "k0");
        assert_eq!(answers.hits[1].len() as u64, segments + 1);
        assert_eq!(answers.rows_scanned, 2 * (2 * segments - 1));
    });
}

#[test]
fn should_go_on_with_the_newest_version_when_its_own_was_swept() {
    run(async {
        for asked in ["search", "get", "append"] {
            let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
            let writer = site.open("ingest").await;
            for n in 0..3 {
                log.upsert(0, &format!("k{n}"), 1, n);
                catch_up(&writer, &log, 0).await;
                writer.flush().await.expect("flushed");
            }
            let reader = site.open("query").await;
            merge(&writer, &spec_of(&writer, None))
                .await
                .expect("merged");
            site.tick(5);
            let options = crate::GcOptions {
                grace_ms: 0,
                dry_run: false,
            };
            writer.collect_garbage(&options).await.expect("collected");
            let scope = Scope::Fresh;
            match asked {
                "search" => {
                    let answers = reader
                        .search(&[query(&[0.0; 3], 10)], scope)
                        .await
                        .expect("searched");
                    assert_eq!(answers.hits[0].len(), 3);
                }
                "get" => assert_eq!(
                    reader.vector_of("k1", scope).await.expect("got"),
                    [1.0, 2.0, 1.0]
                ),
                _ => {
                    log.put(0, "k1", 2, Change::SetAttrs(String::new()));
                    catch_up(&reader, &log, 0).await;
                }
            }
            check(&reader, &log, Metric::L2).await;
            let old = reader
                .search(&[query(&[0.0; 3], 10)], Scope::At(3))
                .await
                .expect_err("swept");
            assert_eq!(old.kind(), ErrorKind::NotFound, "{old}");
        }
    });
}

#[test]
fn should_see_only_what_its_scope_holds() {
    run(async {
        let (site, mut log) = (Site::new(Metric::Cosine, 1).await, Log::default());
        let handle = site.open("query").await;
        for n in 0..3 {
            log.upsert(0, &format!("k{n}"), 1, n);
            catch_up(&handle, &log, 0).await;
            if n < 2 {
                handle.flush().await.expect("flushed");
            }
        }
        for (scope, expected) in [
            (Scope::At(0), 0),
            (Scope::At(1), 1),
            (Scope::At(2), 2),
            (Scope::Snapshot, 2),
            (Scope::Fresh, 3),
        ] {
            let answers = handle
                .search(&[query(&[1.0, 1.0, 1.0], 10)], scope)
                .await
                .expect("searched");
            assert_eq!(answers.hits[0].len(), expected, "{scope:?}");
        }
    });
}

/// Two segments of which the first is all shadowed, and a reader that has both open.
async fn overwritten() -> (Site, Log, std::sync::Arc<Incarnation>) {
    let (site, mut log) = (Site::new(Metric::L2, 1).await, Log::default());
    let writer = site.open("ingest").await;
    for round in 0..2 {
        log.upsert(0, "a", round, 1);
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
    }
    (site, log, writer)
}

async fn lose(site: &Site, name: &str) {
    for key in site.list("seg").await {
        if key.ends_with(name) {
            let scoped = site.store.scoped(&Incarnation::prefix(site.id));
            scoped.delete(&key).await.expect("deleted");
        }
    }
}

#[test]
fn should_call_a_lost_object_damage_and_not_an_absent_record() {
    run(async {
        let (site, _log, writer) = overwritten().await;
        let reader = site.open("query").await;
        let version = reader.snapshot().version();
        lose(&site, "data.parquet").await;
        for scope in [Scope::Fresh, Scope::Snapshot, Scope::At(version - 1)] {
            let found = reader.search(&[query(&[0.0; 3], 1)], scope).await;
            let error = found.expect_err("lost");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{scope:?}: {error}");
        }
        let error = reader.vector_of("a", Scope::Fresh).await.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        lose(&site, "index.vxi").await;
        let opened = site.open_with(&site.store, "query", vexlake_manifest::crash::none());
        let error = opened.await.err().expect("lost");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        drop(writer);
    });
}

#[test]
fn should_open_a_newer_version_where_the_one_it_reads_is_swept() {
    run(async {
        let (site, log, writer) = overwritten().await;
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        let hold = Fault::Hold(gate.clone());
        let faults = Faults::scripted([Rule::nth(Op::Ranges, "index.vxi", 1, hold)]);
        let store = site.store.clone().with_faults(faults.clone());
        let context = site.context("query", vexlake_manifest::crash::none());
        let id = site.id;
        let opening = tokio::spawn(async move { Incarnation::open(&store, id, context).await });
        while faults.fired() == 0 {
            tokio::task::yield_now().await;
        }
        merge(&writer, &spec_of(&writer, None))
            .await
            .expect("merged");
        site.tick(5);
        let options = crate::GcOptions {
            grace_ms: 0,
            dry_run: false,
        };
        writer.pin("later", 1).await.expect("pinned");
        writer.unpin("later", 1).await.expect("unpinned");
        let collected = writer.collect_garbage(&options).await.expect("collected");
        assert!(!collected.objects.is_empty());
        gate.add_permits(1);
        let opened = opening.await.expect("no panic").expect("opened");
        check(&opened, &log, Metric::L2).await;
    });
}
