//! What goes into a segment comes out of it, in every shape that is allowed.

mod common;

use common::{Entry, Fixture, assert_holds, build, entries, record, schema};
use proptest::prelude::*;
use ulid::Ulid;
use vexlake_segment::{
    BlockCache, DELETES_FILE, EntryHash, INDEX_FILE, ReadCounts, SegmentErrorKind, SegmentMeta,
    SegmentReader, SegmentWriter, rebuild_index,
};

#[tokio::test]
async fn should_answer_everything_that_was_written() {
    for (rows, deletes, dim) in [
        (1, 0, 3),
        (10, 4, 16),
        (3000, 50, 5),
        (20_000, 3, 2),
        (1500, 0, 768),
    ] {
        let fixture = Fixture::new(rows, deletes, dim).await;
        let segment = fixture.open().await;
        assert!(!segment.is_rebuilt());
        assert_holds(&segment, &fixture.entries).await;
    }
}

#[tokio::test]
async fn should_hold_no_records_no_deletes_or_neither() {
    for (rows, deletes) in [(0, 0), (0, 7), (7, 0)] {
        let fixture = Fixture::new(rows, deletes, 4).await;
        assert_eq!(fixture.meta.file(DELETES_FILE).is_some(), deletes > 0);
        let segment = fixture.open().await;
        assert_holds(&segment, &fixture.entries).await;
        assert!(segment.read_rows(0, 0).await.expect("nothing").is_empty());
        assert_eq!(fixture.meta.log_time_min == 0, rows + deletes == 0);
    }
}

#[tokio::test]
async fn should_hold_the_smallest_and_the_largest_dimension() {
    for (rows, dim) in [(9000, 1), (70, 65_536)] {
        let fixture = Fixture::new(rows, 2, dim).await;
        let segment = fixture.open().await;
        assert_holds(&segment, &fixture.entries).await;
        let rebuilt = rebuild_index(&fixture.store, &fixture.meta, &fixture.schema, None)
            .await
            .expect("rebuilds");
        assert_eq!(
            rebuilt,
            fixture.store.get(INDEX_FILE).await.expect("the index")
        );
    }
    for dim in [0, 65_537] {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = SegmentWriter::create(folder.path(), &schema(dim)).err();
        assert_eq!(refused.expect("refuses").kind(), SegmentErrorKind::Invalid);
    }
}

#[tokio::test]
async fn should_hold_the_longest_ids_and_attributes() {
    let mut entries = entries(300, 0, 8);
    for (n, entry) in entries.iter_mut().enumerate() {
        entry.id = format!("{n:0>1024}");
        entry.attrs = Some(format!("{{\"a\":\"{}\"}}", "y".repeat(65_528)));
    }
    let fixture = Fixture::of(entries, schema(8)).await;
    assert_holds(&fixture.open().await, &fixture.entries).await;
}

#[tokio::test]
async fn should_rebuild_the_same_bytes_from_parquet_alone() {
    for (rows, deletes, dim) in [(0, 0, 4), (5, 0, 4), (0, 5, 4), (9000, 17, 12)] {
        let fixture = Fixture::new(rows, deletes, dim).await;
        let rebuilt = rebuild_index(&fixture.store, &fixture.meta, &fixture.schema, None)
            .await
            .expect("rebuilds");
        assert_eq!(
            rebuilt,
            fixture.store.get(INDEX_FILE).await.expect("the index")
        );

        fixture.store.delete(INDEX_FILE).await.expect("deletes");
        let segment = fixture.open().await;
        assert!(segment.is_rebuilt());
        assert_holds(&segment, &fixture.entries).await;
    }
}

