//! What a view shows: coverage by snapshots, rivals in other tables, redelivery. What is
//! refused is in `refused.rs`, what happens while a batch is judged in `meanwhile.rs`.

mod meanwhile;
mod refused;

use std::sync::Arc;

use vexlake_distance::Metric;

use crate::append::Appended;
use crate::testing::*;
use crate::{ErrorKind, Incarnation};

const L2: Metric = Metric::L2;

async fn begun(partitions: u32) -> (Site, Log, Arc<Incarnation>, Arc<Incarnation>) {
    let site = Site::new(L2, partitions).await;
    let (writer, reader) = (site.open("ingest").await, site.open("query").await);
    (site, Log::default(), writer, reader)
}

fn card(of: &Incarnation) -> u64 {
    of.feed.read(|view| view.card())
}

fn tables(of: &Incarnation) -> usize {
    of.feed.read(|view| view.memtables().count())
}

#[test]
fn should_drop_a_sealed_table_once_a_snapshot_covers_all_of_it() {
    run(async {
        let (_site, mut log, writer, reader) = begun(2).await;
        log.upsert(0, "a", 1, 1);
        log.upsert(1, "b", 1, 2);
        for partition in 0..2 {
            catch_up(&reader, &log, partition).await;
        }
        reader.feed.seal(0).await;
        assert_eq!((tables(&reader), card(&reader)), (2, 2));
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        assert_eq!(
            (tables(&reader), card(&reader)),
            (2, 2),
            "partition 1 is not covered"
        );
        check(&reader, &log, L2).await;
        catch_up(&writer, &log, 1).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        assert_eq!((tables(&reader), card(&reader)), (1, 2));
        assert_eq!(reader.feed.read(|view| view.bytes()), 0);
        check(&reader, &log, L2).await;
    });
}

#[test]
fn should_not_seal_an_empty_or_too_small_table() {
    run(async {
        let (_site, mut log, _writer, reader) = begun(1).await;
        reader.feed.seal(0).await;
        assert_eq!(tables(&reader), 1);
        log.upsert(0, "a", 1, 1);
        catch_up(&reader, &log, 0).await;
        reader.feed.seal(1 << 20).await;
        assert_eq!(tables(&reader), 1);
        reader.feed.seal(1).await;
        assert_eq!(tables(&reader), 2);
    });
}

#[test]
fn should_hide_a_record_older_than_the_snapshots_newest_of_its_key() {
    run(async {
        let (site, mut log, writer, reader) = begun(2).await;
        log.upsert(0, "a", 100, 1);
        log.put(0, "b", 100, Change::Delete);
        log.upsert(1, "a", 50, 2);
        log.upsert(1, "b", 50, 3);
        catch_up(&writer, &log, 0).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        let acks = deliver(&reader, &log, 1, 0..2)
            .await
            .expect("appended")
            .acks;
        assert_eq!(
            acks.iter().map(|ack| ack.existed).collect::<Vec<_>>(),
            [true, false]
        );
        check(&reader, &log, L2).await;
        assert_eq!(card(&reader), 1);
        // The same with the late records flushed: born shadowed.
        catch_up(&writer, &log, 1).await;
        writer.flush().await.expect("flushed");
        reader.follow().await.expect("followed");
        check(&reader, &log, L2).await;
        check(&*site.open("check").await, &log, L2).await;
        verify(&writer, &log).await;
    });
}

#[test]
fn should_let_the_newest_position_win_between_tables() {
    run(async {
        let (_site, mut log, _writer, reader) = begun(2).await;
        log.upsert(0, "a", 100, 1);
        log.put(0, "b", 100, Change::Delete);
        log.upsert(1, "a", 50, 2);
        log.upsert(1, "b", 50, 3);
        log.put(1, "a", 150, Change::Delete);
        log.upsert(1, "b", 150, 4);
        catch_up(&reader, &log, 0).await;
        for end in 1..=4 {
            reader.feed.seal(0).await;
            deliver(&reader, &log, 1, end - 1..end)
                .await
                .expect("appended");
            check(&reader, &log, L2).await;
        }
        assert_eq!(card(&reader), 1);
    });
}

#[test]
fn should_skip_what_was_delivered_before_and_refuse_a_gap() {
    run(async {
        let (_site, mut log, writer, _reader) = begun(1).await;
        for number in 0..6 {
            log.upsert(0, &format!("k{number}"), 1, number);
        }
        deliver(&writer, &log, 0, 0..3).await.expect("appended");
        let again = deliver(&writer, &log, 0, 0..3).await.expect("appended");
        assert_eq!((again.next, again.accepted, again.not_records), (3, 0, 0));
        let overlap = deliver(&writer, &log, 0, 1..5).await.expect("appended");
        assert_eq!((overlap.next, overlap.accepted), (5, 2));
        let gap = deliver(&writer, &log, 0, 6..6).await.expect_err("a gap");
        assert_eq!(gap.kind(), ErrorKind::Conflict, "{gap}");
        assert_eq!(applied(&writer, 0), 5);
        check(&writer, &log, L2).await;
    });
}
