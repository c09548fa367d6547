//! One test a rule, and what is stored of every delta.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::State;
use vexlake_segment::{EntryHash, SegmentMeta};
use vexlake_store::Store;

use super::*;
use crate::shadow::{Bits, INLINE_BYTES_MAX, Shadows};
use crate::testing::*;

fn id(number: u64) -> Ulid {
    Ulid::from_parts(BEGIN_MS + number, 7)
}

fn hash(number: u64) -> EntryHash {
    EntryHash::of_row("k", &position(0, 0, number))
}

fn segment(number: u64, rows: u32, deletes: u32) -> SegmentMeta {
    SegmentMeta {
        id: id(number),
        rows,
        deletes,
        files: Vec::new(),
        index_head_bytes: 0,
        log_time_min: 0,
        log_time_max: 0,
        hash: hash(number),
        centroids: None,
        created_ms: BEGIN_MS + number,
    }
}

fn kept(count: u64) -> Ledger {
    Ledger {
        kept: count,
        ..Ledger::default()
    }
}

fn range(from: u64, to: u64) -> Range {
    let last = Some(Fingerprint {
        offset: to,
        timestamp: 5,
        crc32c: 9,
    });
    Range {
        source: 0,
        partition: 0,
        from,
        to,
        log_time: 10,
        last,
        ledger: kept(to - from),
    }
}

fn append(range: Range, adds: Vec<SegmentMeta>) -> Delta {
    Delta::Append {
        ranges: vec![range],
        adds,
        shadows: Shadows::default(),
    }
}

fn replace(inputs: &[u64], adds: Vec<SegmentMeta>, entries: u64, dropped: EntryHash) -> Delta {
    let inputs = inputs.iter().map(|number| id(*number)).collect();
    Delta::Replace {
        inputs,
        adds,
        shadows: Shadows::default(),
        dropped: Dropped {
            entries,
            hash: dropped,
            deletes: None,
        },
    }
}

fn bits(segment: u64, bits: &[u32]) -> Shadows {
    let bits = Bits(bits.iter().copied().collect());
    Shadows {
        inline: BTreeMap::from([(id(segment), bits)]),
        object: None,
    }
}

/// Segment 1 of four rows and one delete, from offsets 0 to 5 of partition 0.
fn begun() -> IncarnationState {
    let mut state = IncarnationState::new(id(0), "0/t".to_owned(), schema(Metric::L2), sources(2));
    state
        .apply(1, 0, &append(range(0, 5), vec![segment(1, 4, 1)]))
        .expect("applies");
    state
}

#[track_caller]
fn refused(state: &IncarnationState, delta: &Delta, rule: &str) {
    let mut after = state.clone();
    let violation = after.apply(7, 0, delta).expect_err("refused");
    assert_eq!(violation.rule, rule, "{violation}");
    assert_eq!(after, *state, "a refused delta changes nothing");
}

#[test]
fn should_refuse_a_range_that_does_not_begin_at_the_stored_next() {
    let state = begun();
    for (from, to) in [(0, 5), (4, 6), (6, 7)] {
        refused(
            &state,
            &append(range(from, to), vec![segment(2, (to - from) as u32, 0)]),
            "append-contiguous",
        );
    }
    let backwards = Range {
        to: 4,
        ledger: kept(0),
        ..range(5, 5)
    };
    refused(&state, &append(backwards, Vec::new()), "append-contiguous");
    for unknown in [
        Range {
            partition: 2,
            ..range(0, 1)
        },
        Range {
            source: 1,
            ..range(0, 1)
        },
    ] {
        refused(
            &state,
            &append(unknown, vec![segment(2, 1, 0)]),
            "append-contiguous",
        );
    }
}

#[test]
fn should_refuse_log_time_that_goes_back() {
    let late = Range {
        log_time: 9,
        ..range(5, 6)
    };
    refused(
        &begun(),
        &append(late, vec![segment(2, 1, 0)]),
        "checkpoint-monotone",
    );
}

