//! What lookups cost: requests, bytes and memory; and what they do when the index proves
//! damaged only after it was opened.

mod common;

use common::{Entry, Fixture, assert_holds, delete, entries, schema};
use vexlake_segment::{
    BlockCache, DATA_FILE, INDEX_FILE, ReadCounts, SegmentErrorKind, SegmentReader, key_hash,
};
use vexlake_store::Usage;

fn key(id: &str) -> (u64, &str) {
    (key_hash(id), id)
}

/// Requests and bytes since `before`.
fn since(fixture: &Fixture, before: Usage) -> (u64, u64) {
    let now = fixture.store.usage();
    assert_eq!(now.gets, before.gets, "nothing is read whole");
    (now.ranges - before.ranges, now.bytes_in - before.bytes_in)
}

fn file_bytes(fixture: &Fixture, name: &str) -> u64 {
    fixture.meta.file(name).expect("the file").bytes
}

#[tokio::test]
async fn should_open_in_one_round_find_in_two_and_name_in_one() {
    let fixture = Fixture::new(20_000, 100, 2).await;
    let before = fixture.store.usage();
    let segment = fixture.open().await;
    let head = fixture.meta.index_head_bytes;
    assert_eq!(since(&fixture, before), (1, head));
    assert!(head * 10 < file_bytes(&fixture, INDEX_FILE), "{head}");

    let before = fixture.store.usage();
    let absent: Vec<String> = (0..100).map(|n| format!("absent-{n}")).collect();
    let keys: Vec<_> = absent.iter().map(|id| key(id)).collect();
    let keys: Vec<_> = keys
        .into_iter()
        .filter(|key| !segment.may_hold(key.0))
        .collect();
    assert!(keys.len() > 98);
    let found = segment.find(&keys).await.expect("found");
    assert!(found.iter().all(Option::is_none));
    assert_eq!(since(&fixture, before), (0, 0), "the filter alone says no");

    let id = &fixture.entries[12_345].id;
    let found = segment.find(&[key(id)]).await.expect("found");
    assert_eq!(found[0].map(|found| found.entry), Some(12_345));
    let (requests, bytes) = since(&fixture, before);
    // 1,024 keys of 12 bytes, 256 entries of 36 bytes and their ids.
    assert!(
        requests == 2 && bytes <= 12 * 1024 + 256 * 50,
        "{requests} requests, {bytes} bytes"
    );

    let before = fixture.store.usage();
    segment.find(&[key(id)]).await.expect("found");
    let neighbour = 12_345 / 256 * 256;
    let ids = segment
        .ids(&[neighbour, 12_345, neighbour], &ReadCounts::default())
        .await
        .expect("ids");
    assert_eq!(ids[1], *id);
    assert_eq!(ids[0], ids[2]);
    assert_eq!(since(&fixture, before), (0, 0), "the same pages again");

    segment
        .ids(&[5, 7_000, 19_999], &ReadCounts::default())
        .await
        .expect("ids");
    assert_eq!(since(&fixture, before).0, 1);
    let before = fixture.store.usage();
    segment
        .entries_between(1_000..9_000)
        .await
        .expect("entries");
    assert_eq!(since(&fixture, before).0, 1);
    for beyond in [20_100, u32::MAX] {
        let kind = segment
            .ids(&[0, beyond], &ReadCounts::default())
            .await
            .expect_err("beyond")
            .kind();
        assert_eq!(kind, SegmentErrorKind::Invalid);
        let range = segment.entries_between(0..beyond.max(20_101)).await;
        assert_eq!(range.expect_err("beyond").kind(), SegmentErrorKind::Invalid);
    }
}

#[tokio::test]
async fn should_read_vectors_and_their_checksums_in_one_round() {
    let fixture = Fixture::new(5_000, 0, 16).await;
    let segment = fixture.open().await;
    let before = fixture.store.usage();
    segment.vector(4_321).await.expect("a vector");
    // One request to each file, and neither waits for the other.
    assert_eq!(since(&fixture, before), (2, 16 * 4 + 256 * 4));
    let before = fixture.store.usage();
    segment.vectors(&[4_320, 4_322]).await.expect("vectors");
    assert_eq!(since(&fixture, before).0, 1, "the checksums were there");
}

#[tokio::test]
async fn should_read_each_page_once_however_many_keys_are_asked_for() {
    // More entry pages than one wave takes, and nothing is kept.
    let fixture = Fixture::of((0..140_000).map(delete).collect(), schema(1)).await;
    let segment = fixture.open_with(BlockCache::new(0)).await;
    let keys: Vec<_> = fixture.entries.iter().map(|entry| key(&entry.id)).collect();
    let before = fixture.store.usage();
    let found = segment.find(&keys).await.expect("found");
    for (ordinal, (found, entry)) in found.iter().zip(&fixture.entries).enumerate() {
        let found = found.expect("is there");
        assert_eq!(
            (found.entry, found.position),
            (ordinal as u32, entry.position)
        );
    }
    let (requests, bytes) = since(&fixture, before);
    let lazy = file_bytes(&fixture, INDEX_FILE) - fixture.meta.index_head_bytes;
    assert!(
        bytes <= lazy && requests <= 4,
        "{requests} requests, {bytes} of {lazy} bytes"
    );
}

