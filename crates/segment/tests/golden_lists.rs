//! The golden segment with lists, written once by `examples/golden_lists.rs`: today's
//! program must read it, search it and derive its index as it was meant then.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::listed::{GOLDEN_DIM, GOLDEN_SCHEMA, golden_entries, write_golden};
use common::{Entry, assert_holds};
use vexlake_distance::kernels;
use vexlake_index::{Candidate, Centroids, Effort, ListsHead, Query, Search, SegmentLists};
use vexlake_segment::{BlockCache, INDEX_FILE, SegmentMeta, SegmentReader, rebuild_index};
use vexlake_store::Store;

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../schemas/fixtures/segment-v2-lists"
);
/// The five nearest of [`QUERY`], as they were when the files were written.
const NEAREST: [&str; 5] = ["key-44-é", "key-136-é", "key-26-é", "key-109-é", "key-71-é"];
const QUERY: [f32; GOLDEN_DIM as usize] = [3.5, 0.25, 4.0, -0.5, 4.5, 0.0];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(FIXTURE).join(name)).expect("the fixture")
}

fn meta() -> SegmentMeta {
    serde_json::from_slice(&fixture("meta.json")).expect("parses")
}

fn centroids() -> Arc<Centroids> {
    Arc::new(Centroids::from_bytes(&fixture("centroids")).expect("decodes"))
}

/// A copy of the files, so that nothing can harm them.
fn copy() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    for file in meta().files {
        std::fs::write(folder.path().join(&file.name), fixture(&file.name)).expect("writes");
    }
    let store = Store::directory(folder.path()).expect("a store");
    (folder, store)
}

async fn open() -> (tempfile::TempDir, SegmentReader) {
    let (folder, store) = copy();
    let cache = BlockCache::new(1 << 20);
    let (meta, known) = (meta(), Some(centroids()));
    let opened = SegmentReader::open(store, &meta, &GOLDEN_SCHEMA, cache, known).await;
    (folder, opened.expect("opens"))
}

/// The entries in the order of the file, which is that of its lists.
fn entries() -> Vec<Entry> {
    let folder = tempfile::tempdir().expect("a folder");
    write_golden(folder.path(), &centroids()).1
}

/// Keys and rows of a query's nearest through all lists.
fn search(
    (head, object): (&ListsHead, &[u8]),
    query: &[f32],
    rows: &[Entry],
    k: usize,
) -> Vec<(f32, usize)> {
    let centroids = centroids();
    let mut search = Search::default();
    let begun = search.begin(centroids.space(), query, Effort::for_k(k));
    begun.expect("a query that codes serve");
    search.choose(&centroids, centroids.count());
    search.scan(&[SegmentLists {
        segment: 0,
        head,
        bytes: object,
        hidden: None,
    }]);
    let exact = Query::new(GOLDEN_SCHEMA.metric, query);
    let row_of = |candidate: Candidate| head.ordinal(candidate.slot) as usize;
    loop {
        let wave = search.wave(16).to_vec();
        if wave.is_empty() {
            break;
        }
        for candidate in wave {
            let vector = rows[row_of(candidate)].vector.as_deref().expect("a record");
            search.report(candidate, exact.key(vector, 0.0));
        }
    }
    let found = search.finish().into_iter();
    found
        .map(|(key, candidate)| (key, row_of(candidate)))
        .collect()
}

#[tokio::test]
async fn should_read_every_entry_and_list_of_the_golden_segment() {
    let (_folder, segment) = open().await;
    assert!(!segment.is_rebuilt());
    assert_holds(&segment, &entries()).await;
    let (records, deletes) = golden_entries();
    let meta = meta();
    assert_eq!(
        (meta.rows as usize, meta.deletes as usize),
        (records.len(), deletes.len())
    );
    assert_eq!(meta.centroids.map(u128::from), Some(centroids().version()));
    let head = segment.lists().expect("lists");
    assert!(head.is_in_list_order() && head.rows() == meta.rows);
    assert_eq!(head.entries().len(), 4);
}

#[tokio::test]
async fn should_find_in_the_golden_lists_what_was_found_then() {
    let (_folder, segment) = open().await;
    let (object, rows) = (segment.lists_object().await.expect("reads"), entries());
    let lists = (segment.lists().expect("lists"), object.as_slice());
    let found = search(lists, &QUERY, &rows, NEAREST.len());
    let ids: Vec<&str> = found
        .iter()
        .map(|(_, row)| rows[*row].id.as_str())
        .collect();
    assert_eq!(ids, NEAREST);
    for (place, row) in rows.iter().take(meta().rows as usize).enumerate() {
        let vector = row.vector.as_deref().expect("a record");
        assert_eq!(search(lists, vector, &rows, 1), [(0.0, place)]);
    }
}

#[test]
fn should_have_the_checksums_that_its_commit_names() {
    let meta = meta();
    for file in &meta.files {
        let bytes = fixture(&file.name);
        assert_eq!(bytes.len() as u64, file.bytes, "{}", file.name);
        assert_eq!(crc32c::crc32c(&bytes), file.crc32c, "{}", file.name);
    }
    let text = serde_json::to_string_pretty(&meta).expect("serialises") + "\n";
    assert_eq!(text.into_bytes(), fixture("meta.json"));
    assert_eq!(centroids().to_bytes(), fixture("centroids"));
}

#[tokio::test]
async fn should_derive_the_golden_index_byte_for_byte() {
    let (_folder, store) = copy();
    let derived = rebuild_index(&store, &meta(), &GOLDEN_SCHEMA, Some(&centroids())).await;
    assert_eq!(
        derived.expect("derives"),
        fixture(INDEX_FILE),
        "by {}",
        kernels().name
    );
}
