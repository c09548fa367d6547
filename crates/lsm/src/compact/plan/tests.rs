//! The policy: one fact a test, and what holds of any plan.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_segment::{EntryHash, FileMeta, SegmentMeta};

use super::*;
use crate::shadow::ShadowRefs;
use crate::testing::{BEGIN_MS, schema, sources};

const MIB: u64 = 1 << 20;

fn id(number: usize) -> Ulid {
    Ulid::from_parts(BEGIN_MS + number as u64, 1)
}

/// A state of segments by (bytes, rows).
fn state(segments: &[(u64, u32)]) -> IncarnationState {
    let mut state = IncarnationState::new(id(0), "0/t".to_owned(), schema(Metric::L2), sources(1));
    for (number, (bytes, rows)) in segments.iter().enumerate() {
        let meta = SegmentMeta {
            id: id(number),
            rows: *rows,
            deletes: 0,
            files: vec![FileMeta {
                name: "data.parquet".to_owned(),
                bytes: *bytes,
                crc32c: 0,
            }],
            index_head_bytes: 0,
            log_time_min: 0,
            log_time_max: 0,
            hash: EntryHash::default(),
            centroids: None,
            created_ms: 0,
        };
        state.segments.insert(
            id(number),
            SegmentState {
                meta,
                shadow: ShadowRefs::default(),
            },
        );
    }
    state
}

fn inputs(
    segments: &[(u64, u32)],
    policy: &Policy,
    shadowed: &dyn Fn(&Ulid) -> u64,
) -> Vec<Vec<usize>> {
    let state = state(segments);
    let numbers: BTreeMap<Ulid, usize> = (0..segments.len())
        .map(|number| (id(number), number))
        .collect();
    let specs = plan_compaction(&state, 3, policy, shadowed);
    specs
        .iter()
        .map(|spec| spec.inputs.iter().map(|id| numbers[id]).collect())
        .collect()
}

fn plan(segments: &[(u64, u32)]) -> Vec<Vec<usize>> {
    inputs(segments, &Policy::default(), &|_| 0)
}

#[test]
fn should_leave_fewer_segments_than_the_fan_in_alone() {
    assert!(plan(&[(8 * MIB, 10); 3]).is_empty());
    assert!(plan(&[]).is_empty());
}

#[test]
fn should_merge_a_full_tier_oldest_first() {
    assert_eq!(plan(&[(8 * MIB, 10); 4]), [[0, 1, 2, 3]]);
}

#[test]
fn should_not_merge_segments_of_different_tiers() {
    assert!(
        plan(&[
            (MIB, 1),
            (MIB, 1),
            (100 * MIB, 1),
            (100 * MIB, 1),
            (100 * MIB, 1)
        ])
        .is_empty()
    );
}

#[test]
fn should_take_tiny_segments_for_one_tier() {
    assert_eq!(
        plan(&[(10, 1), (1000, 1), (100_000, 1), (MIB, 1)]),
        [[0, 1, 2, 3]]
    );
}

#[test]
fn should_rewrite_a_mostly_shadowed_segment_alone() {
    let shadowed = |segment: &Ulid| if *segment == id(1) { 5 } else { 4 };
    assert_eq!(
        inputs(&[(MIB, 10); 2], &Policy::default(), &shadowed),
        [[1]]
    );
}

#[test]
fn should_not_rewrite_a_segment_without_shadows_whatever_the_ratio() {
    let policy = Policy {
        shadow_ratio: 0.0,
        ..Policy::default()
    };
    assert!(inputs(&[(MIB, 10), (MIB, 0)], &policy, &|_| 0).is_empty());
}

#[test]
fn should_split_a_tier_at_the_bounds_of_one_merge() {
    let policy = Policy {
        inputs_max: 3,
        fan_in: 2,
        ..Policy::default()
    };
    assert_eq!(
        inputs(&[(MIB, 1); 5], &policy, &|_| 0),
        [vec![0, 1, 2], vec![3, 4]]
    );
    let policy = Policy {
        bytes_max: 2 * MIB,
        ..Policy::default()
    };
    assert_eq!(inputs(&[(MIB, 1); 5], &policy, &|_| 0), [[0, 1]]);
    let policy = Policy {
        entries_max: 20,
        ..Policy::default()
    };
    assert_eq!(inputs(&[(MIB, 10); 4], &policy, &|_| 0), [[0, 1]]);
}

