//! Rules of deletes that were dropped: which may be, and what they bind.

use super::*;

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
