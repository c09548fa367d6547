//! Records made of a seed, and segments written and opened in a temporary store.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod listed;

use std::path::Path;
use ulid::Ulid;
use vexlake_distance::Metric;
use vexlake_segment::{
    BlockCache, Built, Delete, Found, Position, ReadCounts, Row, SegmentError, SegmentMeta,
    SegmentReader, SegmentSchema, SegmentWriter, key_hash, upload,
};
use vexlake_store::Store;

/// An owned record, or a delete where `vector` is None.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub id: String,
    pub vector: Option<Vec<f32>>,
    pub attrs: Option<String>,
    pub event_time: Option<i64>,
    pub position: Position,
}

impl Entry {
    pub fn row(&self) -> Row<'_> {
        Row {
            id: &self.id,
            vector: self.vector.as_deref().expect("a record"),
            attrs: self.attrs.as_deref(),
            event_time: self.event_time,
            position: self.position,
        }
    }

    pub fn delete(&self) -> Delete<'_> {
        Delete {
            id: &self.id,
            event_time: self.event_time,
            position: self.position,
        }
    }
}

pub fn schema(dim: u32) -> SegmentSchema {
    SegmentSchema {
        dim,
        metric: Metric::Cosine,
    }
}

/// Record `n` of a segment: everything in it follows from `n`.
pub fn record(n: u32, dim: u32) -> Entry {
    let float = |i: u32| {
        ((n.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40_503)) % 2001) as f32 / 1000.0 - 1.0
    };
    Entry {
        vector: Some((0..dim).map(float).collect()),
        // Some without, some empty, some longer than others, beyond ASCII.
        attrs: match n % 5 {
            0 => None,
            1 => Some("{}".to_string()),
            _ => Some(format!(
                "{{\"n\":{n},\"text\":\"{}\"}}",
                "ü€x".repeat((n % 40) as usize)
            )),
        },
        ..delete(n)
    }
}

pub fn delete(n: u32) -> Entry {
    Entry {
        id: format!("key-{n}-é"),
        vector: None,
        attrs: None,
        event_time: (!n.is_multiple_of(3)).then(|| 1_700_000_000_000 + i64::from(n)),
        position: Position {
            source: n % 2,
            log_time: 1_700_000_000_500 + i64::from(n) * 7,
            partition: n % 4,
            offset: u64::from(n) * 3,
        },
    }
}

/// `rows` records, then `deletes` deletes of other keys.
pub fn entries(rows: u32, deletes: u32, dim: u32) -> Vec<Entry> {
    let records = (0..rows).map(|n| record(n, dim));
    records.chain((rows..rows + deletes).map(delete)).collect()
}

pub fn build(dir: &Path, id: Ulid, schema: &SegmentSchema, entries: &[Entry]) -> Built {
    let mut writer = SegmentWriter::create(dir, schema).expect("creates");
    for (ordinal, entry) in entries.iter().enumerate() {
        let given = match entry.vector {
            Some(_) => writer.push(&entry.row()).expect("pushes"),
            None => writer.delete(&entry.delete()).expect("deletes"),
        };
        assert_eq!(given as usize, ordinal);
    }
    writer.finish(id).expect("finishes")
}

/// A store in a temporary folder with one uploaded segment.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub meta: SegmentMeta,
    pub schema: SegmentSchema,
    pub entries: Vec<Entry>,
}

impl Fixture {
    pub async fn new(rows: u32, deletes: u32, dim: u32) -> Self {
        Self::of(entries(rows, deletes, dim), schema(dim)).await
    }