#[test]
fn should_refuse_a_ledger_that_does_not_add_up() {
    let state = begun();
    let short = Range {
        ledger: kept(1),
        ..range(5, 7)
    };
    refused(
        &state,
        &append(short, vec![segment(2, 1, 0)]),
        "ledger-adds-up",
    );
    // Two offsets kept, one entry written.
    refused(
        &state,
        &append(range(5, 7), vec![segment(2, 1, 0)]),
        "ledger-adds-up",
    );
    let uncounted = Range {
        ledger: Ledger {
            superseded: 1,
            dead_lettered: 1,
            ..kept(0)
        },
        ..range(5, 7)
    };
    refused(
        &state,
        &append(uncounted, vec![segment(2, 1, 0)]),
        "ledger-adds-up",
    );
    let mut after = state.clone();
    let counted = Ledger {
        kept: 2,
        superseded: 1,
        dead_lettered: 1,
        not_records: 1,
        lost: 0,
    };
    let delta = append(
        Range {
            ledger: counted,
            ..range(5, 10)
        },
        vec![segment(2, 1, 1)],
    );
    after.apply(7, 0, &delta).expect("all columns count");
    assert_eq!(after.ledger(), Ledger { kept: 7, ..counted });
    assert_eq!(after.entries(), 7);
}

#[test]
fn should_refuse_a_segment_that_is_live_or_older_than_the_mark() {
    let mut state = begun();
    refused(
        &state,
        &append(range(5, 6), vec![segment(1, 1, 0)]),
        "segment-new",
    );
    state
        .apply(
            7,
            0,
            &Delta::Mark(Mark {
                cutoff_ms: BEGIN_MS + 10,
                retain_from: 3,
            }),
        )
        .expect("applies");
    refused(
        &state,
        &append(range(5, 6), vec![segment(9, 1, 0)]),
        "segment-new",
    );
    state
        .apply(8, 0, &append(range(5, 6), vec![segment(10, 1, 0)]))
        .expect("minted at the cutoff");
}

#[test]
fn should_refuse_to_replace_or_shadow_what_is_not_live() {
    let state = begun();
    refused(
        &state,
        &replace(&[2], Vec::new(), 0, EntryHash::default()),
        "segment-live",
    );
    refused(
        &state,
        &replace(&[1, 1], Vec::new(), 10, hash(1) + hash(1)),
        "segment-live",
    );
    let with = |shadows| Delta::Append {
        ranges: Vec::new(),
        adds: Vec::new(),
        shadows,
    };
    refused(&state, &with(bits(2, &[0])), "segment-live");
    refused(&state, &with(bits(1, &[5])), "segment-live");
    refused(
        &state,
        &with(Shadows {
            inline: BTreeMap::new(),
            object: Some((id(5), vec![id(2)])),
        }),
        "segment-live",
    );
    let mut after = state.clone();
    after
        .apply(7, 0, &with(bits(1, &[0, 4])))
        .expect("the first row and the delete");
    assert_eq!(after.segments[&id(1)].shadow.inline.0.len(), 2);
    assert_eq!(after.segments[&id(1)].shadow.version, 7);
}

#[test]
fn should_refuse_a_replace_that_loses_or_invents_entries() {
    let state = begun();
    let output = |rows, deletes, number| {
        let meta = segment(2, rows, deletes);
        vec![SegmentMeta {
            hash: hash(number),
            ..meta
        }]
    };
    refused(
        &state,
        &replace(&[1], output(4, 0, 1), 0, EntryHash::default()),
        "replace-conserves",
    );
    refused(
        &state,
        &replace(&[1], output(4, 1, 2), 0, EntryHash::default()),
        "replace-conserves",
    );
    refused(
        &state,
        &replace(&[1], output(3, 1, 2), 1, hash(1)),
        "replace-conserves",
    );
    let mut after = state.clone();
    after
        .apply(7, 0, &replace(&[1], output(3, 1, 2), 1, hash(1) - hash(2)))
        .expect("conserved");
    assert_eq!((after.entries(), after.dropped_entries), (4, 1));
    assert_eq!(after.segments.keys().collect::<Vec<_>>(), [&id(2)]);
}

#[test]
fn should_refuse_a_mark_that_goes_back_or_beyond_its_version() {
    let mut state = begun();
    let mark = |cutoff_ms, retain_from| {
        Delta::Mark(Mark {
            cutoff_ms,
            retain_from,
        })
    };
    state.apply(4, 0, &mark(100, 3)).expect("applies");
    refused(&state, &mark(99, 3), "mark-monotone");
    refused(&state, &mark(100, 2), "mark-monotone");
    refused(&state, &mark(100, 8), "mark-monotone");
    state
        .apply(5, 0, &mark(100, 3))
        .expect("standing still is allowed");
    assert_eq!((state.cutoff_ms(), state.retain_from()), (100, 3));
}