#[tokio::test]
async fn should_tell_the_files_lengths_checksums_and_hash_in_the_meta() {
    let fixture = Fixture::new(100, 10, 4).await;
    for file in &fixture.meta.files {
        let bytes = fixture.store.get(&file.name).await.expect("the file");
        assert_eq!(
            (file.bytes, file.crc32c),
            (bytes.len() as u64, crc32c::crc32c(&bytes))
        );
    }
    let mut hash = EntryHash::default();
    for entry in fixture.entries.iter().rev() {
        hash += match entry.vector {
            Some(_) => EntryHash::of_row(&entry.id, &entry.position),
            None => EntryHash::of_delete(&entry.id, &entry.position),
        };
    }
    assert_eq!(fixture.meta.hash, hash);
    assert_eq!(fixture.meta.created_ms, 1_700_000_000_000);
    let log_times = || fixture.entries.iter().map(|entry| entry.position.log_time);
    assert_eq!(Some(fixture.meta.log_time_min), log_times().min());
    assert_eq!(Some(fixture.meta.log_time_max), log_times().max());

    let text = serde_json::to_string(&fixture.meta).expect("serializes");
    assert!(text.contains("\"created_ms\":\"1700000000000\""), "{text}");
    assert_eq!(
        serde_json::from_str::<SegmentMeta>(&text).expect("parses"),
        fixture.meta
    );
}

#[test]
fn should_refuse_what_a_segment_cannot_hold_and_stay_usable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = SegmentWriter::create(folder.path(), &schema(2)).expect("creates");
    let good = record(1, 2);
    let bad: [fn(&mut Entry); 10] = [
        |entry| entry.id.clear(),
        |entry| entry.id = "x".repeat(1025),
        |entry| entry.vector = Some(vec![1.0]),
        |entry| entry.vector = Some(vec![1.0, f32::NAN]),
        |entry| entry.vector = Some(vec![f32::NEG_INFINITY, 1.0]),
        |entry| entry.attrs = Some("x".repeat(65_537)),
        |entry| entry.event_time = Some(i64::MIN),
        |entry| entry.position.source = 1 << 31,
        |entry| entry.position.partition = u32::MAX,
        |entry| entry.position.offset = u64::MAX,
    ];
    for change in bad {
        let mut entry = good.clone();
        change(&mut entry);
        let error = writer.push(&entry.row()).expect_err("refuses");
        assert_eq!(error.kind(), SegmentErrorKind::Invalid, "{error}");
    }
    assert_eq!(writer.push(&good.row()).expect("pushes"), 0);
    assert_eq!(
        writer.delete(&common::delete(5).delete()).expect("deletes"),
        1
    );
    let late = writer
        .push(&record(6, 2).row())
        .expect_err("records come first");
    assert_eq!(late.kind(), SegmentErrorKind::Invalid);
    assert_eq!(
        writer
            .finish(Ulid::from(7u128))
            .expect("finishes")
            .meta
            .entries(),
        2
    );
}

#[test]
fn should_refuse_an_id_that_comes_twice() {
    for twice_as_delete in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = SegmentWriter::create(folder.path(), &schema(2)).expect("creates");
        for n in 0..100 {
            writer.push(&record(n, 2).row()).expect("pushes");
        }
        if twice_as_delete {
            writer
                .delete(&common::delete(50).delete())
                .expect("deletes");
        } else {
            writer.push(&record(50, 2).row()).expect("pushes");
        }
        let error = writer.finish(Ulid::from(7u128)).expect_err("refuses");
        assert_eq!(error.kind(), SegmentErrorKind::Invalid);
        assert!(error.to_string().contains("key-50-é"), "{error}");
    }
}

