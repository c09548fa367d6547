//! Segments with inverted lists: written in list order, read by page, derived again.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Entry, assert_holds, delete, listed, record, schema};
use ulid::Ulid;
use vexlake_index::{Centroids, ListsHead};
use vexlake_segment::{
    BlockCache, INDEX_FILE, ReadCounts, SegmentErrorKind, SegmentMeta, SegmentReader,
    SegmentSchema, SegmentWriter, rebuild_index, upload,
};
use vexlake_store::Store;

/// A segment in a temporary store.
struct Listed {
    folder: tempfile::TempDir,
    store: Store,
    schema: SegmentSchema,
    meta: SegmentMeta,
    centroids: Arc<Centroids>,
    /// In list order.
    entries: Vec<Entry>,
    object: Vec<u8>,
}

impl Listed {
    async fn new(rows: u32, dim: u32, lists: usize) -> Self {
        let schema = schema(dim);
        let records: Vec<Entry> = (0..rows).map(|n| record(n, dim)).collect();
        let deletes: Vec<Entry> = (rows..rows + 3).map(delete).collect();
        let centroids = listed::train_on(&schema, &records, Ulid::from(5u128), lists);
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::directory(folder.path().join("lake")).expect("a store");
        let id = Ulid::from(77u128);
        let both = (records.as_slice(), deletes.as_slice());
        let (built, entries, object) = listed::write(folder.path(), id, &schema, &centroids, both);
        upload(&store, &built).await.expect("uploads");
        Self {
            folder,
            store,
            schema,
            meta: built.meta.clone(),
            centroids: Arc::new(centroids),
            entries,
            object,
        }
    }

    async fn open(&self, centroids: Option<Arc<Centroids>>) -> SegmentReader {
        let opened = self.try_open(centroids).await;
        opened.expect("opens")
    }

    async fn try_open(
        &self,
        centroids: Option<Arc<Centroids>>,
    ) -> Result<SegmentReader, vexlake_segment::SegmentError> {
        let (store, cache) = (self.store.clone(), BlockCache::new(16 << 20));
        SegmentReader::open(store, &self.meta, &self.schema, cache, centroids).await
    }

    fn known(&self) -> Option<Arc<Centroids>> {
        Some(self.centroids.clone())
    }
}

/// The bytes of every list that has rows.
async fn lists_of(segment: &SegmentReader) -> BTreeMap<u32, Vec<u8>> {
    let head = segment.lists().expect("lists").clone();
    let counts = ReadCounts::default();
    let mut lists = BTreeMap::new();
    for entry in head.entries() {
        let page = segment.list_page(entry);
        let pages = segment.list_pages(&[page], &counts).await.expect("reads");
        let list = segment.list(entry, page, &pages[0]).expect("a list");
        lists.insert(
            entry.list,
            [list.blocks(), list.rest().codes, list.rest().factors].concat(),
        );
        assert_eq!(segment.held_list_page(page), Some(pages[0].clone()));
    }
    assert_eq!(
        counts.read().loaded + counts.read().held,
        counts.read().requests
    );
    lists
}

fn lists_in(object: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let head = ListsHead::decode(object).expect("decodes");
    let list = |entry: &vexlake_index::ListEntry| {
        let range = head.range(entry);
        let bytes = &object[range.start as usize..range.end as usize];
        let list = head.verify(entry, bytes).expect("right");
        (
            entry.list,
            [list.blocks(), list.rest().codes, list.rest().factors].concat(),
        )
    };
    head.entries().iter().map(list).collect()
}

#[tokio::test]
async fn should_read_back_lists_and_rows_by_page() {
    let listed = Listed::new(5000, 40, 70).await;
    let segment = listed.open(listed.known()).await;
    assert_holds(&segment, &listed.entries).await;
    assert_eq!(segment.meta().centroids, Some(Ulid::from(5u128)));
    let expected = lists_in(&listed.object);
    assert!(expected.len() > 50);
    assert_eq!(lists_of(&segment).await, expected);
    let mut object = segment.lists_object().await.expect("reads");
    let head = segment.lists().expect("lists").head_bytes() as usize;
    object[..head].copy_from_slice(&listed.object[..head]);
    assert_eq!(object, listed.object);
}