#[test]
fn should_keep_pins_unique_readable_and_ended_once() {
    let mut state = begun();
    let pin = |name: &str, version| Delta::Pin {
        name: name.to_owned(),
        version,
    };
    let unpin = |name: &str, version| Delta::Unpin {
        name: name.to_owned(),
        version,
    };
    refused(&state, &pin("a", 7), "pin-readable");
    state.apply(7, 0, &pin("a", 3)).expect("applies");
    refused(&state, &pin("a", 4), "pin-new");
    refused(&state, &unpin("a", 4), "pin-live");
    refused(&state, &unpin("b", 3), "pin-live");
    state
        .apply(
            8,
            0,
            &Delta::Mark(Mark {
                cutoff_ms: 0,
                retain_from: 5,
            }),
        )
        .expect("applies");
    refused(&state, &pin("b", 4), "pin-readable");
    state
        .apply(9, 0, &pin("b", 3))
        .expect("pinned already, so still readable");
    state.apply(10, 0, &unpin("a", 3)).expect("applies");
    assert_eq!(state.pinned(), [3]);
}

#[test]
fn should_refuse_a_source_that_is_not_the_next() {
    let mut state = begun();
    let next = sources(1).remove(&0).expect("a source");
    let source = |previous, id| Delta::Source {
        previous,
        id,
        source: next.clone(),
    };
    refused(&state, &source(None, 1), "source-new");
    refused(&state, &source(Some(1), 2), "source-new");
    refused(&state, &source(Some(0), 0), "source-new");
    state.apply(7, 0, &source(Some(0), 1)).expect("applies");
    assert_eq!(state.checkpoint(1, 0).map(|c| c.next), Some(0));
}

#[test]
fn should_accept_a_loss_only_from_the_stored_next_and_count_it() {
    let mut state = begun();
    let accept = |partition, from, to| Delta::Accept {
        source: 0,
        partition,
        from,
        to,
    };
    for (partition, from, to) in [(0, 4, 9), (0, 6, 9), (0, 5, 4), (9, 0, 1)] {
        refused(&state, &accept(partition, from, to), "loss-current");
    }
    state.apply(7, 0, &accept(0, 5, 9)).expect("applies");
    let checkpoint = state.checkpoint(0, 0).expect("a partition");
    assert_eq!(
        (checkpoint.next, checkpoint.ledger.lost, checkpoint.log_time),
        (9, 4, 10)
    );
    assert_eq!(
        checkpoint.ledger.total(),
        checkpoint.next - checkpoint.start
    );
    state
        .apply(8, 0, &append(range(9, 10), vec![segment(2, 1, 0)]))
        .expect("goes on behind it");
}

#[test]
fn should_refuse_a_partition_that_is_known_or_without_a_source() {
    let mut state = begun();
    let partition = |source, partition| Delta::Partition {
        source,
        partition,
        start: 3,
    };
    refused(&state, &partition(0, 1), "partition-new");
    refused(&state, &partition(1, 0), "partition-new");
    state.apply(7, 0, &partition(0, 2)).expect("applies");
    assert_eq!(
        state.checkpoint(0, 2).map(|c| (c.start, c.next)),
        Some((3, 3))
    );
    assert_eq!(state.sources[&0].starts[&2], 3);
}

fn centroids(number: u64) -> CentroidsMeta {
    CentroidsMeta {
        version: id(number),
        bytes: 1 << 60,
        crc32c: 7,
        lists: 3,
        probes: 2,
        rows: 9,
    }
}

fn trained(replaces: Option<u64>, number: u64) -> Delta {
    Delta::Centroids {
        replaces: replaces.map(id),
        centroids: centroids(number),
    }
}

#[test]
fn should_refuse_centroids_that_do_not_replace_those_in_use_or_are_not_new() {
    let mut state = begun();
    refused(&state, &trained(Some(5), 6), "centroids-next");
    state.apply(7, 0, &trained(None, 5)).expect("the first");
    assert_eq!(state.centroids.current(), Some(&centroids(5)));
    refused(&state, &trained(None, 6), "centroids-next");
    refused(&state, &trained(Some(5), 5), "centroids-next");
    let mark = Delta::Mark(Mark {
        cutoff_ms: BEGIN_MS + 8,
        retain_from: 0,
    });
    state.apply(8, 0, &mark).expect("applies");
    refused(&state, &trained(Some(5), 7), "centroids-next");
    state.apply(9, 0, &trained(Some(5), 8)).expect("younger");
    assert_eq!(state.centroids.current, Some(id(8)));
}

