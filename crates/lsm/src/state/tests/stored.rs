//! What is stored: deltas and states as JSON, shadows inline and in objects, folds of them.

use roaring::RoaringBitmap;
use vexlake_store::Store;

use super::centroids::trained;
use super::sources::accept;
use super::*;
use crate::shadow::INLINE_BYTES_MAX;

#[test]
fn should_read_back_every_kind_of_delta_and_the_state() {
    let shadows = Shadows {
        object: Some((id(5), vec![id(1)])),
        ..bits(1, &[0, 3])
    };
    let source = Source {
        starts: BTreeMap::from([(0, 0), (7, u64::MAX)]),
        ..sources(1).remove(&0).expect("one")
    };
    let empty = Range {
        log_time: i64::MIN,
        last: None,
        ..range(5, 5)
    };
    let deltas = [
        Delta::Append {
            ranges: vec![range(5, 6), empty],
            adds: vec![segment(2, 1, 0)],
            shadows: shadows.clone(),
        },
        Delta::Replace {
            inputs: vec![id(1)],
            adds: vec![segment(2, 1, 0)],
            shadows,
            dropped: Dropped {
                entries: u64::MAX,
                hash: hash(3),
                deletes: Some(DroppedDeletes {
                    entries: 1 << 60,
                    log_time: -5,
                }),
            },
        },
        Delta::Mark(Mark {
            cutoff_ms: u64::MAX,
            retain_from: 1 << 60,
        }),
        Delta::Pin {
            name: "p \"q\"".to_owned(),
            version: u64::MAX,
        },
        Delta::Unpin {
            name: String::new(),
            version: 0,
        },
        Delta::Source {
            previous: None,
            id: 3,
            source: source.clone(),
        },
        accept(0, 5, 9),
        Delta::Partition {
            source: 0,
            partition: 9,
            start: 1,
        },
        Delta::Accept {
            source: 0,
            partition: 7,
            from: 1 << 60,
            to: u64::MAX,
        },
        Delta::Partition {
            source: 1,
            partition: 2,
            start: u64::MAX,
        },
        trained(None, 5),
        trained(Some(5), 6),
        Delta::Retire {},
    ];
    for delta in deltas {
        let text = serde_json::to_string(&delta).expect("serialises");
        assert_eq!(
            serde_json::from_str::<Delta>(&text).expect("parses"),
            delta,
            "{text}"
        );
        assert!(text.starts_with("{\"kind\":\""), "{text}");
    }
    let mut state = begun();
    state.sources.insert(3, source);
    state
        .apply(
            7,
            0,
            &Delta::Pin {
                name: "p".to_owned(),
                version: 2,
            },
        )
        .expect("applies");
    state
        .apply(
            8,
            0,
            &Delta::Mark(Mark {
                cutoff_ms: 1,
                retain_from: 1,
            }),
        )
        .expect("applies");
    let text = serde_json::to_string(&state).expect("serialises");
    assert_eq!(
        serde_json::from_str::<IncarnationState>(&text).expect("parses"),
        state
    );
}

/// Every other bit: nothing that run-length or array containers could shorten.
fn scattered(count: u32, offset: u32) -> RoaringBitmap {
    (0..count).map(|n| n * 7 + n * n % 5 + offset).collect()
}

#[test]
fn should_keep_small_shadows_inline_and_put_large_ones_into_one_object() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::directory(directory.path()).expect("a store");
        let small = BTreeMap::from([(id(1), scattered(10, 0)), (id(2), RoaringBitmap::new())]);
        let placed = Shadows::place(small, &store, id(9)).await.expect("placed");
        assert_eq!(
            placed.touched().into_iter().collect::<Vec<_>>(),
            [id(1)],
            "empty bits touch nothing"
        );
        assert!(placed.object.is_none());
        let bits = BTreeMap::from([(id(1), scattered(1500, 0)), (id(2), scattered(1500, 3))]);
        assert!(
            bits.values()
                .map(RoaringBitmap::serialized_size)
                .sum::<usize>()
                > INLINE_BYTES_MAX
        );
        let placed = Shadows::place(bits.clone(), &store, id(9))
            .await
            .expect("placed");
        assert!(placed.inline.is_empty());
        assert_eq!(store.list("shadow").await.expect("listed").len(), 1);
        let objects = crate::shadow::read_objects(&store, &[id(9)].into())
            .await
            .expect("read");
        for (segment, expected) in bits {
            let mut refs = crate::shadow::ShadowRefs::default();
            refs.absorb(3, &segment, &placed);
            refs.inline.0.insert(1_000_000);
            let mut whole = expected;
            whole.insert(1_000_000);
            assert_eq!(crate::shadow::union(&segment, &refs, &objects), whole);
        }
    });
}