#[test]
fn should_pass_over_a_segment_that_alone_fills_a_merge() {
    let policy = Policy {
        bytes_max: 3 * MIB,
        fan_in: 2,
        ..Policy::default()
    };
    assert_eq!(
        inputs(&[(3 * MIB, 1), (MIB, 1), (MIB, 1)], &policy, &|_| 0),
        [[1, 2]]
    );
}

#[test]
fn should_end_and_merge_nothing_alone_under_a_senseless_policy() {
    for fan_in in [0, 1] {
        for inputs_max in [0, 1] {
            let policy = Policy {
                fan_in,
                inputs_max,
                ..Policy::default()
            };
            assert!(inputs(&[(MIB, 1); 5], &policy, &|_| 0).is_empty());
        }
        let policy = Policy {
            fan_in,
            ..Policy::default()
        };
        assert_eq!(inputs(&[(MIB, 1); 2], &policy, &|_| 0), [[0, 1]]);
    }
}

#[test]
fn should_name_the_same_inputs_the_same_and_predict_what_is_written() {
    let state = state(&[(MIB, 10); 4]);
    let policy = Policy {
        fan_in: 4,
        shadow_ratio: 0.9,
        ..Policy::default()
    };
    let specs = plan_compaction(&state, 3, &policy, &|_| 5);
    let again = plan_compaction(&state, 4, &policy, &|_| 5);
    let [spec] = specs.as_slice() else {
        panic!("{specs:?}")
    };
    assert_eq!(spec.id, again[0].id);
    assert_eq!(
        (
            spec.bytes_in,
            spec.predicted_bytes,
            spec.entries_in,
            spec.version
        ),
        (4 * MIB, 2 * MIB, 40, 3)
    );
    let text = serde_json::to_string(spec).expect("serialises");
    assert_eq!(&serde_json::from_str::<Spec>(&text).expect("parses"), spec);
}

/// Segments by (log_time_min, log_time_max, rows, deletes); the partition stands at 1,000.
fn aged(segments: &[(i64, i64, u32, u32)], policy: &Policy) -> Vec<Spec> {
    let mut state = state(&vec![(MIB, 0); segments.len()]);
    for (segment, (min, max, rows, deletes)) in state.segments.values_mut().zip(segments) {
        (segment.meta.log_time_min, segment.meta.log_time_max) = (*min, *max);
        (segment.meta.rows, segment.meta.deletes) = (*rows, *deletes);
    }
    let checkpoints = state.checkpoints.get_mut(&0).expect("a source");
    checkpoints.get_mut(&0).expect("a partition").log_time = 1_000;
    plan_compaction(&state, 3, policy, &|_| 0)
}

fn keeping(delete_retention_ms: u64) -> Policy {
    Policy {
        delete_retention_ms,
        fan_in: 9,
        ..Policy::default()
    }
}

#[test]
fn should_merge_everything_old_for_the_sake_of_its_old_deletes() {
    let segments = [
        (0, 90, 70, 0),
        (10, 95, 0, 10),
        (50, 500, 10, 5),
        (200, 900, 5, 50),
    ];
    let specs = aged(&segments, &keeping(900));
    assert_eq!(specs.len(), 1, "{specs:?}");
    assert_eq!(
        specs[0].inputs,
        [id(0), id(1), id(2)],
        "all that hold anything below 100"
    );
    assert_eq!(specs[0].drop_deletes_before, Some(100));
    assert!(
        specs[0].reason.contains("delete age: 10 deletes"),
        "{}",
        specs[0].reason
    );
}

#[test]
fn should_not_merge_for_deletes_that_are_few_young_or_too_much_work() {
    let few = [(0, 90, 91, 0), (10, 95, 0, 10)];
    assert!(aged(&few, &keeping(900)).is_empty());
    let many = [(0, 90, 80, 0), (10, 95, 0, 10)];
    assert_eq!(aged(&many, &keeping(900)).len(), 1);
    assert!(aged(&many, &keeping(905)).is_empty(), "95 is not below 95");
    assert!(aged(&many, &keeping(u64::MAX)).is_empty());
    for tight in [
        Policy {
            inputs_max: 1,
            ..keeping(900)
        },
        Policy {
            bytes_max: MIB,
            ..keeping(900)
        },
        Policy {
            entries_max: 89,
            ..keeping(900)
        },
    ] {
        assert!(aged(&many, &tight).is_empty(), "{tight:?}");
    }
}

