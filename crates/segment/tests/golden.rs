//! The segment of `schemas/fixtures/segment-v1`, written once by format 1 and
//! never again: today's program must read it as it was meant then.

mod common;

use common::{Entry, assert_holds};
use vexlake_distance::Metric;
use vexlake_segment::{
    INDEX_FILE, Position, SegmentMeta, SegmentReader, SegmentSchema, VectorCache, rebuild_index,
};
use vexlake_store::Store;

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../schemas/fixtures/segment-v1"
);
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

fn meta() -> SegmentMeta {
    let text = std::fs::read_to_string(format!("{FOLDER}/meta.json")).expect("the fixture");
    serde_json::from_str(&text).expect("parses")
}

fn copy() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    for file in meta().files {
        std::fs::copy(
            format!("{FOLDER}/{}", file.name),
            folder.path().join(&file.name),
        )
        .expect("copies");
    }
    let store = Store::directory(folder.path()).expect("a store");
    (folder, store)
}

#[tokio::test]
async fn should_read_the_segment_of_format_1() {
    let (_folder, store) = copy();
    let segment = SegmentReader::open(store, &meta(), &SCHEMA, VectorCache::new(1 << 20))
        .await
        .expect("opens");
    assert!(!segment.is_rebuilt());
    assert_holds(&segment, &entries()).await;
}

#[tokio::test]
async fn should_derive_the_index_of_format_1_byte_for_byte() {
    let (_folder, store) = copy();
    let rebuilt = rebuild_index(&store, &meta(), &SCHEMA)
        .await
        .expect("rebuilds");
    assert_eq!(rebuilt, store.get(INDEX_FILE).await.expect("the index"));
}

#[test]
fn should_read_the_meta_of_format_1() {
    let meta = meta();
    assert_eq!(
        (meta.rows, meta.deletes, meta.created_ms),
        (5, 2, 1_700_000_000_000)
    );
    assert_eq!(
        (meta.log_time_min, meta.log_time_max),
        (1_700_000_000_000, 1_700_000_000_009)
    );
    let text = std::fs::read_to_string(format!("{FOLDER}/meta.json")).expect("the fixture");
    assert_eq!(
        serde_json::to_string_pretty(&meta).expect("serializes"),
        text.trim_end()
    );
}