#[test]
fn should_keep_centroids_until_nothing_uses_them_and_a_mark_has_passed_their_name() {
    let mut state = begun();
    let listed = |number, version| {
        let meta = segment(number, 1, 0);
        SegmentMeta {
            centroids: Some(id(version)),
            ..meta
        }
    };
    refused(
        &state,
        &append(range(5, 6), vec![listed(2, 4)]),
        "centroids-live",
    );
    state.apply(7, 0, &trained(None, 4)).expect("applies");
    state
        .apply(8, 0, &append(range(5, 6), vec![listed(2, 4)]))
        .expect("they are live");
    state.apply(9, 0, &trained(Some(4), 5)).expect("applies");
    state
        .apply(10, 0, &append(range(6, 7), vec![listed(3, 4)]))
        .expect("built before");
    let mark = |after| {
        Delta::Mark(Mark {
            cutoff_ms: BEGIN_MS + after,
            retain_from: 0,
        })
    };
    state.apply(11, 0, &mark(5)).expect("applies");
    let live =
        |state: &IncarnationState| -> Vec<Ulid> { state.centroids.live.keys().copied().collect() };
    assert_eq!(live(&state), [id(4), id(5)], "segments use them");
    let merged = SegmentMeta {
        hash: hash(2) + hash(3),
        rows: 2,
        ..listed(9, 5)
    };
    state
        .apply(
            12,
            0,
            &replace(&[2, 3], vec![merged], 0, EntryHash::default()),
        )
        .expect("applies");
    assert_eq!(live(&state), [id(4), id(5)], "until a mark");
    state.apply(13, 0, &mark(6)).expect("applies");
    assert_eq!(live(&state), [id(5)]);
    refused(
        &state,
        &append(range(7, 8), vec![listed(10, 4)]),
        "centroids-live",
    );
}

#[test]
fn should_keep_replaced_centroids_that_are_younger_than_the_mark() {
    let mut state = begun();
    state.apply(7, 0, &trained(None, 4)).expect("applies");
    state.apply(8, 0, &trained(Some(4), 5)).expect("applies");
    let mark = Delta::Mark(Mark {
        cutoff_ms: BEGIN_MS + 4,
        retain_from: 0,
    });
    state.apply(9, 0, &mark).expect("applies");
    assert_eq!(state.centroids.live.len(), 2, "a flush may be on its way");
}

#[test]
fn should_refuse_everything_after_a_retire() {
    let mut state = begun();
    state.apply(7, 0, &Delta::Retire {}).expect("applies");
    refused(&state, &Delta::Retire {}, "fenced-retired");
    refused(
        &state,
        &append(range(5, 6), vec![segment(2, 1, 0)]),
        "fenced-retired",
    );
    assert!(State::retired(&state));
}

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

fn accept(partition: u32, from: u64, to: u64) -> Delta {
    Delta::Accept {
        source: 0,
        partition,
        from,
        to,
    }
}

#[test]
fn should_count_an_accepted_loss_and_go_on_behind_it() {
    let mut state = begun();
    state.apply(2, 0, &accept(0, 5, 9)).expect("applies");
    let checkpoint = state.checkpoint(0, 0).expect("known");
    assert_eq!((checkpoint.next, checkpoint.ledger.lost), (9, 4));
    assert_eq!(
        checkpoint.ledger.total(),
        checkpoint.next - checkpoint.start
    );
    state
        .apply(3, 0, &append(range(9, 10), vec![segment(2, 1, 0)]))
        .expect("applies");
}

#[test]
fn should_refuse_a_loss_that_does_not_begin_at_the_stored_next() {
    let state = begun();
    for (from, to) in [(4, 9), (6, 9), (5, 4)] {
        refused(&state, &accept(0, from, to), "loss-current");
    }
    refused(&state, &accept(7, 0, 1), "loss-current");
}

#[test]
fn should_add_an_unknown_partition_once() {
    let add = |source, partition| Delta::Partition {
        source,
        partition,
        start: 3,
    };
    let mut state = begun();
    state.apply(2, 0, &add(0, 9)).expect("applies");
    let checkpoint = state.checkpoint(0, 9).expect("known");
    assert_eq!((checkpoint.start, checkpoint.next), (3, 3));
    assert_eq!(state.sources[&0].starts[&9], 3);
    refused(&state, &add(0, 9), "partition-new");
    refused(&state, &add(5, 0), "partition-new");
}

