//! Rules of centroids: what they replace, which segments may name them, when they go.

use super::*;

fn centroids(number: u64) -> CentroidsMeta {
    CentroidsMeta {
        version: id(number),
        bytes: 1 << 60,
        crc32c: 7,
        lists: 3,
        probes: 2,
        rows: 9,
        trained: None,
    }
}

pub(super) fn trained(replaces: Option<u64>, number: u64) -> Delta {
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
fn should_refuse_a_split_of_another_training_than_that_in_use() {
    let split = |replaces: u64, number: u64, training: u64| Delta::Centroids {
        replaces: Some(id(replaces)),
        centroids: CentroidsMeta {
            trained: Some(Trained {
                version: id(training),
                rows: 9,
            }),
            ..centroids(number)
        },
    };
    let mut state = begun();
    state.apply(7, 0, &trained(None, 5)).expect("the first");
    refused(&state, &split(5, 6, 4), "centroids-next");
    state
        .apply(8, 0, &split(5, 6, 5))
        .expect("of the one in use");
    state
        .apply(9, 0, &split(6, 7, 5))
        .expect("a split of a split");
    refused(&state, &split(7, 8, 6), "centroids-next");
}
