//! Rules of sources, epochs and partitions, and of accepted losses.

use super::*;

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

pub(super) fn accept(partition: u32, from: u64, to: u64) -> Delta {
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
    assert_eq!(
        (checkpoint.next, checkpoint.ledger.lost, checkpoint.log_time),
        (9, 4, 10)
    );
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
    for unknown in [7, 9] {
        refused(&state, &accept(unknown, 0, 1), "loss-current");
    }
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
    for known in [1, 9] {
        refused(&state, &add(0, known), "partition-new");
    }
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