#[tokio::test]
async fn should_keep_single_rows_and_take_those_of_blocks_in_memory() {
    let listed = Listed::new(600, 8, 6).await;
    let segment = listed.open(listed.known()).await;
    let (wanted, counts) = ([3u32, 4, 250, 599], ReadCounts::default());
    let expected: Vec<f32> = wanted
        .iter()
        .flat_map(|row| {
            listed.entries[*row as usize]
                .vector
                .clone()
                .expect("a record")
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(
            segment.rows_of(&wanted, &counts).await.expect("reads"),
            expected
        );
    }
    let reads = counts.read();
    // Four rows and two pages of checksums once; the same four from memory.
    assert_eq!((reads.loaded, reads.held), (4 + 2, 4));
    segment
        .block(0, &ReadCounts::default())
        .await
        .expect("a block");
    segment.rows_of(&[5, 6], &counts).await.expect("reads");
    assert_eq!(counts.read().loaded, reads.loaded, "its block is there");
    let beyond = segment
        .rows_of(&[600], &counts)
        .await
        .expect_err("a delete");
    assert_eq!(beyond.kind(), SegmentErrorKind::Invalid);
}

#[tokio::test]
async fn should_derive_an_index_with_lists_byte_for_byte() {
    for (rows, lists) in [(1, 1), (700, 9)] {
        let listed = Listed::new(rows, 12, lists).await;
        let known = listed.known();
        let derived =
            rebuild_index(&listed.store, &listed.meta, &listed.schema, known.as_ref()).await;
        let stored = listed.store.get(INDEX_FILE).await.expect("the index");
        assert_eq!(derived.expect("derives"), stored);
    }
}

#[tokio::test]
async fn should_answer_rightly_whatever_byte_of_an_index_with_lists_is_flipped() {
    let listed = Listed::new(50, 3, 3).await;
    let path = listed.folder.path().join("lake").join(INDEX_FILE);
    let good = std::fs::read(&path).expect("reads");
    let expected = lists_in(&listed.object);
    let mut rebuilt = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= if at % 2 == 0 { 1 << (at % 8) } else { 0xFF };
        std::fs::write(&path, &bad).expect("writes");
        let segment = listed.open(listed.known()).await;
        assert_eq!(lists_of(&segment).await, expected, "byte {at}");
        rebuilt += usize::from(segment.is_rebuilt());
    }
    let lists = listed.object.len() - 200;
    assert!(rebuilt > lists, "{rebuilt} flips noticed of {}", good.len());
}

#[tokio::test]
async fn should_name_the_damage_where_centroids_are_unknown() {
    let listed = Listed::new(50, 3, 3).await;
    let segment = listed.open(None).await;
    assert_eq!(lists_of(&segment).await, lists_in(&listed.object));
    listed.store.delete(INDEX_FILE).await.expect("deletes");
    let error = listed
        .try_open(None)
        .await
        .expect_err("nothing to derive it by");
    assert_eq!(error.kind(), SegmentErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("no centroids"), "{error}");
    assert!(listed.open(listed.known()).await.is_rebuilt());
}

#[tokio::test]
async fn should_refuse_lists_that_are_not_those_of_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let listed = Listed::new(50, 3, 3).await;
    let mut writer = SegmentWriter::create(folder.path(), &listed.schema).expect("creates");
    for bad in [&listed.object[..40], b"".as_slice()] {
        assert!(writer.set_lists(bad.to_vec()).is_err());
    }
    writer.set_lists(listed.object.clone()).expect("lists");
    let row = listed.entries[0].row();
    writer.push(&row).expect("pushes");
    let error = writer
        .finish(Ulid::from(1u128))
        .expect_err("49 rows are missing");
    assert_eq!(error.kind(), SegmentErrorKind::Invalid, "{error}");
}
