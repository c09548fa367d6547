//! The segments of `schemas/fixtures`, each written once by its format and never
//! again: today's program must read them as they were meant then. The index of format 1
//! is not read any more; it is derived again from its Parquet files.

mod common;

use common::{Entry, assert_holds};
use vexlake_distance::Metric;
use vexlake_index::Filter;
use vexlake_segment::{
    BlockCache, INDEX_FILE, Position, ReadCounts, SegmentMeta, SegmentReader, SegmentSchema,
};
use vexlake_store::Store;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/fixtures");
const SCHEMA: SegmentSchema = SegmentSchema {
    dim: 4,
    metric: Metric::L2,
};

fn entry(
    id: &str,
    vector: Option<[f32; 4]>,
    attrs: Option<&str>,
    event_time: Option<i64>,
    at: (u32, i64, u32, u64),
) -> Entry {
    let (source, log_time, partition, offset) = at;
    Entry {
        id: id.to_string(),
        vector: vector.map(|vector| vector.to_vec()),
        attrs: attrs.map(str::to_string),
        event_time,
        position: Position {
            source,
            log_time,
            partition,
            offset,
        },
    }
}

/// What the fixture was written from.
fn entries() -> Vec<Entry> {
    let biggest = (
        i32::MAX as u32,
        1_700_000_000_009,
        i32::MAX as u32,
        i64::MAX as u64,
    );
    vec![
        entry(
            "apple",
            Some([1.0, 0.0, 0.0, 0.0]),
            Some(r#"{"kind":"fruit","n":1}"#),
            Some(1_699_999_999_000),
            (0, 1_700_000_000_001, 0, 10),
        ),
        entry(
            "bär",
            Some([0.0, -2.5, 0.0, 0.0]),
            None,
            None,
            (0, 1_700_000_000_002, 1, 11),
        ),
        entry(
            "東京",
            Some([0.0, 0.0, 3.0e20, 0.0]),
            Some("{}"),
            Some(0),
            (1, 1_700_000_000_003, 2, 12),
        ),
        entry(
            "zero",
            Some([0.0; 4]),
            Some(r#"{"ü":null}"#),
            Some(-1),
            (1, 1_700_000_000_004, 3, 0),
        ),
        entry(
            "tiny",
            Some([f32::MIN_POSITIVE, -0.0, 1.0e-45, f32::MAX]),
            None,
            Some(i64::MAX / 1_000_000),
            biggest,
        ),
        entry("gone", None, None, Some(5), (0, 1_700_000_000_005, 0, 13)),
        entry("forgotten", None, None, None, (1, 1_700_000_000_000, 1, 14)),
    ]
}

fn meta_text(format: u32) -> String {
    std::fs::read_to_string(format!("{FIXTURES}/segment-v{format}/meta.json")).expect("the fixture")
}

fn meta(format: u32) -> SegmentMeta {
    serde_json::from_str(&meta_text(format)).expect("parses")
}

fn copy(format: u32) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    for file in meta(format).files {
        std::fs::copy(
            format!("{FIXTURES}/segment-v{format}/{}", file.name),
            folder.path().join(&file.name),
        )
        .expect("copies");
    }
    let store = Store::directory(folder.path()).expect("a store");
    (folder, store)
}

async fn open(format: u32) -> (tempfile::TempDir, SegmentReader) {
    let (folder, store) = copy(format);
    let cache = BlockCache::new(1 << 20);
    let segment = SegmentReader::open(store, &meta(format), &SCHEMA, cache, None).await;
    (folder, segment.expect("opens"))
}

#[tokio::test]
async fn should_read_the_segment_of_format_2() {
    let (_folder, segment) = open(2).await;
    assert_holds(&segment, &entries()).await;
    assert!(!segment.is_rebuilt());
}

#[tokio::test]
async fn should_mend_pages_of_a_format_2_without_attribute_columns() {
    let (folder, store) = copy(2);
    let path = folder.path().join(INDEX_FILE);
    let mut index = std::fs::read(&path).expect("the index");
    let lazy = index.len() - meta(2).index_head_bytes as usize;
    index[64..lazy].fill(0xff);
    std::fs::write(&path, index).expect("damages all lazy pages");
    let cache = BlockCache::new(1 << 20);
    let segment = SegmentReader::open(store, &meta(2), &SCHEMA, cache, None).await;
    let segment = segment.expect("opens by its head");
    assert_holds(&segment, &entries()).await;
    assert!(segment.is_rebuilt());
}

#[tokio::test]
async fn should_leave_filters_to_the_text_where_there_are_no_columns() {
    let (_folder, segment) = open(2).await;
    let filter = Filter::parse(".n == 1").expect("an expression");
    let counts = ReadCounts::default();
    let columns = segment.filter_columns(&filter, &counts).await;
    let passed = columns.expect("none to read").evaluate(&filter);
    let passed = passed.expect("nothing to decode");
    assert_eq!((passed.pass, passed.unknown), (vec![0], vec![0b11111]));
    assert_eq!(counts.read().requests, 0);
}

#[tokio::test]
async fn should_serve_the_segment_of_format_1_from_its_parquet() {
    let (_folder, segment) = open(1).await;
    assert!(segment.is_rebuilt());
    assert_holds(&segment, &entries()).await;
    assert_eq!(meta(1).index_head_bytes, 0);
}

#[test]
fn should_read_the_metas_of_both_formats() {
    for format in [1, 2] {
        let meta = meta(format);
        assert_eq!(
            (meta.rows, meta.deletes, meta.created_ms),
            (5, 2, 1_700_000_000_000)
        );
        assert_eq!(
            (meta.log_time_min, meta.log_time_max),
            (1_700_000_000_000, 1_700_000_000_009)
        );
    }
    assert_eq!(
        serde_json::to_string_pretty(&meta(2)).expect("serializes"),
        meta_text(2).trim_end()
    );
}
