//! A store that fails or lies: typed errors, and no answer from wrong bytes.

mod common;

use common::{Fixture, assert_holds, build, entries, schema};
use ulid::Ulid;
use vexlake_segment::{
    BlockCache, DATA_FILE, INDEX_FILE, ReadCounts, SegmentErrorKind, SegmentReader, rebuild_index,
    upload,
};
use vexlake_store::{Fault, Faults, Op, Rule, Store};

async fn open(fixture: &Fixture, store: Store) -> SegmentReader {
    let cache = BlockCache::new(1 << 20);
    SegmentReader::open(store, &fixture.meta, &fixture.schema, cache, None)
        .await
        .expect("opens")
}

#[tokio::test]
async fn should_refuse_wrong_ranges_and_flipped_bytes() {
    let fixture = Fixture::new(50, 0, 8).await;
    for fault in [Fault::WrongRange, Fault::Flip(5), Fault::Truncate(1)] {
        let faults = Faults::scripted([Rule::every(Op::Ranges, DATA_FILE, fault.clone())]);
        let segment = open(&fixture, fixture.store.clone().with_faults(faults.clone())).await;
        let kinds = [
            segment
                .block(0, &ReadCounts::default())
                .await
                .expect_err("wrong bytes")
                .kind(),
            segment.vector(30).await.expect_err("wrong bytes").kind(),
            segment
                .attrs(&[30], &ReadCounts::default())
                .await
                .expect_err("wrong bytes")
                .kind(),
            segment
                .read_rows(10, 20)
                .await
                .expect_err("wrong bytes")
                .kind(),
            rebuild_index(
                &fixture.store.clone().with_faults(faults.clone()),
                &fixture.meta,
                &fixture.schema,
                None,
            )
            .await
            .expect_err("wrong bytes")
            .kind(),
        ];
        // A body cut short may be refused by the store already, as something to try again.
        let is_typed = |kind: &SegmentErrorKind| match fault {
            Fault::Truncate(_) => matches!(
                kind,
                SegmentErrorKind::Corrupt | SegmentErrorKind::Unavailable
            ),
            _ => *kind == SegmentErrorKind::Corrupt,
        };
        assert!(kinds.iter().all(is_typed), "{fault:?}: {kinds:?}");
        faults.clear();
        assert_holds(&segment, &fixture.entries).await;
    }
}

#[tokio::test]
async fn should_serve_from_parquet_when_the_index_arrives_damaged() {
    let fixture = Fixture::new(50, 5, 8).await;
    for fault in [Fault::Flip(70), Fault::Truncate(1), Fault::WrongRange] {
        let faults = Faults::scripted([Rule::every(Op::Ranges, INDEX_FILE, fault)]);
        let segment = open(&fixture, fixture.store.clone().with_faults(faults)).await;
        assert!(segment.is_rebuilt());
        assert_holds(&segment, &fixture.entries).await;
    }
}

#[tokio::test]
async fn should_not_rebuild_when_the_store_only_does_not_answer() {
    let fixture = Fixture::new(50, 5, 8).await;
    let faults = Faults::scripted([Rule::every(Op::Ranges, INDEX_FILE, Fault::FailBefore)]);
    let store = fixture.store.clone().with_faults(faults);
    let cache = BlockCache::new(1 << 20);
    let opened = SegmentReader::open(store, &fixture.meta, &fixture.schema, cache, None).await;
    assert_eq!(
        opened.expect_err("no answer").kind(),
        SegmentErrorKind::Unavailable
    );
}

#[tokio::test]
async fn should_finish_an_upload_that_is_repeated_after_a_lost_reply() {
    let folder = tempfile::tempdir().expect("a folder");
    let built = build(
        folder.path(),
        Ulid::from(3u128),
        &schema(4),
        &entries(30, 3, 4),
    );
    let plain = Store::directory(folder.path().join("lake")).expect("a store");
    for (n, fault) in [Fault::FailBefore, Fault::FailAfter, Fault::Refuse]
        .into_iter()
        .enumerate()
    {
        let store = plain.scoped(&format!("seg/{n}/"));
        let faults = Faults::scripted([Rule::every(Op::Put, "", fault)]);
        let failing = upload(&store.clone().with_faults(faults), &built).await;
        assert!(failing.is_err());
        upload(&store, &built).await.expect("uploads");
        let cache = BlockCache::new(1 << 20);
        let segment = SegmentReader::open(store, &built.meta, &schema(4), cache, None)
            .await
            .expect("opens");
        assert_holds(&segment, &entries(30, 3, 4)).await;
    }
}