#[tokio::test]
async fn should_hold_less_than_three_bytes_a_record() {
    const ROWS: u32 = 100_000;
    let entry = |n: u32| Entry {
        id: format!("{n:020}"),
        ..common::record(n, 2)
    };
    let fixture = Fixture::of((0..ROWS).map(entry).collect(), schema(2)).await;
    let segment = fixture.open().await;
    let per_record = segment.memory_bytes() as f64 / f64::from(ROWS);
    assert!(per_record <= 3.0, "{per_record} bytes a record");
    let resident = fixture.meta.index_head_bytes as f64 / f64::from(ROWS);
    assert!(
        per_record >= 0.9 * resident,
        "{per_record} of {resident} bytes"
    );
    let absent = (0..1_000_000u32).filter(|n| segment.may_hold(key_hash(&format!("no-{n}"))));
    let passed = absent.count();
    assert!(
        passed < 60,
        "{passed} of a million absent keys passed; 15 are expected"
    );
}

#[tokio::test]
async fn should_keep_blocks_and_pages_of_all_segments_under_one_bound() {
    const BYTES_MAX: usize = 300_000;
    let cache = BlockCache::new(BYTES_MAX);
    let (one, two) = (
        Fixture::new(9_000, 10, 8).await,
        Fixture::new(4_000, 0, 8).await,
    );
    let segments = [
        one.open_with(cache.clone()).await,
        two.open_with(cache.clone()).await,
    ];
    let mut most = 0;
    for round in 0..40u32 {
        for (segment, fixture) in segments.iter().zip([&one, &two]) {
            segment
                .block(round as usize % segment.blocks(), &ReadCounts::default())
                .await
                .expect("a block");
            let at = (round * 997) % segment.rows();
            let id = &fixture.entries[at as usize].id;
            let found = segment.find(&[key(id)]).await.expect("found");
            assert_eq!(found[0].map(|found| found.entry), Some(at));
            segment.vector(at).await.expect("a vector");
            most = most.max(cache.stats().bytes);
        }
    }
    assert!(
        most <= BYTES_MAX as u64 && most > BYTES_MAX as u64 / 2,
        "{most} bytes"
    );
}

async fn spoil_pages(fixture: &Fixture) {
    let path = fixture.path(INDEX_FILE);
    let mut bytes = std::fs::read(&path).expect("reads");
    let head_at = bytes.len() - fixture.meta.index_head_bytes as usize;
    bytes[..head_at].fill(0xAA);
    std::fs::write(&path, bytes).expect("writes");
}

#[tokio::test]
async fn should_mend_itself_once_when_pages_prove_damaged_or_missing_after_open() {
    for is_missing in [false, true] {
        let fixture = Fixture::new(3_000, 40, 4).await;
        let segment = fixture.open().await;
        match is_missing {
            true => fixture.store.delete(INDEX_FILE).await.expect("deletes"),
            false => spoil_pages(&fixture).await,
        }
        let before = segment.memory_bytes();
        assert!(!segment.is_rebuilt(), "nothing was read yet");
        assert_holds(&segment, &fixture.entries).await;
        assert!(segment.is_rebuilt());
        let held = (segment.memory_bytes() - before) as u64;
        assert!(held >= file_bytes(&fixture, INDEX_FILE), "{held} bytes");

        let before = fixture.store.usage();
        segment.entries_between(0..3_040).await.expect("entries");
        assert_eq!(since(&fixture, before), (0, 0), "derived once, then memory");
    }
}

#[tokio::test]
async fn should_name_the_damage_when_pages_and_parquet_are_both_damaged() {
    let fixture = Fixture::new(3_000, 40, 4).await;
    let segment = fixture.open().await;
    spoil_pages(&fixture).await;
    let data = std::fs::read(fixture.path(DATA_FILE)).expect("reads");
    let mut bad = data.clone();
    bad[1_000] ^= 1;
    std::fs::write(fixture.path(DATA_FILE), &bad).expect("writes");
    let ask = async |segment: &SegmentReader| {
        let id = &fixture.entries[7].id;
        segment
            .find(&[key(id)])
            .await
            .map(|found| found[0].map(|found| found.entry))
    };
    let error = ask(&segment).await.expect_err("nothing to derive it from");
    assert_eq!(error.kind(), SegmentErrorKind::Corrupt, "{error}");
    assert!(!segment.is_rebuilt());
    // Not for ever: a restored file is tried again.
    std::fs::write(fixture.path(DATA_FILE), &data).expect("writes");
    assert_eq!(ask(&segment).await.expect("mended"), Some(7));
}

#[tokio::test]
async fn should_find_nothing_in_an_empty_segment_and_nothing_for_no_keys() {
    let empty = Fixture::of(entries(0, 0, 2), schema(2)).await;
    let segment = empty.open().await;
    assert_eq!(segment.find(&[key("a")]).await.expect("found"), [None]);
    assert!(segment.find(&[]).await.expect("found").is_empty());
    assert!(
        segment
            .ids(&[], &ReadCounts::default())
            .await
            .expect("ids")
            .is_empty()
    );
    assert!(
        segment
            .entries_between(0..0)
            .await
            .expect("entries")
            .is_empty()
    );
}