#[test]
fn should_rank_a_new_epoch_above_everything_before_it() {
    run(async {
        let site = Site::new(Metric::L2, 1).await;
        let writer = site.open("ingest").await;
        let before = writer.snapshot().state().sources[&0].clone();
        let source = crate::NewSource {
            kind: before.kind.clone(),
            cluster: "another".to_owned(),
            topic: before.topic.clone(),
            compacted: false,
            starts: BTreeMap::from([(0, 0)]),
        };
        writer.open_source(source).await.expect("opened");
        let snapshot = writer.snapshot();
        let state = snapshot.state();
        assert_eq!(
            (state.sources[&1].epoch, &*state.sources[&1].cluster),
            (1, "another")
        );
        let old = position(0, i64::MAX, 9);
        let new = vexlake_segment::Position {
            source: 1,
            log_time: 0,
            ..position(0, 0, 0)
        };
        assert!(state.order(&new) > state.order(&old));
        assert_eq!(state.checkpoint(1, 0).expect("fresh").next, 0);
    });
}

/// `begun`, with the delete of segment 1 dropped at log time 5, the horizon being 10.
fn forgotten() -> IncarnationState {
    let mut state = begun();
    let both = |range: Range| Delta::Append {
        ranges: vec![range],
        adds: Vec::new(),
        shadows: Shadows::default(),
    };
    let other = Range {
        partition: 1,
        ledger: Ledger::default(),
        ..range(0, 0)
    };
    state.apply(2, 0, &both(other)).expect("applies");
    state.apply(3, 0, &dropping(5, 1)).expect("applies");
    state
}

/// Replaces segment 1 by segment 2, which has `entries` fewer, a delete of `log_time` among them.
fn dropping(log_time: i64, entries: u64) -> Delta {
    let out = SegmentMeta {
        hash: EntryHash::default(),
        ..segment(2, 4, 1 - entries as u32)
    };
    let deletes = Some(DroppedDeletes {
        entries: 1,
        log_time,
    });
    match replace(&[1], vec![out], entries, hash(1)) {
        Delta::Replace {
            inputs,
            adds,
            shadows,
            dropped,
        } => Delta::Replace {
            inputs,
            adds,
            shadows,
            dropped: Dropped { deletes, ..dropped },
        },
        other => other,
    }
}

fn source_of(rank: u32, epoch: u32) -> Delta {
    Delta::Source {
        previous: Some(0),
        id: 1,
        source: Source {
            rank,
            epoch,
            ..sources(1).remove(&0).expect("one")
        },
    }
}

#[test]
fn should_refuse_to_drop_a_delete_that_a_record_still_needs() {
    let mut state = begun();
    assert_eq!(state.horizon(), None, "partition 1 was never read");
    refused(&state, &dropping(5, 1), "delete-needed");
    state
        .checkpoints
        .get_mut(&0)
        .expect("known")
        .get_mut(&1)
        .expect("known")
        .log_time = 7;
    assert_eq!(state.horizon(), Some(7));
    for log_time in [7, 9] {
        refused(&state, &dropping(log_time, 1), "delete-needed");
    }
    refused(&state, &dropping(5, 0), "delete-needed");
    state.apply(3, 0, &dropping(6, 1)).expect("applies");
    let (entries, log_time) = (1, 6);
    assert_eq!(
        state.dropped_deletes,
        Some(DroppedDeletes { entries, log_time })
    );
    assert_eq!(state.dropped_entries, 1);
    state.sources.get_mut(&0).expect("known").rank = 7;
    state.sources.insert(1, sources(1).remove(&0).expect("one"));
    assert_eq!(state.horizon(), None, "another rank is attached");
}

#[test]
fn should_refuse_a_source_below_deletes_that_were_dropped() {
    let mut state = forgotten();
    refused(&state, &source_of(50, 9), "source-below");
    state
        .apply(7, 0, &source_of(100, 1))
        .expect("a new epoch is above");
    let mut keeping = begun();
    keeping
        .apply(7, 0, &source_of(50, 0))
        .expect("nothing was dropped");
}

#[test]
fn should_shut_a_replaced_source_once_deletes_were_dropped() {
    let mut state = forgotten();
    let late = append(range(5, 6), vec![segment(3, 1, 0)]);
    state
        .clone()
        .apply(7, 0, &late)
        .expect("still the newest epoch");
    state.apply(7, 0, &source_of(100, 1)).expect("applies");
    refused(&state, &late, "source-shut");
    assert_eq!(state.horizon(), None, "the new source was never read");
    let checkpoints = state.checkpoints.get_mut(&1).expect("the new source");
    checkpoints.get_mut(&0).expect("its partition").log_time = 400;
    assert_eq!(state.horizon(), Some(400), "the old source counts no more");
    let mut keeping = begun();
    keeping.apply(7, 0, &source_of(100, 1)).expect("applies");
    keeping.apply(8, 0, &late).expect("no delete was dropped");
}