#[test]
fn should_leave_old_deletes_alone_where_age_does_not_bound_their_rows() {
    let mut state = state(&[(MIB, 0)]);
    state
        .segments
        .values_mut()
        .for_each(|s| s.meta.deletes = 10);
    let plan = |state: &IncarnationState| plan_compaction(state, 3, &keeping(0), &|_| 0);
    assert!(plan(&state).is_empty(), "the partition was never read");
    let read = |state: &mut IncarnationState, source: u32| {
        let checkpoints = state.checkpoints.get_mut(&source).expect("a source");
        checkpoints.get_mut(&0).expect("a partition").log_time = 1_000;
    };
    read(&mut state, 0);
    assert_eq!(plan(&state).len(), 1);
    let newer = crate::Source {
        epoch: 1,
        ..state.sources[&0].clone()
    };
    state.sources.insert(1, newer);
    state.checkpoints.insert(1, state.checkpoints[&0].clone());
    read(&mut state, 1);
    assert!(plan(&state).is_empty(), "a second source");
}

proptest! {
    #[test]
    fn should_plan_disjoint_merges_of_live_segments_within_bounds(
        segments in prop::collection::vec((0u64..64 * MIB, 0u32..100, 0u64..100), 0..40),
        (fan_in, inputs_max) in (0usize..6, 0usize..8),
        (bytes_max, entries_max) in (0u64..128 * MIB, 0u64..500),
        shadow_ratio in 0.0..1.2f64,
    ) {
        let policy = Policy { fan_in, inputs_max, bytes_max, entries_max, shadow_ratio, ..Policy::default() };
        let sizes: Vec<(u64, u32)> = segments.iter().map(|(bytes, rows, _)| (*bytes, *rows)).collect();
        let state = state(&sizes);
        let shadowed: BTreeMap<Ulid, u64> =
            segments.iter().enumerate().map(|(n, (_, rows, s))| (id(n), *s.min(&u64::from(*rows)))).collect();
        let specs = plan_compaction(&state, 1, &policy, &|id| shadowed[id]);
        let mut seen = BTreeSet::new();
        for spec in specs {
            prop_assert!(!spec.inputs.is_empty());
            for input in &spec.inputs {
                prop_assert!(state.segments.contains_key(input));
                prop_assert!(seen.insert(*input), "{input} is in two merges");
            }
            if spec.inputs.len() > 1 {
                prop_assert!(spec.inputs.len() <= inputs_max);
                prop_assert!(spec.bytes_in <= bytes_max && spec.entries_in <= entries_max);
            } else {
                prop_assert!(shadowed[&spec.inputs[0]] > 0, "a merge of one drops something");
            }
        }
    }
}

#[test]
fn should_not_rewrite_what_does_not_fit_the_memory() {
    let policy = Policy {
        entries_max: 10,
        ..Policy::default()
    };
    let all = |_: &Ulid| 10;
    assert_eq!(inputs(&[(8 * MIB, 10)], &policy, &all), [[0]]);
    assert!(inputs(&[(8 * MIB, 11)], &policy, &all).is_empty());
}

#[test]
fn should_name_specs_of_different_inputs_differently() {
    let four = state(&[(8 * MIB, 10); 4]);
    let mut others = state(&[(8 * MIB, 10); 5]);
    others.segments.remove(&id(2));
    let names = |state| {
        let specs = plan_compaction(state, 3, &Policy::default(), &|_| 0);
        specs.into_iter().map(|spec| spec.id).collect::<Vec<_>>()
    };
    assert_eq!(names(&four), names(&four));
    assert_ne!(names(&four), names(&others));
}

fn small() -> Policy {
    Policy {
        train_rows_min: 100,
        rows_per_list: 20,
        ..Policy::default()
    }
}

/// A state whose current centroids were trained on `rows` rows; segments are without lists.
fn trained(segments: &[(u64, u32)], rows: u64) -> IncarnationState {
    let mut state = state(segments);
    let version = id(900);
    let meta = crate::CentroidsMeta {
        version,
        bytes: 1,
        crc32c: 0,
        lists: 5,
        probes: 2,
        rows,
        trained: None,
    };
    state.centroids.live.insert(version, meta);
    state.centroids.current = Some(version);
    state
}

fn due(state: &IncarnationState, policy: &Policy, shadowed: u64) -> Vec<(String, usize, u32)> {
    let specs = plan_compaction(state, 3, policy, &|_| shadowed);
    let due = specs.into_iter();
    due.map(|spec| (spec.kind, spec.inputs.len(), spec.lists))
        .collect()
}

fn training(inputs: usize, lists: u32) -> (String, usize, u32) {
    ("train".to_owned(), inputs, lists)
}