    pub async fn of(entries: Vec<Entry>, schema: SegmentSchema) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::directory(folder.path().join("lake"))
            .expect("a store")
            .scoped("seg/x/");
        // Segments of one cache have names of their own.
        let id = Ulid::from_parts(1_700_000_000_000, entries.len() as u128);
        let built = build(&folder.path().join("spool"), id, &schema, &entries);
        upload(&store, &built).await.expect("uploads");
        Self {
            folder,
            store,
            meta: built.meta.clone(),
            schema,
            entries,
        }
    }

    pub async fn open(&self) -> SegmentReader {
        self.open_with(BlockCache::new(64 << 20)).await
    }

    pub async fn open_with(&self, cache: BlockCache) -> SegmentReader {
        self.try_open(cache).await.expect("opens")
    }

    pub async fn try_open(&self, cache: BlockCache) -> Result<SegmentReader, SegmentError> {
        SegmentReader::open(self.store.clone(), &self.meta, &self.schema, cache, None).await
    }

    /// Where the store keeps a file.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.store.local_path(name).expect("a directory store")
    }
}

/// Everything a segment can be asked, against the entries that went in.
pub async fn assert_holds(segment: &SegmentReader, expected: &[Entry]) {
    assert_eq!(segment.entries() as usize, expected.len());
    let rows = segment.rows();
    assert_entries(segment, expected).await;

    let mut seen = 0;
    for number in 0..segment.blocks() {
        let block = segment
            .block(number, &ReadCounts::default())
            .await
            .expect("a block");
        assert_eq!(segment.block_rows(number), seen..seen + block.rows());
        for ordinal in segment.block_rows(number) {
            let vector = expected[ordinal as usize]
                .vector
                .as_deref()
                .expect("a record");
            assert_eq!(block.vector(ordinal), vector);
            let exact = vector
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            let norm = block.norms()[(ordinal - block.first_row) as usize];
            assert!((f64::from(norm) - exact).abs() <= exact * 1e-5);
        }
        seen += block.rows();
    }
    assert_eq!(seen, rows);

    let backwards: Vec<u32> = (0..segment.entries()).rev().collect();
    let attrs = segment
        .attrs(&backwards, &ReadCounts::default())
        .await
        .expect("attrs");
    let asked: Vec<_> = backwards
        .iter()
        .map(|ordinal| expected[*ordinal as usize].attrs.clone())
        .collect();
    assert_eq!(attrs, asked);

    let mut from = 0;
    while from < rows {
        let count = segment.batch_rows().min(rows - from).min(777);
        let batch = segment.read_rows(from, count).await.expect("rows");
        assert_eq!(batch.len(), count as usize);
        for (row, entry) in batch.iter().zip(&expected[from as usize..]) {
            assert_eq!(row, entry.row());
        }
        from += count;
    }
}

/// Keys, ids, positions and times, against the entries that went in.
pub async fn assert_entries(segment: &SegmentReader, expected: &[Entry]) {
    let mut keys: Vec<(u64, &str)> = expected
        .iter()
        .map(|entry| (key_hash(&entry.id), entry.id.as_str()))
        .collect();
    // Absent ones between, and hashes that collide with keys that are there.
    keys.push((key_hash("absent"), "absent"));
    keys.extend(keys.first().map(|(hash, _)| (*hash, "another id")));
    let found = segment.find(&keys).await.expect("found");
    for (ordinal, entry) in expected.iter().enumerate() {
        let at = Found {
            entry: ordinal as u32,
            position: entry.position,
        };
        assert_eq!(found[ordinal], Some(at), "{}", entry.id);
        assert_eq!(segment.is_delete(at.entry), entry.vector.is_none());
        assert!(segment.may_hold(keys[ordinal].0));
    }
    assert!(found[expected.len()..].iter().all(Option::is_none));

    let backwards: Vec<u32> = (0..segment.entries()).rev().collect();
    let ids = segment
        .ids(&backwards, &ReadCounts::default())
        .await
        .expect("ids");
    assert!(ids.iter().eq(expected.iter().rev().map(|entry| &entry.id)));

    let batch = segment.entries_between(0..segment.entries()).await;
    let batch = batch.expect("entries");
    assert_eq!(batch.len(), expected.len());
    for (place, entry) in expected.iter().enumerate() {
        assert_eq!(batch.id(place), entry.id);
        assert_eq!(batch.position(place), entry.position);
        assert_eq!(batch.event_time(place), entry.event_time);
    }
}