#[test]
fn should_mean_the_same_after_folding_its_shadow_objects() {
    run(async {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::directory(directory.path()).expect("a store");
        let mut state = begun();
        state
            .apply(2, 0, &append(range(5, 65_005), vec![segment(2, 65_000, 0)]))
            .expect("applies");
        let mut expected = RoaringBitmap::new();
        for number in 0..SHADOW_OBJECTS_MAX as u32 {
            assert!(!state.fold_due(), "object {number}");
            let bits = scattered(3000, 2000 * number);
            expected |= &bits;
            let shadows =
                Shadows::place([(id(2), bits)].into(), &store, id(100 + u64::from(number)))
                    .await
                    .expect("placed");
            let delta = Delta::Append {
                ranges: Vec::new(),
                adds: Vec::new(),
                shadows,
            };
            state
                .apply(3 + u64::from(number), 0, &delta)
                .expect("applies");
        }
        state
            .apply(
                50,
                0,
                &Delta::Append {
                    ranges: Vec::new(),
                    adds: Vec::new(),
                    shadows: bits(1, &[2]),
                },
            )
            .expect("applies");
        assert!(state.fold_due());

        let folded = state.fold(&store).await.expect("folded");

        assert!(!folded.fold_due());
        assert_eq!(folded.shadow_objects().len(), 1);
        let objects = crate::shadow::read_objects(&store, &folded.shadow_objects())
            .await
            .expect("read");
        let whole = |number| {
            crate::shadow::union(&id(number), &folded.segments[&id(number)].shadow, &objects)
        };
        assert_eq!(whole(2), expected);
        assert_eq!(whole(1), [2].into_iter().collect());
        for (id, segment) in &state.segments {
            assert_eq!(
                folded.segments[id].shadow.version, segment.shadow.version,
                "readers keep their bitmaps"
            );
        }
    });
}

/// Commits that each hide far more rows than fit inline: shadow objects, then folds.
#[test]
fn should_read_old_versions_before_and_after_a_fold() {
    run(async {
        const KEYS: u64 = 60_000;
        let site = Site::new(Metric::L2, 1).await;
        let writer = site.open("ingest").await;
        let mut log = Log::default();
        for number in 0..KEYS {
            log.upsert(0, &format!("k{number}"), 1, number);
        }
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        let commits = SHADOW_OBJECTS_MAX as u64 + 4;
        let mut cards = vec![0, KEYS];
        for commit in 0..commits {
            for number in (0..KEYS).filter(|number| number % (commits + 1) == commit) {
                log.put(0, &format!("k{number}"), 2, Change::Delete);
            }
            catch_up(&writer, &log, 0).await;
            writer.flush().await.expect("flushed");
            cards.push(writer.snapshot().live_rows);
        }
        assert!(
            !site.list("shadow").await.is_empty(),
            "shadow objects were written"
        );
        assert!(
            writer.snapshot().state().shadow_objects().len() < SHADOW_OBJECTS_MAX,
            "and folded"
        );
        let fresh = site.open("query").await;
        for (version, card) in cards.iter().enumerate() {
            for handle in [&writer, &fresh] {
                assert_eq!(
                    handle.at(version as u64).await.expect("opened").live_rows,
                    *card,
                    "version {version}"
                );
            }
        }
        assert!(
            cards.windows(2).skip(1).all(|pair| pair[0] > pair[1]),
            "{cards:?}"
        );
        site.tick(5);
        writer
            .collect_garbage(&crate::GcOptions {
                grace_ms: 0,
                dry_run: false,
            })
            .await
            .expect("collected");
        assert_eq!(
            site.open("query").await.snapshot().live_rows,
            cards[cards.len() - 1]
        );
        verify(&writer, &log).await;
    });
}
