//! One test a rule: records, segments, shadows, marks, pins and the retire. The other rules
//! are in files of their own: `sources.rs`, `centroids.rs` and `deletes.rs`; what is stored
//! of states and deltas is in `stored.rs`.

mod centroids;
mod deletes;
mod sources;
mod stored;

use std::collections::BTreeMap;

use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_manifest::State;
use vexlake_segment::{EntryHash, SegmentMeta};

use super::*;
use crate::shadow::{Bits, Shadows};
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
