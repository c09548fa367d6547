//! Several epochs of one topic, and of one name on several logs: what a replay begins
//! with, and what may become live.

use super::*;
use crate::testing::deliver_as;

/// The topic was recreated: the live incarnation goes on with its next epoch, and has
/// consumed the first `count` records of each partition of it.
async fn recreated(live: &Incarnation, log: &Log, count: u64) {
    let source = source(&[(0, 0), (1, 0)]);
    live.open_source(source).await.expect("opened");
    for partition in 0..2 {
        let delivered = deliver_as(live, log, 1, partition, 0..count).await;
        delivered.expect("appended");
    }
    live.flush().await.expect("flushed");
}

/// What a replay consumed of its only source.
async fn consume(replay: &Incarnation, log: &Log) {
    for partition in 0..2 {
        catch_up(replay, log, partition).await;
    }
    replay.flush().await.expect("flushed");
}

#[test]
fn should_not_roll_back_to_what_lacks_a_newer_epoch_of_the_same_topic() {
    run(async {
        let (_site, lake, id, log) = begun().await;
        let live = feed(&lake, id, &log).await;
        let other = lake
            .replay_start(0, "docs", source(&[]), &[])
            .await
            .expect("started");
        consume(&lake.incarnation(other).await.expect("opened"), &log).await;
        recreated(&live, &log, 2).await;

        let refused = lake.promote(0, "docs", None, &[]).await.expect_err("lacks");

        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("epoch 1"), "{refused}");
        lake.promote(0, "docs", None, &[0])
            .await
            .expect_err("another epoch was given up");
        let mapping = lake.promote(0, "docs", None, &[1]).await;
        assert_eq!(mapping.expect("a person gave it up").live, other);
    });
}

#[test]
fn should_begin_a_replay_at_the_floor_of_the_epoch_that_it_reads() {
    run(async {
        let (_site, lake, _, log) = begun().await;
        lake.drop_collection(0, "docs").await.expect("dropped");
        let id = lake
            .create(0, "docs", schema(L2), source(&[(0, 3), (1, 3)]))
            .await
            .expect("created");
        // The first epoch delivered nothing, so nothing of it can be missing.
        let live = lake.incarnation(id).await.expect("opened");
        recreated(&live, &log, 2).await;

        let replay = lake
            .replay_start(0, "docs", source(&[(0, 0), (1, 0)]), &[])
            .await
            .expect("started");

        let replay = lake.incarnation(replay).await.expect("opened");
        assert_eq!((applied(&replay, 0), applied(&replay, 1)), (0, 0));
        assert_eq!(replay.snapshot().state().sources[&0].epoch, 1);
        let empty = lake.promote(0, "docs", None, &[]).await;
        assert_eq!(empty.expect_err("empty").kind(), ErrorKind::Invalid);
        consume(&replay, &log).await;
        lake.promote(0, "docs", None, &[]).await.expect("promoted");
    });
}

#[test]
fn should_not_replay_one_epoch_in_place_of_several() {
    run(async {
        for kind in ["local", "kafka"] {
            let (_site, lake, id, log) = begun().await;
            let live = feed(&lake, id, &log).await;
            let newest = || NewSource {
                kind: kind.to_owned(),
                ..source(&[(0, 0), (1, 0)])
            };
            live.open_source(newest()).await.expect("opened");
            deliver_as(&live, &log, 1, 0, 0..1).await.expect("appended");
            live.flush().await.expect("flushed");

            let refused = lake.replay_start(0, "docs", newest(), &[]).await;

            let refused = refused.expect_err("epoch 0 would be missing");
            assert_eq!(refused.kind(), ErrorKind::Invalid);
            assert!(refused.to_string().contains("epoch 0"), "{refused}");
            let replay = lake.replay_start(0, "docs", newest(), &[0]).await;
            let replay = replay.expect("a person gave it up");
            consume(&lake.incarnation(replay).await.expect("opened"), &log).await;
            lake.promote(0, "docs", None, &[])
                .await
                .expect_err("epoch 0 is still missing");
            let mapping = lake.promote(0, "docs", None, &[0]).await;
            assert_eq!(mapping.expect("given up").live, replay);
        }
    });
}

#[test]
fn should_not_replay_a_log_that_was_never_read() {
    run(async {
        let (_site, lake, _, _) = begun().await;
        for other in [
            NewSource {
                topic: "u".to_owned(),
                ..source(&[(0, 0)])
            },
            NewSource {
                cluster: "d".to_owned(),
                ..source(&[(0, 0)])
            },
            NewSource {
                kind: "kafka".to_owned(),
                ..source(&[(0, 0)])
            },
        ] {
            let refused = lake.replay_start(0, "docs", other, &[]).await;
            assert_eq!(refused.expect_err("unknown").kind(), ErrorKind::Invalid);
        }
    });
}
