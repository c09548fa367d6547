//! Damaged files behind a whole reader: the right answer or a typed error, never
//! a wrong answer, never a panic.

mod common;

use common::{Entry, Fixture, assert_entries, assert_holds};
use vexlake_segment::{
    BlockCache, DATA_FILE, DELETES_FILE, INDEX_FILE, ReadCounts, SegmentError, SegmentErrorKind,
    SegmentReader, rebuild_index,
};

const DIM: u32 = 3;

/// Calls `check` once for every byte of a file flipped in place.
async fn flip_every_byte(fixture: &Fixture, name: &str, mut check: impl AsyncFnMut(usize)) {
    let path = fixture.path(name);
    let good = std::fs::read(&path).expect("reads");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= if at % 2 == 0 { 1 << (at % 8) } else { 0xFF };
        std::fs::write(&path, &bad).expect("writes");
        check(at).await;
    }
    std::fs::write(&path, &good).expect("writes");
}

/// Everything that is read from `data.parquet`; every answer given is compared.
async fn read_all(segment: &SegmentReader, expected: &[Entry]) -> Vec<SegmentError> {
    let mut errors = vec![];
    let rows = segment.rows();
    for number in 0..segment.blocks() {
        match segment.block(number, &ReadCounts::default()).await {
            Ok(block) => {
                for ordinal in segment.block_rows(number) {
                    assert_eq!(
                        Some(block.vector(ordinal)),
                        expected[ordinal as usize].vector.as_deref()
                    );
                }
            }
            Err(error) => errors.push(error),
        }
    }
    for ordinal in 0..rows {
        match segment.vector(ordinal).await {
            Ok(vector) => assert_eq!(Some(vector), expected[ordinal as usize].vector),
            Err(error) => errors.push(error),
        }
    }
    let ordinals: Vec<u32> = (0..rows).collect();
    match segment.attrs(&ordinals, &ReadCounts::default()).await {
        Ok(attrs) => assert!(
            attrs
                .iter()
                .eq(expected[..rows as usize].iter().map(|entry| &entry.attrs))
        ),
        Err(error) => errors.push(error),
    }
    match segment.read_rows(0, rows).await {
        Ok(batch) => assert!(
            batch
                .iter()
                .eq(expected[..rows as usize].iter().map(|entry| entry.row()))
        ),
        Err(error) => errors.push(error),
    }
    errors
}

#[tokio::test]
async fn should_answer_rightly_or_name_the_damage_for_every_byte_of_data_flipped() {
    let fixture = Fixture::new(12, 2, DIM).await;
    let mut harmed = 0;
    flip_every_byte(&fixture, DATA_FILE, async |at| {
        let segment = fixture.open().await;
        let errors = read_all(&segment, &fixture.entries).await;
        for error in &errors {
            assert_eq!(
                error.kind(),
                SegmentErrorKind::Corrupt,
                "byte {at}: {error}"
            );
        }
        harmed += usize::from(!errors.is_empty());
        let rebuilt = rebuild_index(&fixture.store, &fixture.meta, &fixture.schema, None).await;
        assert_eq!(
            rebuilt.expect_err("the file's checksum").kind(),
            SegmentErrorKind::Corrupt
        );
    })
    .await;
    // Vectors and attributes: the test would be idle if no flip were noticed.
    assert!(harmed > 12 * 4 * DIM as usize, "{harmed} flips noticed");
    assert_holds(&fixture.open().await, &fixture.entries).await;
}

#[tokio::test]
async fn should_answer_rightly_whatever_byte_of_the_index_is_flipped() {
    let fixture = Fixture::new(12, 2, DIM).await;
    let mut rebuilt = 0;
    flip_every_byte(&fixture, INDEX_FILE, async |_| {
        let segment = fixture.open().await;
        assert!(read_all(&segment, &fixture.entries).await.is_empty());
        assert_entries(&segment, &fixture.entries).await;
        rebuilt += usize::from(segment.is_rebuilt());
    })
    .await;
    assert!(rebuilt > 1000, "{rebuilt} flips noticed");
}

#[tokio::test]
async fn should_name_the_damage_when_index_and_parquet_are_both_damaged() {
    let fixture = Fixture::new(12, 2, DIM).await;
    for name in [DATA_FILE, DELETES_FILE] {
        std::fs::write(fixture.path(INDEX_FILE), b"not an index").expect("writes");
        let good = std::fs::read(fixture.path(name)).expect("reads");
        flip_every_byte(&fixture, name, async |at| {
            let opened = fixture.try_open(BlockCache::new(1 << 20)).await;
            let error = opened.expect_err("nothing to rebuild from");
            assert_eq!(
                error.kind(),
                SegmentErrorKind::Corrupt,
                "byte {at}: {error}"
            );
        })
        .await;
        for bad in [&good[..good.len() - 1], &good[..0]] {
            std::fs::write(fixture.path(name), bad).expect("writes");
            let error = rebuild_index(&fixture.store, &fixture.meta, &fixture.schema, None)
                .await
                .expect_err("cut");
            assert_eq!(error.kind(), SegmentErrorKind::Corrupt, "{error}");
        }
        std::fs::write(fixture.path(name), &good).expect("writes");
    }
}

#[tokio::test]
async fn should_name_the_damage_when_data_is_cut_short() {
    let fixture = Fixture::new(12, 2, DIM).await;
    let good = std::fs::read(fixture.path(DATA_FILE)).expect("reads");
    for length in (0..good.len()).step_by(7) {
        std::fs::write(fixture.path(DATA_FILE), &good[..length]).expect("writes");
        for error in read_all(&fixture.open().await, &fixture.entries).await {
            assert_eq!(
                error.kind(),
                SegmentErrorKind::Corrupt,
                "{length} bytes: {error}"
            );
        }
    }
}

#[tokio::test]
async fn should_say_not_found_when_the_data_is_gone() {
    let fixture = Fixture::new(12, 2, DIM).await;
    let segment = fixture.open().await;
    fixture.store.delete(DATA_FILE).await.expect("deletes");
    for error in read_all(&segment, &fixture.entries).await {
        assert_eq!(error.kind(), SegmentErrorKind::NotFound, "{error}");
    }
    fixture.store.delete(INDEX_FILE).await.expect("deletes");
    let opened = fixture.try_open(BlockCache::new(1 << 20)).await;
    assert_eq!(opened.expect_err("gone").kind(), SegmentErrorKind::NotFound);
}

#[tokio::test]
async fn should_not_keep_a_damaged_block_in_the_cache() {
    let fixture = Fixture::new(12, 0, DIM).await;
    let segment = fixture.open().await;
    let good = std::fs::read(fixture.path(DATA_FILE)).expect("reads");
    std::fs::write(fixture.path(DATA_FILE), vec![0; good.len()]).expect("writes");
    assert_eq!(
        segment
            .block(0, &ReadCounts::default())
            .await
            .expect_err("damaged")
            .kind(),
        SegmentErrorKind::Corrupt
    );
    std::fs::write(fixture.path(DATA_FILE), &good).expect("writes");
    assert_eq!(
        segment
            .block(0, &ReadCounts::default())
            .await
            .expect("repaired")
            .rows(),
        12
    );
}