#[test]
fn should_leave_nothing_in_the_spool_when_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    let files = || std::fs::read_dir(&spool).expect("the spool").count();
    let mut writer = SegmentWriter::create(&spool, &schema(2)).expect("creates");
    writer.push(&record(1, 2).row()).expect("pushes");
    assert_eq!(files(), 1);
    drop(writer);
    assert_eq!(files(), 0);
    let built = build(&spool, Ulid::from(8u128), &schema(2), &entries(3, 3, 2));
    assert!(built.files.iter().all(|(_, path)| path.exists()));
    drop(built);
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn should_refuse_a_meta_or_schema_of_another_segment() {
    let fixture = Fixture::new(20, 2, 4).await;
    let mut other_id = fixture.meta.clone();
    other_id.id = Ulid::from(9u128);
    let mut fewer = fixture.meta.clone();
    fewer.rows -= 1;
    for (meta, schema) in [
        (&other_id, fixture.schema),
        (&fewer, fixture.schema),
        (&fixture.meta, schema(5)),
    ] {
        let cache = BlockCache::new(1 << 20);
        let error = SegmentReader::open(fixture.store.clone(), meta, &schema, cache, None)
            .await
            .expect_err("refuses");
        assert_eq!(error.kind(), SegmentErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn should_name_ranges_outside_the_records_as_invalid() {
    let fixture = Fixture::new(20, 2, 4).await;
    let segment = fixture.open().await;
    let kinds = [
        segment.vector(20).await.expect_err("a delete").kind(),
        segment
            .vectors(&[0, u32::MAX])
            .await
            .expect_err("beyond")
            .kind(),
        segment
            .attrs(&[22], &ReadCounts::default())
            .await
            .expect_err("beyond")
            .kind(),
        segment.read_rows(19, 2).await.expect_err("beyond").kind(),
        segment
            .read_rows(u32::MAX, u32::MAX)
            .await
            .expect_err("beyond")
            .kind(),
    ];
    assert_eq!(kinds, [SegmentErrorKind::Invalid; 5]);
    assert_eq!(
        segment
            .attrs(&[21], &ReadCounts::default())
            .await
            .expect("a delete has none"),
        [None]
    );
}

#[tokio::test]
async fn should_read_only_the_bytes_of_the_vectors_and_attributes_asked_for() {
    let fixture = Fixture::new(30_000, 0, 64).await;
    let segment = fixture.open().await;
    let read = || fixture.store.usage().bytes_in;

    let before = read();
    let scattered: Vec<u32> = (0..10).map(|n| n * 2_999).collect();
    let vectors = segment.vectors(&scattered).await.expect("vectors");
    for (vector, ordinal) in vectors.chunks_exact(64).zip(&scattered) {
        assert_eq!(
            Some(vector),
            fixture.entries[*ordinal as usize].vector.as_deref()
        );
    }
    // Pages of row checksums this near each other are read as one, those between as well.
    assert!(
        read() - before <= 10 * 64 * 4 + 30_000 * 4,
        "{} bytes for ten vectors",
        read() - before
    );

    let before = read();
    segment
        .attrs(&scattered, &ReadCounts::default())
        .await
        .expect("attrs");
    assert!(
        read() - before <= 10 * (64 << 10),
        "{} bytes for ten attributes",
        read() - before
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn should_round_trip_any_entries_and_any_subset_of_them(
        dim in 1u32..40,
        rows in 0u32..3000,
        deletes in 0u32..40,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
        (from, count) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let fixture = Fixture::new(rows, deletes, dim).await;
            let segment = fixture.open().await;
            assert_holds(&segment, &fixture.entries).await;
            if rows > 0 {
                let ordinals: Vec<u32> = picks.iter().map(|pick| pick.index(rows as usize) as u32).collect();
                let expected = || ordinals.iter().map(|ordinal| &fixture.entries[*ordinal as usize]);
                let attrs = segment.attrs(&ordinals, &ReadCounts::default()).await.expect("attrs");
                assert_eq!(attrs, expected().map(|entry| entry.attrs.clone()).collect::<Vec<_>>());
                let vectors = segment.vectors(&ordinals).await.expect("vectors");
                assert_eq!(vectors, expected().flat_map(|entry| entry.vector.clone().expect("a record")).collect::<Vec<_>>());

                let from = from.index(rows as usize) as u32;
                let count = count.index((rows - from) as usize + 1) as u32;
                let batch = segment.read_rows(from, count).await.expect("rows");
                let entries = &fixture.entries[from as usize..(from + count) as usize];
                assert!(batch.iter().eq(entries.iter().map(|entry| entry.row())));
            }
        });
    }
}