fn split(inputs: usize, lists: u32) -> (String, usize, u32) {
    ("split".to_owned(), inputs, lists)
}

fn rewrite() -> (String, usize, u32) {
    ("merge".to_owned(), 1, 0)
}

#[test]
fn should_train_once_there_are_rows_enough_and_not_before() {
    assert!(due(&state(&[(MIB, 50), (2 * MIB, 49)]), &small(), 0).is_empty());
    let with_deletes_only = state(&[(MIB, 60), (2 * MIB, 60), (3 * MIB, 0)]);
    assert_eq!(due(&with_deletes_only, &small(), 0), [training(2, 6)]);
    let enough = state(&[(MIB, 60), (2 * MIB, 60)]);
    assert!(due(&enough, &small(), 11).is_empty(), "98 live rows");
    let mut manhattan = enough;
    manhattan.schema.metric = "l1".to_owned();
    assert!(due(&manhattan, &small(), 0).is_empty());
    let default = state(&[(MIB, TRAIN_ROWS_MIN as u32)]);
    assert_eq!(due(&default, &Policy::default(), 0), [training(1, 100)]);
}

#[test]
fn should_train_again_after_growth_naming_what_is_replaced() {
    let grown = trained(&[(MIB, 1600)], 100);
    assert_eq!(due(&grown, &small(), 0), [training(1, 80), rewrite()]);
    let specs = plan_compaction(&grown, 3, &small(), &|_| 0);
    assert_eq!(specs[0].replaces, Some(id(900)));
    let reason = &specs[0].reason;
    assert!(reason.contains("16.0 times"), "{reason}");
}

#[test]
fn should_split_lists_between_trainings_and_rewrite_nothing_for_it() {
    let listed = |rows: u32, last: u64| {
        let mut state = trained(&[(MIB, rows)], last);
        let segment = state.segments.get_mut(&id(0)).expect("a segment");
        segment.meta.centroids = Some(id(900));
        state
    };
    assert!(due(&listed(199, 100), &small(), 0).is_empty());
    assert_eq!(due(&listed(200, 100), &small(), 0), [split(1, 10)]);
    assert_eq!(due(&listed(1599, 100), &small(), 0), [split(1, 79)]);
    // Another split from the same training is in use: the segment goes back to it.
    let mut state = listed(300, 100);
    let later = crate::CentroidsMeta {
        version: id(901),
        rows: 200,
        trained: Some(state.centroids.live[&id(900)].trained()),
        ..state.centroids.live[&id(900)].clone()
    };
    state.centroids.live.insert(id(901), later);
    state.centroids.current = Some(id(901));
    assert!(due(&state, &small(), 0).is_empty());
    state.segments.get_mut(&id(0)).expect("a segment").meta.rows = 1600;
    assert_eq!(
        due(&state, &small(), 0),
        [training(1, 80)],
        "of the training"
    );
    // What goes back to no training in use is rewritten.
    let other = state.centroids.live.get_mut(&id(901)).expect("live");
    other.trained = None;
    assert!(due(&state, &small(), 0).contains(&rewrite()));
}

#[test]
fn should_rewrite_segments_without_the_lists_in_use_that_no_other_merge_takes() {
    let mut state = trained(&[(MIB, 10), (100 * MIB, 10), (100 * MIB, 0)], 1000);
    assert_eq!(due(&state, &small(), 0), [rewrite(), rewrite()]);
    let listed = state.segments.get_mut(&id(0)).expect("a segment");
    listed.meta.centroids = Some(id(900));
    let specs = plan_compaction(&state, 3, &small(), &|_| 0);
    assert_eq!(specs.len(), 1);
    assert_eq!(
        (specs[0].inputs[0], specs[0].reason.as_str()),
        (id(1), "lists: it has none")
    );
    let older = state.segments.get_mut(&id(1)).expect("a segment");
    older.meta.centroids = Some(id(800));
    let specs = plan_compaction(&state, 3, &small(), &|_| 0);
    assert!(specs[0].reason.contains("older"), "{}", specs[0].reason);
    // A full tier gets its lists by being merged.
    let tier = trained(&[(MIB, 10); 4], 1000);
    let merged = ("merge".to_owned(), 4, 0);
    assert_eq!(due(&tier, &small(), 0), [merged]);
    let tight = Policy {
        entries_max: 10,
        ..small()
    };
    let large = trained(&[(MIB, 10)], 1000);
    assert!(
        due(&large, &tight, 0).is_empty(),
        "codes do not fit the memory"
    );
}
